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
	url      string
	http     *http.Client
	policy   resilience.Policy
	breaker  *resilience.Breaker
	bulkhead *resilience.Bulkhead
	retries  atomic.Int64
}

// status is a refusal that policies can read.
type status int

func (s status) Error() string   { return fmt.Sprintf("dependency: %d %s", int(s), http.StatusText(int(s))) }
func (s status) StatusCode() int { return int(s) }

// newClient makes the policies, outermost first. Their times are those of a client
// in earnest, divided as much as second is.
func newClient(url string, second time.Duration, screen *screen) (*client, error) {
	c := &client{url: url, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 50}}}
	observer := resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
		switch e.Kind {
		case resilience.EventRetry:
			c.retries.Add(1)
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
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name: "price", MaxAttempts: 3, Observer: observer,
		Backoff: resilience.Exponential(second/50, second/5, resilience.FullJitter),
	})
	if err != nil {
		return nil, err
	}
	c.breaker, err = resilience.NewBreaker(resilience.BreakerConfig{
		Name: "price", Window: resilience.Time(2*second, 10), MinCalls: 10,
		SlowCall: second / 5, OpenFor: resilience.OpenFixed(second), Observer: observer,
	})
	if err != nil {
		return nil, err
	}
	c.bulkhead, err = resilience.NewBulkhead(resilience.BulkheadConfig{Name: "price", Max: 8, Queue: 4, MaxWait: second / 20})
	if err != nil {
		return nil, err
	}
	// One attempt must leave time for another one.
	attempt, err := resilience.NewTimeout(second * 2 / 5)
	if err != nil {
		return nil, err
	}
	c.policy = resilience.Chain(total.With("price-total", nil), limiter, retry, c.breaker, c.bulkhead, attempt.With("price-attempt", nil))
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
