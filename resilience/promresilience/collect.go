package promresilience

import "github.com/armature-go/armature/resilience"

// add takes one value with the label of its metric, if it has one.
type add func(m *metric, v float64, labels ...string)

// collect reads p and reports whether p is of a kind that has metrics.
func collect(p resilience.Policy, add add) bool {
	switch p := p.(type) {
	case *resilience.Breaker:
		collectBreaker(p.Stats(), add)
	case *resilience.Retry:
		collectRetry(p.Stats(), add)
	case *resilience.Hedge:
		s := p.Stats()
		add(hedgeCalls, float64(s.Calls))
		add(hedgeAttempts, float64(s.Hedges))
		add(hedgeWon, float64(s.Won))
		add(hedgeFailed, float64(s.Failed))
		add(hedgeDelay, s.Delay.Seconds())
	case *resilience.Bulkhead:
		s := p.Stats()
		add(bulkheadMax, float64(s.Max))
		add(bulkheadRunning, float64(s.Running))
		add(bulkheadWaiting, float64(s.Waiting))
		add(bulkheadQueued, float64(s.Queued))
		add(bulkheadWait, s.WaitTime.Seconds())
		add(rejections, float64(s.Rejected), "bulkhead")
	case *resilience.Adaptive:
		s := p.Stats()
		add(adaptiveLimit, float64(s.Limit))
		add(adaptiveRunning, float64(s.Running))
		add(adaptiveWaiting, float64(s.Waiting))
		add(adaptiveRTT, s.RTT.Seconds())
		add(adaptiveMinRTT, s.MinRTT.Seconds())
		add(rejections, float64(s.Rejected), "adaptive")
	case *resilience.Throttle:
		s := p.Stats()
		add(throttleRatio, s.Probability)
		add(throttleRequests, float64(s.Requests))
		add(throttleAccepts, float64(s.Accepts))
		add(rejections, float64(s.Rejected), "throttle")
	case *resilience.Fallback:
		s := p.Stats()
		add(fallbackCalls, float64(s.Answered), "answered")
		add(fallbackCalls, float64(s.Failed), "failed")
	case *resilience.Chaos:
		s := p.Stats()
		add(chaosInjected, float64(s.Delayed), "delay")
		add(chaosInjected, float64(s.Failed), "error")
		add(chaosInjected, float64(s.Panicked), "panic")
	case *resilience.Timeout:
		s := p.Stats()
		add(timeoutFired, float64(s.Fired))
	case *resilience.RateLimiter:
		s := p.Stats()
		add(rateAllowed, float64(s.Allowed))
		add(rateWaited, float64(s.Waited))
		add(rateWait, s.WaitTime.Seconds())
		add(rateKeys, float64(s.Keys))
		add(rateEvicted, float64(s.Evicted))
		add(rateStoreErrors, float64(s.StoreErrors))
		add(rejections, float64(s.Rejected), "rate-limiter")
	case interface{ Stats() resilience.KeyedStats }: // a KeyedPolicy of any key
		s := p.Stats()
		add(keyedPolicies, float64(s.Keys))
		add(keyedEvicted, float64(s.Evicted))
	default:
		return false
	}
	return true
}

func collectBreaker(s resilience.BreakerStats, add add) {
	is := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	for state := range resilience.HalfOpen + 1 {
		add(breakerState, is(s.State == state), state.String())
	}
	for mode := range resilience.MetricsOnly + 1 {
		add(breakerMode, is(s.Mode == mode), mode.String())
	}
	add(breakerCalls, float64(s.Succeeded), resilience.Success.String())
	add(breakerCalls, float64(s.Failed), resilience.Failure.String())
	add(breakerCalls, float64(s.Neutral), resilience.Neutral.String())
	add(breakerSlow, float64(s.SlowTotal))
	add(breakerOpened, float64(s.Opened))
	add(breakerShadow, float64(s.ShadowRejected))
	add(rejections, float64(s.Rejected), "breaker")
}

func collectRetry(s resilience.RetryStats, add add) {
	add(retryCalls, float64(s.Calls))
	add(retryAttempts, float64(s.Retries))
	add(retryRecovered, float64(s.Recovered))
	for reason, n := range map[string]uint64{
		"attempts":      s.Exhausted,
		"backoff":       s.Backoff,
		"budget":        s.Budget,
		"context":       s.Context,
		"deadline":      s.Deadline,
		"elapsed":       s.Elapsed,
		"not-retryable": s.NotRetryable,
		"retry-after":   s.RetryAfter,
	} {
		add(retryFailed, float64(n), reason)
	}
}

func collectBudget(s resilience.BudgetStats, add add) {
	add(budgetLeft, s.Left)
	add(budgetTaken, float64(s.Taken))
	add(budgetRefused, float64(s.Refused))
}

func collectCache(s resilience.CachedStats, add add) {
	add(cacheRequests, float64(s.Hits), "hit")
	add(cacheRequests, float64(s.Stale), "stale")
	add(cacheRequests, float64(s.Rescued), "rescued")
	add(cacheRequests, float64(s.Misses-min(s.Misses, s.Rescued)), "miss")
	add(cacheLoads, float64(s.Loads))
	add(cacheFailures, float64(s.Failed))
	add(cacheEvictions, float64(s.Evictions))
	add(cacheEntries, float64(s.Size))
}
