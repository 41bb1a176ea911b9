package messagingtest_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/messagingtest"
)

// The body of a driver's TestConformance.
func ExampleRun() { //nolint:testableexamples // compiled only: the suite needs a *testing.T, which an Example has not
	conformance := func(t *testing.T) {
		messagingtest.Run(t, messagingtest.Config{
			Virtual:  true, // the driver uses no real network connections
			Features: messagingtest.Features{UncountedRelease: true, OrderAcrossSubscriptions: true},
			Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
				b, err := memory.New(memory.Config{TracerProvider: tp})
				if err != nil {
					t.Fatal(err)
				}
				return b
			},
		})
	}
	_ = conformance
}
