package resiliencetest

import (
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

// WantState fails the test unless b is in state. Looking changes nothing.
func WantState(tb testing.TB, b *resilience.Breaker, state resilience.State) {
	tb.Helper()
	if got := b.State(); got != state {
		tb.Errorf("breaker %q is %v, want %v", b.Name(), got, state)
	}
}

// Trip opens b until the test ends, to see what its callers do then. In a forced
// mode, where a breaker cannot open, the test fails.
func Trip(tb testing.TB, b *resilience.Breaker) {
	tb.Helper()
	b.Trip(100 * 365 * 24 * time.Hour)
	tb.Cleanup(b.Reset)
	WantState(tb, b, resilience.Open)
}

// HalfOpen brings b into the state in which the next calls are probes.
// It takes a moment of time, so call it inside a synctest bubble if time counts.
func HalfOpen(tb testing.TB, b *resilience.Breaker) {
	tb.Helper()
	b.Trip(time.Nanosecond)
	time.Sleep(time.Microsecond)
	WantState(tb, b, resilience.HalfOpen)
}
