package resilience_test

import (
	"context"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

type breakerCost struct {
	name    string
	breaker *resilience.Breaker
	fn      func(context.Context) error
}

// breakerCosts are the paths of a breaker that promise not to allocate.
func breakerCosts() []breakerCost {
	type config = resilience.BreakerConfig
	breaker := func(c config) *resilience.Breaker { return must(resilience.NewBreaker(c)) }
	silent := resilience.ObserverFunc(func(context.Context, resilience.Event) {})
	open := breaker(config{})
	open.Trip(24 * time.Hour)
	observed := breaker(config{Observer: silent})
	observed.Trip(24 * time.Hour)
	shadow := breaker(config{Mode: resilience.MetricsOnly})
	shadow.Trip(24 * time.Hour)
	half := breaker(config{Probes: 1, ProbeTimeout: 24 * time.Hour})
	half.Trip(1)
	for half.State() != resilience.HalfOpen {
		time.Sleep(time.Microsecond)
	}
	must(half.Allow(context.Background()))
	judge := func(context.Context, error) resilience.Outcome { return resilience.Failure }
	never := func(resilience.BreakerStats) bool { return false }
	return []breakerCost{
		{"consecutive", breaker(config{Window: resilience.Consecutive()}), works},
		{"consecutive failing", breaker(config{Window: resilience.Consecutive(), Failures: 1 << 40, Classify: judge}), fails},
		{"count", breaker(config{Window: resilience.Count(100)}), works},
		{"time", breaker(config{}), works},
		{"time observed", breaker(config{Observer: silent}), works},
		{"time slow calls", breaker(config{SlowCall: time.Hour}), works},
		{"time failing", breaker(config{Failures: 1 << 40, Classify: judge}), fails},
		{"own rule", breaker(config{ReadyToTrip: never}), works},
		{"open", open, works},
		{"half-open", half, works},
		{"open observed", observed, works},
		{"forced open", breaker(config{Mode: resilience.ForcedOpen}), works},
		{"forced closed", breaker(config{Mode: resilience.ForcedClosed}), works},
		{"metrics only open", shadow, works},
	}
}

func TestBreakerAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	for _, c := range breakerCosts() {
		if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(ctx, c.breaker, c.fn) }); got != 0 {
			t.Errorf("%s: %v allocations, want none", c.name, got)
		}
		if got := testing.AllocsPerRun(200, func() { _, _ = c.breaker.State(), c.breaker.Stats() }); got != 0 {
			t.Errorf("%s: State and Stats take %v allocations, want none", c.name, got)
		}
	}
}

func BenchmarkBreaker(b *testing.B) {
	ctx := context.Background()
	for _, c := range breakerCosts() {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = resilience.Do(ctx, c.breaker, c.fn)
			}
		})
	}
	for _, c := range breakerCosts() {
		b.Run(c.name+" parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_ = resilience.Do(ctx, c.breaker, c.fn)
				}
			})
		})
	}
	c := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive()}))
	b.Run("stats", func(b *testing.B) {
		for b.Loop() {
			_ = c.Stats()
		}
	})
}
