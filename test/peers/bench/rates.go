package main

import (
	"context"
	"time"

	fsrate "github.com/failsafe-go/failsafe-go/ratelimiter"
	xrate "golang.org/x/time/rate"

	"github.com/armature-go/armature/resilience"
)

// rates is asking a limiter for one permit, which is granted.
func rates(ctx context.Context) []row {
	const (
		group, reference = "rate limit, permit granted", "x/time/rate"
		perSecond        = 100_000_000 // more than any candidate can ask for
		burst            = perSecond
	)
	allowed := func(ok bool) error {
		if !ok {
			return errFull
		}
		return nil
	}
	limiter := func(o resilience.Observer) *resilience.RateLimiter {
		return must(resilience.NewRateLimiter(resilience.RateConfig{Name: "bench", Rate: perSecond, Burst: burst, Observer: o}))
	}
	allow := func(l *resilience.RateLimiter) func() error { return func() error { return allowed(l.Allow(ctx)) } }
	seen := limiter(quiet)
	x := xrate.NewLimiter(perSecond, burst)
	bursty := fsrate.NewBursty[any](perSecond, time.Second)
	return []row{
		{group: group, name: reference, op: func() error { return allowed(x.Allow()) }},
		{group: group, name: "ours, GCRA", op: allow(limiter(nil)), against: reference, bound: 0.45},
		{group: group, name: "ours, GCRA, metrics and events", op: scraped(allow(seen), seen), against: reference},
		{group: group, name: "failsafe-go, bursty", op: func() error { return allowed(bursty.TryAcquirePermit()) }, against: reference},
	}
}
