package idempotency_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/idempotencytest"
)

func memory(t *testing.T, cfg idempotency.MemoryConfig) *idempotency.Memory {
	t.Helper()
	m, err := idempotency.NewMemory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemoryConforms(t *testing.T) {
	t.Parallel()
	idempotencytest.Run(t, func(t *testing.T) idempotency.Store { return memory(t, idempotency.MemoryConfig{}) })
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := memory(t, idempotency.MemoryConfig{MaxEntries: 3, MaxBytes: 10})
	claim := func(id string) (idempotency.Entry, error) {
		return m.Claim(t.Context(), id, idempotency.Claim{Owner: "o", Lease: time.Hour})
	}
	done := func(id string, size int) error {
		if e, err := claim(id); err != nil || !e.Claimed {
			return fmt.Errorf("%+v %w", e, err)
		}
		return m.Keep(t.Context(), id, "o", make([]byte, size), time.Hour)
	}
	for _, id := range []string{"a", "b"} {
		if err := done(id, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := done("c", 4); err != nil { // 12 bytes: a goes
		t.Fatal(err)
	}
	if e, err := claim("b"); err != nil || len(e.Record) != 4 {
		t.Errorf("b was forgotten before it had to be: %+v %v", e, err)
	}
	if e, err := claim("a"); err != nil || !e.Claimed {
		t.Errorf("a is still there: %+v %v", e, err)
	}
	for _, id := range []string{"d", "e"} { // of b and c each makes room for one claim
		if e, err := claim(id); err != nil || !e.Claimed {
			t.Fatalf("%s: %+v %v", id, e, err)
		}
	}
	if _, err := claim("f"); err == nil || m.Len() != 3 {
		t.Errorf("%d claims, and a fourth: %v", m.Len(), err)
	}
	if e, err := claim("a"); err != nil || e.Claimed {
		t.Errorf("a claim was dropped: %+v %v", e, err)
	}
	if err := m.Keep(t.Context(), "a", "o", make([]byte, 11), time.Hour); err == nil || errors.Is(err, idempotency.ErrLost) {
		t.Errorf("a record above the bound: %v", err)
	}
}

func TestMemoryForgetsWhatHasRunOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := memory(t, idempotency.MemoryConfig{MaxEntries: 4})
		for i := range 4 {
			id := fmt.Sprint(i)
			if _, err := m.Claim(t.Context(), id, idempotency.Claim{Owner: "o", Lease: time.Minute}); err != nil {
				t.Fatal(err)
			}
			if i < 2 {
				if err := m.Keep(t.Context(), id, "o", []byte{1}, time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
		if _, err := m.Claim(t.Context(), "new", idempotency.Claim{Lease: time.Minute}); err != nil || m.Len() != 3 {
			t.Errorf("%d entries, %v; want the two records gone", m.Len(), err)
		}
		if _, err := m.Claim(t.Context(), "new 2", idempotency.Claim{Lease: time.Minute}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // the claims of processes that died, as it were
		if _, err := m.Claim(t.Context(), "new 3", idempotency.Claim{Lease: time.Minute}); err != nil || m.Len() != 1 {
			t.Errorf("%d entries, %v; want the claims gone", m.Len(), err)
		}
	})
}

func TestNewMemoryChecksItsConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []idempotency.MemoryConfig{{MaxEntries: -1}, {MaxBytes: -1}} {
		if _, err := idempotency.NewMemory(cfg); err == nil || !strings.HasPrefix(err.Error(), "idempotency: configure memory: Max") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
