package resilience_test

import (
	"context"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

func queueCosts() []costed {
	handle := func(context.Context, error) error { return nil }
	return []costed{
		{"bulkhead", must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 64, Queue: 64, MaxWait: time.Second})), 0},
		{"spaced bulkhead", must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 64, Queue: 64, MinSpacing: 1})), 0},
		{"adaptive", must(resilience.NewAdaptive(resilience.AdaptiveConfig{})), 0},
		{"throttle", must(resilience.NewThrottle(resilience.ThrottleConfig{})), 0},
		{"fallback", must(resilience.NewFallback(resilience.FallbackConfig{Handle: handle})), 0},
		{"chaos that spares", must(resilience.NewChaos(resilience.ChaosConfig{
			Rate: 1e-300, Latency: time.Second, Err: errDown, Panic: "boom",
		})), 0},
	}
}

func TestQueueAllocations(t *testing.T) {
	ctx := context.Background()
	for _, c := range queueCosts() {
		if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(ctx, c.policy, works) }); got > c.allocs {
			t.Errorf("Do through %s: %v allocations, want %v", c.name, got, c.allocs)
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	ctx := context.Background()
	for _, c := range queueCosts() {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = resilience.Do(ctx, c.policy, works)
			}
		})
		b.Run(c.name+" in parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_ = resilience.Do(ctx, c.policy, works)
				}
			})
		})
	}
	b.Run("channel semaphore", func(b *testing.B) { // what the bulkhead is measured against
		semaphore := make(chan struct{}, 64)
		for b.Loop() {
			semaphore <- struct{}{}
			_ = works(ctx)
			<-semaphore
		}
	})
	full := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1}))
	_ = resilience.Do(ctx, full, func(ctx context.Context) error {
		b.Run("full bulkhead", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = resilience.Do(ctx, full, works)
			}
		})
		return nil
	})
}

func BenchmarkCachedHit(b *testing.B) {
	ctx := context.Background()
	c := must(resilience.NewCached(func(context.Context, string) (int, error) { return 1, nil },
		resilience.CachedConfig{TTL: time.Hour}))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Get(ctx, "a")
	}
}

func BenchmarkSingleFlight(b *testing.B) {
	ctx := context.Background()
	s := must(resilience.NewSingleFlight(func(context.Context, string) (int, error) { return 1, nil }))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Do(ctx, "a")
	}
}
