package resilience_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/armature-go/armature/resilience"
)

func BenchmarkRateLimiter(b *testing.B) {
	ctx := context.Background()
	open := resilience.RateConfig{Rate: 1e9, Burst: 1e9}
	limiter := must(resilience.NewRateLimiter(open))
	keyed := open
	keyed.Key = func(context.Context) string { return "key" }
	perKey := must(resilience.NewRateLimiter(keyed))
	empty := must(resilience.NewRateLimiter(resilience.RateConfig{Rate: 1, Per: time.Hour}))
	empty.Allow(ctx)
	window := must(resilience.NewRateLimiter(resilience.RateConfig{Rate: 1e9, Algorithm: resilience.FixedWindow}))
	peer := rate.NewLimiter(1e9, 1e9)
	perTenant := must(resilience.Keyed(func(context.Context) string { return "key" },
		func(string) (resilience.Policy, error) { return resilience.Chain(nil), nil }, resilience.KeyedConfig{}))
	for _, c := range []struct {
		name string
		call func()
	}{
		{"x-time Allow", func() { peer.Allow() }},
		{"Allow", func() { limiter.Allow(ctx) }},
		{"Allow fixed window", func() { window.Allow(ctx) }},
		{"Allow rejected", func() { empty.Allow(ctx) }},
		{"Allow keyed", func() { perKey.Allow(ctx) }},
		{"Wait", func() { _ = limiter.Wait(ctx) }},
		{"Do", func() { _ = resilience.Do(ctx, limiter, works) }},
		{"Do keyed policy", func() { _ = resilience.Do(ctx, perTenant, works) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.call()
			}
		})
		b.Run(c.name+" parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.call()
				}
			})
		})
	}
}
