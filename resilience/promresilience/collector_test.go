package promresilience_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/promresilience"
	"github.com/armature-go/armature/resilience/resiliencetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("payment: down")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func breaker(name string) *resilience.Breaker {
	return must(resilience.NewBreaker(resilience.BreakerConfig{
		Name: name, Window: resilience.Consecutive(), Failures: 2, OpenFor: resilience.OpenFixed(time.Minute),
	}))
}

func bulkhead(name string) *resilience.Bulkhead {
	return must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: name, Max: 3, Queue: 1}))
}

func fail(p resilience.Policy, times int) {
	for range times {
		_ = resilience.Do(context.Background(), p, func(context.Context) error { return errDown })
	}
}

// family is a set of policies of the user's own that may change.
type family struct{ members []resilience.Policy }

func (f *family) Run(ctx context.Context, next resilience.Next) error {
	return f.members[0].Run(ctx, next)
}
func (f *family) Describe() resilience.Description { return resilience.Description{Kind: "keyed"} }
func (f *family) Policies() []resilience.Policy    { return f.members }

// custom is a policy of a type that cannot be compared and has no metrics.
type custom []int

func (custom) Run(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }
func (custom) Describe() resilience.Description                    { return resilience.Description{Kind: "mine"} }

func expect(t *testing.T, c prometheus.Collector, want string, names ...string) {
	t.Helper()
	for i, name := range names {
		names[i] = "armature_resilience_" + name
	}
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestBreakerSeries(t *testing.T) {
	t.Parallel()
	b := breaker("payment")
	c := must(promresilience.New(b))
	_ = resilience.Do(t.Context(), b, func(context.Context) error { return nil })
	fail(b, 5)
	expect(t, c, `
# HELP armature_resilience_breaker_calls_total Calls that ran through a breaker and ended, by outcome.
# TYPE armature_resilience_breaker_calls_total counter
armature_resilience_breaker_calls_total{name="payment",outcome="failure"} 2
armature_resilience_breaker_calls_total{name="payment",outcome="neutral"} 0
armature_resilience_breaker_calls_total{name="payment",outcome="success"} 1
# HELP armature_resilience_breaker_opened_total Times that a breaker opened.
# TYPE armature_resilience_breaker_opened_total counter
armature_resilience_breaker_opened_total{name="payment"} 1
# HELP armature_resilience_breaker_state 1 for the state that a breaker is in and 0 for the others.
# TYPE armature_resilience_breaker_state gauge
armature_resilience_breaker_state{name="payment",state="closed"} 0
armature_resilience_breaker_state{name="payment",state="half-open"} 0
armature_resilience_breaker_state{name="payment",state="open"} 1
# HELP armature_resilience_rejections_total Calls that a policy turned away before they ran.
# TYPE armature_resilience_rejections_total counter
armature_resilience_rejections_total{name="payment",policy="breaker"} 3
`, "breaker_calls_total", "breaker_opened_total", "breaker_state", "rejections_total")
}

func TestScrapeDoesNotChangeTheState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := breaker("payment")
		c := must(promresilience.New(b))
		fail(b, 2)
		time.Sleep(time.Minute)
		expect(t, c, `
# HELP armature_resilience_breaker_state 1 for the state that a breaker is in and 0 for the others.
# TYPE armature_resilience_breaker_state gauge
armature_resilience_breaker_state{name="payment",state="closed"} 0
armature_resilience_breaker_state{name="payment",state="half-open"} 1
armature_resilience_breaker_state{name="payment",state="open"} 0
`, "breaker_state")
	})
}

func TestBulkheadSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "db", Max: 1, Queue: 1}))
		c := must(promresilience.New(b))
		hold := func(context.Context) error { time.Sleep(time.Second); return nil }
		go func() { _ = resilience.Do(context.Background(), b, hold) }()
		synctest.Wait()
		go func() { _ = resilience.Do(context.Background(), b, hold) }()
		synctest.Wait()
		fail(b, 1)
		expect(t, c, `
# HELP armature_resilience_bulkhead_max_calls Calls that may run at once.
# TYPE armature_resilience_bulkhead_max_calls gauge
armature_resilience_bulkhead_max_calls{name="db"} 1
# HELP armature_resilience_bulkhead_running_calls Calls that run now.
# TYPE armature_resilience_bulkhead_running_calls gauge
armature_resilience_bulkhead_running_calls{name="db"} 1
# HELP armature_resilience_bulkhead_waiting_calls Calls that wait for a place now.
# TYPE armature_resilience_bulkhead_waiting_calls gauge
armature_resilience_bulkhead_waiting_calls{name="db"} 1
# HELP armature_resilience_rejections_total Calls that a policy turned away before they ran.
# TYPE armature_resilience_rejections_total counter
armature_resilience_rejections_total{name="db",policy="bulkhead"} 1
`, "bulkhead_max_calls", "bulkhead_running_calls", "bulkhead_waiting_calls", "rejections_total")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expect(t, c, `
# HELP armature_resilience_bulkhead_wait_seconds_total Time that calls spent waiting for a place.
# TYPE armature_resilience_bulkhead_wait_seconds_total counter
armature_resilience_bulkhead_wait_seconds_total{name="db"} 1
`, "bulkhead_wait_seconds_total")
	})
}

