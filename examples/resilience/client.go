package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/armature-go/armature/resilience"
)

// client asks the dependency for prices, protected by policy.
type client struct {
	url     string
	http    *http.Client
	policy  resilience.Policy
	breaker *resilience.Breaker
	budget  *resilience.Budget
	retries atomic.Int64
	hedges  atomic.Int64
}

// status is a refusal that policies can read.
type status int

func (s status) Error() string {
	return fmt.Sprintf("dependency: %d %s", int(s), http.StatusText(int(s)))
}
func (s status) StatusCode() int { return int(s) }

// newClient makes the policies, outermost first. Their times are those of a client
// in earnest, divided as much as second is.
func newClient(url string, doer *http.Client, second time.Duration, screen *screen) (*client, error) {
	c := &client{url: url, http: doer}
	observer := resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
		switch e.Kind {
		case resilience.EventRetry:
			c.retries.Add(1)
		case resilience.EventHedge:
			c.hedges.Add(1)
		case resilience.EventStateChanged:
			screen.changed(e)
		}
	})

	// No caller waits longer than this, retries included.
	total, err := resilience.NewTimeout(second)
	if err != nil {
		return nil, err
	}
	// What the dependency has agreed to take from us.
	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{Name: "price", Rate: 50, Per: second, Burst: 20})
	if err != nil {
		return nil, err
	}
	// Extra attempts are at most a fifth of the calls, whoever makes them: in an
	// outage retries must not become the load that keeps it going.
	c.budget, err = resilience.NewBudget(resilience.BudgetConfig{Name: "price", Ratio: 0.2, MinPerSecond: 1})
	if err != nil {
		return nil, err
	}
	// Does not wait for an open breaker: its callers would rather know at once.
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name: "price", MaxAttempts: 3, Budget: c.budget, Observer: observer, MaxRetryAfter: second / 10,
		Backoff: resilience.Exponential(second/50, second/5, resilience.FullJitter),
	})
	if err != nil {
		return nil, err
	}
	// Asking for a price twice does no harm, so a slow answer is asked for again.
	hedge, err := resilience.NewHedge(resilience.HedgeConfig{
		Name: "price", After: second / 10, Budget: c.budget, Observer: observer,
	})
	if err != nil {
		return nil, err
	}
	// Opens when half of the attempts fail or are slow.
	c.breaker, err = resilience.NewBreaker(resilience.BreakerConfig{
		Name: "price", Window: resilience.Time(2*second, 10), MinCalls: 10,
		SlowCall: second / 5, OpenFor: resilience.OpenFixed(second), Observer: observer,
	})
	if err != nil {
		return nil, err
	}
	// A slow dependency must not eat all our connections.
	bulkhead, err := resilience.NewBulkhead(resilience.BulkheadConfig{Name: "price", Max: 8, Queue: 4, MaxWait: second / 20})
	if err != nil {
		return nil, err
	}
	// One attempt must leave time for another one.
	attempt, err := resilience.NewTimeout(second * 2 / 5)
	if err != nil {
		return nil, err
	}
	c.policy = resilience.Chain(
		total.With("price-total", nil), limiter, retry, hedge, c.breaker, bulkhead, attempt.With("price-attempt", nil))
	return c, nil
}

// price is one protected call.
func (c *client) price(ctx context.Context) (string, error) {
	return resilience.Call(ctx, c.policy, c.ask)
}

// ask is the call itself: it knows nothing of policies.
func (c *client) ask(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = status(resp.StatusCode)
	}
	return string(body), err
}
