package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	avast "github.com/avast/retry-go/v4"
	backoff4 "github.com/cenkalti/backoff/v4"
	backoff5 "github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	fsbulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	fsbreaker "github.com/failsafe-go/failsafe-go/circuitbreaker"
	fsretry "github.com/failsafe-go/failsafe-go/retrypolicy"
	fstimeout "github.com/failsafe-go/failsafe-go/timeout"
	"github.com/prometheus/client_golang/prometheus"
	sethvargo "github.com/sethvargo/go-retry"
	gobreaker1 "github.com/sony/gobreaker"
	gobreaker2 "github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/promresilience"
)

// Every candidate gets the same operation and the same context, which can be
// cancelled, as that of a request can. Peers are used as their documentation shows,
// set up once where they may be, and set up to do what ours does: none is left
// without the work that ours does, nor burdened with work that ours leaves out.

// operation is what is protected.
type operation func(context.Context) error

//go:noinline
func callee(context.Context) error { return nil }

// waiting makes an operation one that looks at ctx.Done(), as clients of networks
// and databases do.
func waiting(fn operation) operation {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		default:
			return fn(ctx)
		}
	}
}

var (
	errFull  = errors.New("bench: full")
	anyError = errors.New("bench: any error")
)

const (
	long     = time.Minute // a timeout that never fires
	window   = 10 * time.Second
	buckets  = 10
	places   = 64
	failures = 5
	attempts = 3
)

func candidates(fn operation) []row {
	ctx, cancel := context.WithCancel(context.Background())
	_ = cancel // the process ends before
	var rows []row
	for _, group := range [][]row{
		floor(ctx, fn),
		compositions(ctx, "composition, callee does not wait on Done", 0.125, 2, fn),
		compositions(ctx, "composition, callee waits on Done", 0.45, anyNumber, waiting(fn)),
		breakers(ctx, fn),
		rejections(ctx, fn),
		retries(ctx, fn),
		bulkheads(ctx, fn),
		rates(ctx),
	} {
		rows = append(rows, group...)
	}
	return rows
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// quiet is an observer that listens and does nothing.
var quiet = resilience.ObserverFunc(func(context.Context, resilience.Event) {})

// through returns the operation under policy.
func through(ctx context.Context, policy resilience.Policy, fn operation) func() error {
	return func() error { return resilience.Do(ctx, policy, fn) }
}

// scraped attaches a collector of the policies to op and scrapes it every 65536
// operations: some milliseconds, where Prometheus would come every 15 seconds.
func scraped(op func() error, policies ...resilience.Policy) func() error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(must(promresilience.New(policies...)))
	var operations atomic.Uint64
	return func() error {
		if operations.Add(1)%(1<<16) == 0 {
			if _, err := registry.Gather(); err != nil {
				return err
			}
		}
		return op()
	}
}

func floor(ctx context.Context, fn operation) []row {
	return []row{{group: "floor", name: "the call itself", op: func() error { return fn(ctx) }}}
}

// compositions is timeout, retry, breaker and bulkhead around a call.
func compositions(ctx context.Context, group string, bound, allocs float64, fn operation) []row {
	const reference = "failsafe-go"
	ours := func(o resilience.Observer) resilience.Policy {
		return resilience.Chain(
			must(resilience.NewTimeout(long)).With("bench", o),
			must(resilience.NewRetry(resilience.RetryConfig{Name: "bench", MaxAttempts: attempts, Observer: o})),
			must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Window: resilience.Time(window, buckets), Observer: o})),
			must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "bench", Max: places, Observer: o})),
		)
	}
	executor := failsafe.With[any](
		fstimeout.New[any](long),
		fsretry.NewBuilder[any]().WithMaxAttempts(attempts).WithBackoff(100*time.Millisecond, 10*time.Second).Build(),
		fsbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, window).WithDelay(5*time.Second).WithSuccessThreshold(3).Build(),
		fsbulkhead.New[any](places),
	)
	sameForAll := executor.WithContext(ctx)
	withExecution := func(e failsafe.Execution[any]) error { return fn(e.Context()) }

	seen := ours(quiet)

	nestedBreaker := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{Interval: window, MaxRequests: 3, ReadyToTrip: halfOf20})
	nestedPlaces := semaphore.NewWeighted(places)
	return []row{
		// A call has a context of its own: that of the request it is part of.
		{group: group, name: reference, op: func() error { return executor.WithContext(ctx).RunWithExecution(withExecution) }},
		{group: group, name: "ours", op: through(ctx, ours(nil), fn), against: reference, bound: bound, allocs: allocs},
		{group: group, name: "ours, metrics and events", op: scraped(through(ctx, seen, fn), seen), against: reference},
		{group: group, name: "failsafe-go, one context for all calls", op: func() error { return sameForAll.RunWithExecution(withExecution) }, against: reference},
		{group: group, name: "nested by hand: WithTimeout, backoff v4, gobreaker v1, x/sync", against: reference, op: func() error {
			ctx, cancel := context.WithTimeout(ctx, long)
			defer cancel()
			return backoff4.Retry(func() error {
				_, err := nestedBreaker.Execute(func() (any, error) {
					if err := nestedPlaces.Acquire(ctx, 1); err != nil {
						return nil, err
					}
					defer nestedPlaces.Release(1)
					return nil, fn(ctx)
				})
				return err
			}, backoff4.WithContext(backoff4.WithMaxRetries(backoff4.NewExponentialBackOff(), attempts-1), ctx))
		}},
	}
}