func TestCacheSeries(t *testing.T) {
	t.Parallel()
	cache := must(resilience.NewCached(func(context.Context, string) (int, error) { return 1, nil },
		resilience.CachedConfig{Name: "prices", TTL: time.Hour}))
	c := must(promresilience.New())
	if err := c.AddCache(cache); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_ = must(cache.Get(t.Context(), "tea"))
	}
	expect(t, c, `
# HELP armature_resilience_cache_requests_total Look-ups: hit, stale while revalidated, rescued by a stale value as loading failed, or miss.
# TYPE armature_resilience_cache_requests_total counter
armature_resilience_cache_requests_total{name="prices",result="hit"} 2
armature_resilience_cache_requests_total{name="prices",result="miss"} 1
armature_resilience_cache_requests_total{name="prices",result="rescued"} 0
armature_resilience_cache_requests_total{name="prices",result="stale"} 0
`, "cache_requests_total")
	other := must(resilience.NewCached(func(context.Context, int) (int, error) { return 1, nil },
		resilience.CachedConfig{Name: "prices", TTL: time.Hour}))
	if err := c.AddCache(other); err == nil || !strings.Contains(err.Error(), `another cache has that name`) {
		t.Errorf("second cache of the name: %v", err)
	}
}

func TestRetryBudgetAndHedgeSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := must(resilience.NewBudget(resilience.BudgetConfig{Name: "all", MaxTokens: 4, TokenRatio: 0.1}))
		retry := must(resilience.NewRetry(resilience.RetryConfig{Name: "payment", MaxAttempts: 2, Budget: budget, Backoff: resilience.Fixed(0)}))
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{Name: "payment", After: time.Second}))
		c := must(promresilience.New(retry, hedge))
		for range 2 { // the same one twice is one
			if err := c.AddBudget(budget); err != nil {
				t.Fatal(err)
			}
		}
		fail(retry, 2)
		_ = resilience.Do(t.Context(), hedge, resiliencetest.Script(resiliencetest.Hang(), resiliencetest.OK()).Call)
		expect(t, c, `
# HELP armature_resilience_budget_granted_total Extra attempts that a budget granted.
# TYPE armature_resilience_budget_granted_total counter
armature_resilience_budget_granted_total{name="all"} 1
# HELP armature_resilience_budget_refused_total Extra attempts that a budget refused.
# TYPE armature_resilience_budget_refused_total counter
armature_resilience_budget_refused_total{name="all"} 1
# HELP armature_resilience_hedge_hedges_total Attempts started beside the first of each call.
# TYPE armature_resilience_hedge_hedges_total counter
armature_resilience_hedge_hedges_total{name="payment"} 1
# HELP armature_resilience_hedge_won_total Calls that an attempt beside the first one answered.
# TYPE armature_resilience_hedge_won_total counter
armature_resilience_hedge_won_total{name="payment"} 1
# HELP armature_resilience_retry_failed_total Calls that failed under a retry, by the reason to make no further attempt.
# TYPE armature_resilience_retry_failed_total counter
armature_resilience_retry_failed_total{name="payment",reason="attempts"} 1
armature_resilience_retry_failed_total{name="payment",reason="backoff"} 0
armature_resilience_retry_failed_total{name="payment",reason="budget"} 1
armature_resilience_retry_failed_total{name="payment",reason="context"} 0
armature_resilience_retry_failed_total{name="payment",reason="deadline"} 0
armature_resilience_retry_failed_total{name="payment",reason="elapsed"} 0
armature_resilience_retry_failed_total{name="payment",reason="not-retryable"} 0
armature_resilience_retry_failed_total{name="payment",reason="retry-after"} 0
# HELP armature_resilience_retry_retries_total Attempts beyond the first of each call.
# TYPE armature_resilience_retry_retries_total counter
armature_resilience_retry_retries_total{name="payment"} 1
`, "budget_granted_total", "budget_refused_total", "hedge_hedges_total", "hedge_won_total", "retry_failed_total", "retry_retries_total")
	})
}

