// Package otelresilience writes what policies do into the trace of the call that
// caused it: retries, rejections, timeouts and changes of state appear as events of
// the span around the call.
//
//	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
//		Name:     "payment",
//		Observer: otelresilience.SpanEvents(),
//	})
//
// It makes no spans: each attempt is a span of the client that makes it. Metrics
// are the business of a pull collector such as package promresilience.
package otelresilience
