// Package resilience protects calls: a policy wraps an operation and decides
// whether, when and how often it runs.
//
//	timeout, _ := resilience.NewTimeout(2 * time.Second)
//	retry, _ := resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 3})
//	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"})
//	policy := resilience.Chain(timeout, retry, breaker)
//	order, err := resilience.Call(ctx, policy, client.GetOrder)
//
// # Order
//
// [Chain] reads from the outside in. The usual order is total timeout, retry,
// breaker, bulkhead, attempt timeout: the total timeout bounds everything
// including the waiting between attempts, the breaker sees every single attempt,
// and a call that waits for a place in the bulkhead is not yet on the attempt's
// clock. [Policy.Describe] of a chain reports orders that cannot work.
//
// # Failures
//
// Policies run the operation on the caller's goroutine and never abandon it: a
// timeout ends the context and waits for the operation to notice. A panic or
// [runtime.Goexit] in the operation passes through every policy, each of which
// counts it as a failure and gives back what it held.
//
// Rejections say that the callee never saw the call: [OpenError] and [FullError]
// answer NotExecuted() true. Every error of this package answers Retryable() and
// RetryAfter(); policies read the same three methods from errors of others, found
// with [errors.As], and import none of their packages.
//
// A caller that cancels its own context says nothing about the callee: the
// outcome is neutral. A deadline that passes is a failure.
package resilience