func TestMistakesAreErrorsAndAddNothing(t *testing.T) {
	t.Parallel()
	unnamed := must(resilience.NewBreaker(resilience.BreakerConfig{}))
	for name, test := range map[string]struct {
		add  []resilience.Policy
		want string
	}{
		"no name":             {[]resilience.Policy{unnamed}, "add breaker: it has no name"},
		"name twice":          {[]resilience.Policy{breaker("payment"), breaker("payment")}, `add breaker "payment": another breaker has that name`},
		"name twice in chain": {[]resilience.Policy{resilience.Chain(breaker("a"), breaker("a"))}, `another breaker has that name`},
		"added before":        {[]resilience.Policy{breaker("old")}, `another breaker has that name`},
		"names that Prometheus cannot tell apart": {
			[]resilience.Policy{breaker("x\xff"), breaker("x\xfe")}, "another breaker has that name",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := must(promresilience.New(breaker("old")))
			before := testutil.CollectAndCount(c)
			err := c.Add(append([]resilience.Policy{bulkhead("new")}, test.add...)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if after := testutil.CollectAndCount(c); after != before {
				t.Errorf("%d series after a failed Add, %d before", after, before)
			}
		})
	}
}

func TestSharedPolicyCountsOnce(t *testing.T) {
	t.Parallel()
	b := breaker("payment")
	c := must(promresilience.New(resilience.Chain(b, bulkhead("read")), resilience.Chain(b, bulkhead("write"))))
	if err := c.Add(b, nil, custom{1}); err != nil {
		t.Fatal(err)
	}
	fail(b, 1)
	expect(t, c, `
# HELP armature_resilience_bulkhead_max_calls Calls that may run at once.
# TYPE armature_resilience_bulkhead_max_calls gauge
armature_resilience_bulkhead_max_calls{name="read"} 3
armature_resilience_bulkhead_max_calls{name="write"} 3
# HELP armature_resilience_breaker_calls_total Calls that ran through a breaker and ended, by outcome.
# TYPE armature_resilience_breaker_calls_total counter
armature_resilience_breaker_calls_total{name="payment",outcome="failure"} 1
armature_resilience_breaker_calls_total{name="payment",outcome="neutral"} 0
armature_resilience_breaker_calls_total{name="payment",outcome="success"} 0
`, "bulkhead_max_calls", "breaker_calls_total")
}

// Members that come and go share the series of their name, so that keys cannot
// make series or break a scrape.
func TestMembersOfOneNameAreAddedUp(t *testing.T) {
	t.Parallel()
	a, b := breaker("payment"), breaker("payment")
	f := &family{members: []resilience.Policy{a}}
	c := must(promresilience.New(resilience.Chain(bulkhead("all"), f)))
	if err := c.Add(f); err != nil { // again, which must not count it twice
		t.Fatal(err)
	}
	f.members = append(f.members, b)
	fail(a, 2)
	fail(b, 1)
	expect(t, c, `
# HELP armature_resilience_breaker_calls_total Calls that ran through a breaker and ended, by outcome.
# TYPE armature_resilience_breaker_calls_total counter
armature_resilience_breaker_calls_total{name="payment",outcome="failure"} 3
armature_resilience_breaker_calls_total{name="payment",outcome="neutral"} 0
armature_resilience_breaker_calls_total{name="payment",outcome="success"} 0
# HELP armature_resilience_breaker_state 1 for the state that a breaker is in and 0 for the others.
# TYPE armature_resilience_breaker_state gauge
armature_resilience_breaker_state{name="payment",state="closed"} 1
armature_resilience_breaker_state{name="payment",state="half-open"} 0
armature_resilience_breaker_state{name="payment",state="open"} 1
`, "breaker_calls_total", "breaker_state")
}

func TestAddAndScrapeAtTheSameTime(t *testing.T) {
	t.Parallel()
	c := must(promresilience.New())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			b := breaker(fmt.Sprint(i))
			if err := c.Add(b); err != nil {
				t.Error(err)
			}
			fail(b, 3)
		})
		wg.Go(func() { testutil.CollectAndCount(c) })
	}
	wg.Wait()
	if n := testutil.CollectAndCount(c, "armature_resilience_breaker_opened_total"); n != 20 {
		t.Errorf("%d series, want 20", n)
	}
}

type hostKey struct{}

func hosts[P resilience.Policy](create func(name string) P) *resilience.KeyedPolicy[string] {
	return must(resilience.Keyed(
		func(ctx context.Context) string { host, _ := ctx.Value(hostKey{}).(string); return host },
		func(string) (resilience.Policy, error) { return create("host"), nil },
		resilience.KeyedConfig{Name: "hosts"}))
}

