package idempotencytest_test

import (
	"testing"

	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/idempotencytest"
)

// The body of a store's TestConformance.
func ExampleRun() { //nolint:testableexamples // compiled only: the suite needs a *testing.T, which an Example has not
	conformance := func(t *testing.T) {
		idempotencytest.Run(t, func(t *testing.T) idempotency.Store {
			store, err := idempotency.NewMemory(idempotency.MemoryConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return store
		})
	}
	_ = conformance
}
