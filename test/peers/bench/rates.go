//go:build rates

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
	limiter := func(algorithm resilience.RateAlgorithm, o resilience.Observer) func() error {
		l := must(resilience.NewRateLimiter(resilience.RateConfig{
			Name: "bench", Rate: perSecond, Per: time.Second, Burst: burst, Algorithm: algorithm, Observer: o,
		}))
		return func() error { return allowed(l.Allow(ctx)) }
	}
	x := xrate.NewLimiter(perSecond, burst)
	bursty := fsrate.NewBursty[any](perSecond, time.Second)
	return []row{
		{group: group, name: reference, op: func() error { return allowed(x.Allow()) }},
		{group: group, name: "ours, GCRA", op: limiter(resilience.GCRA, nil), against: reference, bound: 0.45},
		{group: group, name: "ours, GCRA, observed", op: limiter(resilience.GCRA, quiet), against: reference},
		{group: group, name: "failsafe-go, bursty", op: func() error { return allowed(bursty.TryAcquirePermit()) }, against: reference},
	}
}