func TestKeyedSeries(t *testing.T) {
	t.Parallel()
	k := hosts(breaker)
	c := must(promresilience.New(k))
	if err := c.Add(resilience.Chain(k)); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a", "b", "b"} {
		_ = resilience.Do(context.WithValue(t.Context(), hostKey{}, host), k, func(context.Context) error { return errDown })
	}
	expect(t, c, `
# HELP armature_resilience_breaker_state 1 for the state that a breaker is in and 0 for the others.
# TYPE armature_resilience_breaker_state gauge
armature_resilience_breaker_state{name="host",state="closed"} 1
armature_resilience_breaker_state{name="host",state="half-open"} 0
armature_resilience_breaker_state{name="host",state="open"} 1
# HELP armature_resilience_keyed_policies Policies that a keyed policy holds, one per key.
# TYPE armature_resilience_keyed_policies gauge
armature_resilience_keyed_policies{name="hosts"} 2
`, "breaker_state", "keyed_policies")
	if err := c.Add(hosts(breaker)); err == nil {
		t.Error("two keyed policies of one name were added")
	}
}

func TestRateLimiterAndTimeoutSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := must(resilience.NewRateLimiter(resilience.RateConfig{Name: "mail", Rate: 1, Burst: 1, MaxWait: 1500 * time.Millisecond}))
		timeout := must(resilience.NewTimeout(time.Second)).With("mail", nil)
		p := resilience.Chain(limiter, timeout)
		c := must(promresilience.New(p))
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ok := func(context.Context) error { return nil }
		_ = resilience.Do(t.Context(), p, ok)
		_ = resilience.Do(t.Context(), p, hang) // waits a second for its permit
		go func() { _ = resilience.Do(context.Background(), p, ok) }()
		go func() { _ = resilience.Do(context.Background(), p, ok) }()
		go func() { _ = resilience.Do(context.Background(), p, ok) }()
		time.Sleep(time.Minute)
		expect(t, c, `
# HELP armature_resilience_rate_limiter_allowed_total Requests for permits granted.
# TYPE armature_resilience_rate_limiter_allowed_total counter
armature_resilience_rate_limiter_allowed_total{name="mail"} 4
# HELP armature_resilience_rate_limiter_waited_total Requests for permits that waited.
# TYPE armature_resilience_rate_limiter_waited_total counter
armature_resilience_rate_limiter_waited_total{name="mail"} 2
# HELP armature_resilience_rejections_total Calls that a policy turned away before they ran.
# TYPE armature_resilience_rejections_total counter
armature_resilience_rejections_total{name="mail",policy="rate-limiter"} 1
# HELP armature_resilience_timeout_fired_total Calls that failed because a timeout was over.
# TYPE armature_resilience_timeout_fired_total counter
armature_resilience_timeout_fired_total{name="mail"} 1
`, "rate_limiter_allowed_total", "rate_limiter_waited_total", "rejections_total", "timeout_fired_total")
	})
}

func everything() (*promresilience.Collector, error) {
	c, err := promresilience.New(
		breaker("x\xff"), bulkhead("b"),
		must(resilience.NewAdaptive(resilience.AdaptiveConfig{Name: "b"})),
		must(resilience.NewThrottle(resilience.ThrottleConfig{Name: "b"})),
		must(resilience.NewTimeout(time.Second)).With("b", nil),
		must(resilience.NewRateLimiter(resilience.RateConfig{Name: "b", Rate: 1})),
		hosts(bulkhead),
		must(resilience.NewRetry(resilience.RetryConfig{Name: "b"})),
		must(resilience.NewHedge(resilience.HedgeConfig{Name: "b", After: time.Second})),
		must(resilience.NewFallback(resilience.FallbackConfig{Name: "b", Handle: func(context.Context, error) error { return nil }})),
		must(resilience.NewChaos(resilience.ChaosConfig{Name: "b", Rate: 1, Latency: time.Second})),
	)
	if err != nil {
		return nil, err
	}
	if err := c.AddBudget(must(resilience.NewBudget(resilience.BudgetConfig{Name: "b"}))); err != nil {
		return nil, err
	}
	return c, c.AddCache(must(resilience.NewCached(func(context.Context, int) (int, error) { return 0, nil },
		resilience.CachedConfig{Name: "b", TTL: time.Hour})))
}

// Every metric is registered, gathered and named by Prometheus' own rules.
func TestLint(t *testing.T) {
	t.Parallel()
	c := must(everything())
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families := must(registry.Gather())
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	if len(families) != len(descs) {
		t.Errorf("%d metrics gathered, %d described: a kind has no test here", len(families), len(descs))
	}
	if err := registry.Register(must(everything())); !errors.As(err, &prometheus.AlreadyRegisteredError{}) {
		t.Errorf("a second collector in one registry: %v", err)
	}
}