func halfOf20(c gobreaker1.Counts) bool { return c.Requests >= 20 && c.TotalFailures*2 >= c.Requests }

// breakers is a breaker that stays closed.
func breakers(ctx context.Context, fn operation) []row {
	const group, reference = "breaker, closed", "gobreaker v1"
	breaker := func(w resilience.Window) func() error {
		return through(ctx, must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Window: w})), fn)
	}
	watched := func(w resilience.Window) func() error {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Window: w, Observer: quiet}))
		return scraped(through(ctx, b, fn), b)
	}
	time10 := resilience.Time(window, buckets)
	shared := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Window: time10}))
	slow := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Window: time10, SlowCall: time.Second}))
	typed := func(ctx context.Context) (int, error) { return 0, fn(ctx) }

	v1 := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{Interval: window, ReadyToTrip: halfOf20})
	v2 := gobreaker2.NewCircuitBreaker[struct{}](gobreaker2.Settings{Interval: window, ReadyToTrip: halfOf20v2})
	v2buckets := gobreaker2.NewCircuitBreaker[struct{}](gobreaker2.Settings{
		Interval: window, BucketPeriod: window / buckets, ReadyToTrip: halfOf20v2,
	})
	executor := failsafe.With[any](fsbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, window).Build())
	execute2 := func(cb *gobreaker2.CircuitBreaker[struct{}]) func() error {
		return func() error {
			_, err := cb.Execute(func() (struct{}, error) { return struct{}{}, fn(ctx) })
			return err
		}
	}
	return []row{
		{group: group, name: reference, op: func() error {
			_, err := v1.Execute(func() (any, error) { return nil, fn(ctx) })
			return err
		}},
		{group: group, name: "ours, time window", op: breaker(time10), against: reference, bound: 0.65},
		{group: group, name: "ours, count window", op: breaker(resilience.Count(100)), against: reference, bound: 0.25},
		{group: group, name: "ours, consecutive", op: breaker(resilience.Consecutive()), against: reference, bound: 0.25},
		{group: group, name: "ours, time window, metrics and events", op: watched(time10), against: reference},
		{group: group, name: "ours, consecutive, metrics and events", op: watched(resilience.Consecutive()), against: reference},
		{group: group, name: "ours, time window, slow calls measured", op: through(ctx, slow, fn), against: reference},
		{group: group, name: "ours, time window, closure made per call", against: reference, op: func() error {
			return resilience.Do(ctx, shared, func(ctx context.Context) error { return fn(ctx) })
		}},
		{group: group, name: "ours, time window, typed Call", against: reference, op: func() error {
			_, err := resilience.Call(ctx, shared, typed)
			return err
		}},
		{group: group, name: "gobreaker v2", op: execute2(v2), against: reference},
		{group: group, name: "gobreaker v2, buckets", op: execute2(v2buckets), against: reference},
		{group: group, name: "failsafe-go", op: func() error { return executor.WithContext(ctx).Run(func() error { return fn(ctx) }) }, against: reference},
	}
}

func halfOf20v2(c gobreaker2.Counts) bool { return c.Requests >= 20 && c.TotalFailures*2 >= c.Requests }

