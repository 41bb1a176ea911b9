package resilience_test

import (
	"context"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

type costed struct {
	name   string
	policy resilience.Policy
	allocs float64 // of Do on the path named
}

func costs() []costed {
	breaker := func(w resilience.Window) *resilience.Breaker {
		return must(resilience.NewBreaker(resilience.BreakerConfig{Window: w}))
	}
	bulkhead := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 64}))
	retry := must(resilience.NewRetry(resilience.RetryConfig{}))
	tripped := breaker(resilience.Window{})
	tripped.Trip(time.Hour)
	return []costed{
		{"consecutive breaker", breaker(resilience.Consecutive()), 0},
		{"count breaker", breaker(resilience.Count(100)), 0},
		{"time breaker", breaker(resilience.Time(10*time.Second, 10)), 0},
		{"bulkhead", bulkhead, 0},
		{"retry", retry, 0},
		{"retry breaker bulkhead", resilience.Chain(retry, breaker(resilience.Consecutive()), bulkhead), 0},
		{"open breaker", tripped, 0},
		{"timeout", must(resilience.NewTimeout(time.Minute)), 4},
	}
}

func TestAllocations(t *testing.T) {
	ctx := context.Background()
	for _, c := range costs() {
		if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(ctx, c.policy, works) }); got > c.allocs {
			t.Errorf("Do through %s: %v allocations, want %v", c.name, got, c.allocs)
		}
	}
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive()}))
	one := func(context.Context) (int, error) { return 1, nil }
	if got := testing.AllocsPerRun(200, func() { _, _ = resilience.Call(ctx, b, one) }); got > 1 {
		t.Errorf("Call: %v allocations, want 1", got)
	}
}

func BenchmarkDo(b *testing.B) {
	ctx := context.Background()
	for _, c := range costs() {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = resilience.Do(ctx, c.policy, works)
			}
		})
	}
}
