// Package resilience protects calls: a policy wraps an operation and decides
// whether, when and how often it runs.
//
//	timeout, _ := resilience.NewTimeout(2 * time.Second)
//	retry, _ := resilience.NewRetry(resilience.RetryConfig{Name: "payment"})
//	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"})
//	policy := resilience.Chain(timeout, retry, breaker)
//	order, err := resilience.Call(ctx, policy, client.GetOrder)
//
// Make policies once and share them between the calls to one dependency: they are
// safe for concurrent use and know no result types, so one breaker protects calls
// of any type.
//
// # Policies
//
//   - [Timeout] ends the context of a call, in total or of one attempt.
//   - [Retry] runs it again; [Budget] keeps the extra attempts of many policies to a
//     share of the calls.
//   - [Hedge] starts another attempt beside a slow one.
//   - [Breaker] stops calling what keeps failing or is slow.
//   - [Throttle] rejects a part of the calls, as large as the callee's trouble.
//   - [Bulkhead] bounds the calls at the same time and queues the others; [Adaptive]
//     finds the bound by measuring.
//   - [RateLimiter] bounds the calls in time, over several processes if need be.
//   - [Fallback] does something else when a call fails; [OrElse] does so with a
//     typed answer.
//   - [Chaos] injects faults, to see what the others make of them.
//   - [Keyed] makes any of them one per host, tenant or other key.
//   - [Cached] and [SingleFlight] are no policies, since they keep results: they
//     decorate functions.
//
// # Order
//
// [Chain] reads from the outside in:
//
//	total timeout > fallback > rate limiter > retry > hedge > breaker > bulkhead > attempt timeout > chaos
//
// The total timeout bounds everything inside it, the pauses between attempts too. A
// rate limiter outside the retry counts calls; inside, attempts. The breaker
// stands inside the retry, so that it sees every attempt and opens early, and
// outside the bulkhead, so that nobody queues for a callee known to be down. A call
// that waits for a place in the bulkhead is not yet on the attempt's clock, and an
// attempt must end early enough to leave time for another one. Policy.Describe of a
// chain reports orders that cannot work.
//
// # Failures
//
// Policies run the operation on the caller's goroutine and never abandon it: a
// timeout ends the context and waits for the operation to notice. Only a [Hedge]
// runs attempts on goroutines of their own and leaves the losers to end by
// themselves. A panic or [runtime.Goexit] in the operation passes through every
// policy, each of which counts it as a failure and gives back what it held.
//
// A caller that cancels its own context says nothing about the callee: the outcome
// is neutral. A deadline that passes is a failure. [Classify] says what else is.
//
// # Errors
//
// What turns a call away before it ran matches [ErrRejected], and one of [ErrOpen],
// [ErrFull], [ErrRateLimited] and [ErrThrottled]: the callee never saw the call.
// Errors speak by methods: Retryable() bool, RetryAfter() (time.Duration, bool) and
// NotExecuted() bool. Those of this package have the ones that apply; policies look
// for them in the errors of others with [errors.As] and import none of their
// packages.
//
// # HTTP and go-kit
//
// [RoundTripper] puts policies around a net/http client, [Handler] and
// [LimitHandler] around a server, [Middleware] around a go-kit endpoint. For gRPC
// see package transport/grpcx, and for what has a beginning and an end of its own,
// such as a stream, [Breaker.Allow].
//
// # Watching and testing
//
// Every policy has Stats, which package promresilience shows to Prometheus and
// nothing pays for in between. An [Observer] is told what happens: [LogEvents] logs
// it, package otelresilience adds it to traces. Package resiliencetest plays callees
// that fail, and all waits use the time package alone, so that [testing/synctest]
// makes hours pass at once. A policy needs no goroutine and no Close; timers exist
// only while somebody waits.
package resilience
