package promresilience

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is one family of series.
type metric struct {
	name   string
	help   string
	value  prometheus.ValueType
	merge  func(a, b float64) float64 // of policies that share a series
	labels []string                   // beside name
	desc   *prometheus.Desc
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func sum(a, b float64) float64 { return a + b }

func newMetric(value prometheus.ValueType, merge func(a, b float64) float64, name, help string, labels ...string) *metric {
	name = "armature_resilience_" + name
	return &metric{
		name: name, help: help, value: value, merge: merge, labels: labels,
		desc: prometheus.NewDesc(name, help, append([]string{"name"}, labels...), nil),
	}
}

var (
	rejections = newMetric(counter, sum, "rejections_total",
		"Calls that a policy turned away before they ran.", "policy")

	breakerState = newMetric(gauge, sum, "breaker_state",
		"1 for the state that a breaker is in and 0 for the others.", "state")
	breakerMode = newMetric(gauge, sum, "breaker_mode",
		"1 for the mode that a breaker is in and 0 for the others.", "mode")
	breakerCalls = newMetric(counter, sum, "breaker_calls_total",
		"Calls that ran through a breaker and ended, by outcome.", "outcome")
	breakerSlow = newMetric(counter, sum, "breaker_slow_calls_total",
		"Calls that took longer than a breaker allows.")
	breakerOpened = newMetric(counter, sum, "breaker_opened_total",
		"Times that a breaker opened.")
	breakerShadow = newMetric(counter, sum, "breaker_shadow_rejections_total",
		"Calls that a breaker in mode metrics-only would have turned away.")

	retryCalls = newMetric(counter, sum, "retry_calls_total",
		"Calls that ran under a retry.")
	retryAttempts = newMetric(counter, sum, "retry_retries_total",
		"Attempts beyond the first of each call.")
	retryRecovered = newMetric(counter, sum, "retry_recovered_total",
		"Calls that succeeded after a retry.")
	retryFailed = newMetric(counter, sum, "retry_failed_total",
		"Calls that failed under a retry, by the reason to make no further attempt.", "reason")

	budgetLeft = newMetric(gauge, sum, "budget_left_attempts",
		"Extra attempts that a budget would grant now.")
	budgetTaken = newMetric(counter, sum, "budget_granted_total",
		"Extra attempts that a budget granted.")
	budgetRefused = newMetric(counter, sum, "budget_refused_total",
		"Extra attempts that a budget refused.")

	hedgeCalls = newMetric(counter, sum, "hedge_calls_total",
		"Calls that ran under a hedge.")
	hedgeAttempts = newMetric(counter, sum, "hedge_hedges_total",
		"Attempts started beside the first of each call.")
	hedgeWon = newMetric(counter, sum, "hedge_won_total",
		"Calls that an attempt beside the first one answered.")
	hedgeFailed = newMetric(counter, sum, "hedge_failed_total",
		"Calls that no attempt answered.")
	hedgeDelay = newMetric(gauge, math.Max, "hedge_delay_seconds",
		"Time after which the next attempt is started.")

	bulkheadMax = newMetric(gauge, sum, "bulkhead_max_calls",
		"Calls that may run at once.")
	bulkheadRunning = newMetric(gauge, sum, "bulkhead_running_calls",
		"Calls that run now.")
	bulkheadWaiting = newMetric(gauge, sum, "bulkhead_waiting_calls",
		"Calls that wait for a place now.")
	bulkheadQueued = newMetric(counter, sum, "bulkhead_queued_total",
		"Calls that had to wait for a place.")
	bulkheadWait = newMetric(counter, sum, "bulkhead_wait_seconds_total",
		"Time that calls spent waiting for a place.")

	adaptiveLimit = newMetric(gauge, sum, "adaptive_limit_calls",
		"Calls that may run at once, as measured.")
	adaptiveRunning = newMetric(gauge, sum, "adaptive_running_calls",
		"Calls that run now.")
	adaptiveWaiting = newMetric(gauge, sum, "adaptive_waiting_calls",
		"Calls that wait for a place now.")
	adaptiveRTT = newMetric(gauge, math.Max, "adaptive_rtt_seconds",
		"Average time of the calls measured last.")
	adaptiveMinRTT = newMetric(gauge, math.Max, "adaptive_min_rtt_seconds",
		"Time of a call that the latest measurement is compared with.")

	throttleRatio = newMetric(gauge, math.Max, "throttle_rejection_ratio",
		"Probability with which a throttle rejects the next call.")
	throttleRequests = newMetric(gauge, sum, "throttle_window_requests",
		"Calls sent within a throttle's window.")
	throttleAccepts = newMetric(gauge, sum, "throttle_window_accepts",
		"Calls accepted by the callee within a throttle's window.")

	timeoutFired = newMetric(counter, sum, "timeout_fired_total",
		"Calls that failed because a timeout was over.")

	rateAllowed = newMetric(counter, sum, "rate_limiter_allowed_total",
		"Requests for permits granted.")
	rateWaited = newMetric(counter, sum, "rate_limiter_waited_total",
		"Requests for permits that waited.")
	rateWait = newMetric(counter, sum, "rate_limiter_wait_seconds_total",
		"Time that requests for permits spent waiting.")
	rateKeys = newMetric(gauge, sum, "rate_limiter_keys",
		"Keys that a limiter remembers.")
	rateEvicted = newMetric(counter, sum, "rate_limiter_evicted_keys_total",
		"Keys forgotten for want of room before their bucket was full again.")
	rateStoreErrors = newMetric(counter, sum, "rate_limiter_store_errors_total",
		"Requests that a shared limiter's store failed to decide.")

	keyedPolicies = newMetric(gauge, sum, "keyed_policies",
		"Policies that a keyed policy holds, one per key.")
	keyedEvicted = newMetric(counter, sum, "keyed_evicted_total",
		"Policies that a keyed policy dropped for room or idleness.")

	fallbackCalls = newMetric(counter, sum, "fallback_calls_total",
		"Failed calls that went to a fallback, by what came of it.", "result")

	chaosInjected = newMetric(counter, sum, "chaos_injected_total",
		"Faults injected on purpose.", "fault")

	cacheRequests = newMetric(counter, sum, "cache_requests_total",
		"Look-ups: hit, stale while revalidated, rescued by a stale value as loading failed, or miss.", "result")
	cacheLoads = newMetric(counter, sum, "cache_loads_total",
		"Loads begun by a cache.")
	cacheFailures = newMetric(counter, sum, "cache_load_failures_total",
		"Loads that failed.")
	cacheEvictions = newMetric(counter, sum, "cache_evictions_total",
		"Keys that a cache forgot for want of room.")
	cacheEntries = newMetric(gauge, sum, "cache_entries",
		"Keys that a cache holds now.")
)

// all is what Describe announces, whether or not a policy uses it, so that a
// registry can tell at once that two collectors collide.
var all = []*metric{
	rejections,
	breakerState, breakerMode, breakerCalls, breakerSlow, breakerOpened, breakerShadow,
	retryCalls, retryAttempts, retryRecovered, retryFailed,
	budgetLeft, budgetTaken, budgetRefused,
	hedgeCalls, hedgeAttempts, hedgeWon, hedgeFailed, hedgeDelay,
	bulkheadMax, bulkheadRunning, bulkheadWaiting, bulkheadQueued, bulkheadWait,
	adaptiveLimit, adaptiveRunning, adaptiveWaiting, adaptiveRTT, adaptiveMinRTT,
	throttleRatio, throttleRequests, throttleAccepts,
	timeoutFired,
	rateAllowed, rateWaited, rateWait, rateKeys, rateEvicted, rateStoreErrors,
	keyedPolicies, keyedEvicted,
	fallbackCalls, chaosInjected,
	cacheRequests, cacheLoads, cacheFailures, cacheEvictions, cacheEntries,
}