// rejections is a call that an open breaker turns away.
func rejections(ctx context.Context, fn operation) []row {
	const group, reference = "breaker, open", "gobreaker v1"
	down := errors.New("down")

	v1 := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{Timeout: time.Hour})
	v2 := gobreaker2.NewCircuitBreaker[struct{}](gobreaker2.Settings{Timeout: time.Hour})
	for range failures + 1 {
		_, _ = v1.Execute(func() (any, error) { return nil, down })
		_, _ = v2.Execute(func() (struct{}, error) { return struct{}{}, down })
	}
	open := fsbreaker.NewBuilder[any]().WithDelay(time.Hour).Build()
	open.Open()
	executor := failsafe.With[any](open)
	ours := func(o resilience.Observer) *resilience.Breaker {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "bench", Observer: o}))
		b.Trip(time.Hour)
		return b
	}
	seen := ours(quiet)
	return []row{
		{group: group, name: reference, want: gobreaker1.ErrOpenState, op: func() error {
			_, err := v1.Execute(func() (any, error) { return nil, fn(ctx) })
			return err
		}},
		{group: group, name: "ours", want: anyError, op: through(ctx, ours(nil), fn), against: reference, bound: 1.1},
		{group: group, name: "ours, metrics and events", want: anyError, op: scraped(through(ctx, seen, fn), seen), against: reference},
		{group: group, name: "gobreaker v2", want: gobreaker2.ErrOpenState, against: reference, op: func() error {
			_, err := v2.Execute(func() (struct{}, error) { return struct{}{}, fn(ctx) })
			return err
		}},
		{group: group, name: "failsafe-go", want: anyError, op: func() error { return executor.WithContext(ctx).Run(func() error { return fn(ctx) }) }, against: reference},
	}
}

// retries is a call that succeeds at once.
func retries(ctx context.Context, fn operation) []row {
	const group, reference = "retry, no failure", "backoff v4"
	ours := func(o resilience.Observer) *resilience.Retry {
		return must(resilience.NewRetry(resilience.RetryConfig{Name: "bench", MaxAttempts: attempts, Observer: o}))
	}
	seen := ours(quiet)
	executor := failsafe.With[any](fsretry.NewBuilder[any]().WithBackoff(100*time.Millisecond, 10*time.Second).Build())
	return []row{
		// A BackOff must not be shared by calls that run at the same time, so each
		// call makes its own.
		{group: group, name: reference, op: func() error {
			return backoff4.Retry(func() error { return fn(ctx) }, backoff4.NewExponentialBackOff())
		}},
		{group: group, name: "ours", op: through(ctx, ours(nil), fn), against: reference, bound: 0.15},
		{group: group, name: "ours, metrics and events", op: scraped(through(ctx, seen, fn), seen), against: reference},
		{group: group, name: "backoff v4, context and attempts bound as ours", against: reference, op: func() error {
			return backoff4.Retry(func() error { return fn(ctx) },
				backoff4.WithContext(backoff4.WithMaxRetries(backoff4.NewExponentialBackOff(), attempts-1), ctx))
		}},
		{group: group, name: "backoff v5", against: reference, op: func() error {
			_, err := backoff5.Retry(ctx, func() (struct{}, error) { return struct{}{}, fn(ctx) }, backoff5.WithMaxTries(attempts))
			return err
		}},
		{group: group, name: "failsafe-go", op: func() error { return executor.WithContext(ctx).Run(func() error { return fn(ctx) }) }, against: reference},
		{group: group, name: "avast/retry-go", against: reference, op: func() error {
			return avast.Do(func() error { return fn(ctx) }, avast.Context(ctx), avast.Attempts(attempts))
		}},
		{group: group, name: "sethvargo/go-retry", against: reference, op: func() error {
			return sethvargo.Do(ctx, sethvargo.WithMaxRetries(attempts-1, sethvargo.NewExponential(100*time.Millisecond)), sethvargo.RetryFunc(fn))
		}},
	}
}

// bulkheads is a call that finds a free place.
func bulkheads(ctx context.Context, fn operation) []row {
	const group, reference = "bulkhead, place free", "channel as a semaphore"
	bulkhead := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "bench", Max: places}))
	seen := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "bench", Max: places, Observer: quiet}))
	channel := make(chan struct{}, places)
	weighted := semaphore.NewWeighted(places)
	executor := failsafe.With[any](fsbulkhead.New[any](places))
	return []row{
		// A panic must not take the place with it; ours does not lose it either.
		{group: group, name: reference, op: func() error {
			select {
			case channel <- struct{}{}:
			default:
				return errFull
			}
			defer func() { <-channel }()
			return fn(ctx)
		}},
		{group: group, name: "ours", op: through(ctx, bulkhead, fn), against: reference, bound: 1.5},
		{group: group, name: "ours, metrics and events", op: scraped(through(ctx, seen, fn), seen), against: reference},
		{group: group, name: "x/sync/semaphore", against: reference, op: func() error {
			if !weighted.TryAcquire(1) {
				return errFull
			}
			defer weighted.Release(1)
			return fn(ctx)
		}},
		{group: group, name: "failsafe-go", op: func() error { return executor.WithContext(ctx).Run(func() error { return fn(ctx) }) }, against: reference},
	}
}
