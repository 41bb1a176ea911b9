package play

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	tries     = 15 // of one request of an order: some twenty seconds
	fewTries  = 5  // of the first question: about a second
	firstWait = 50 * time.Millisecond
	lastWait  = 2 * time.Second
	longest   = time.Minute // for an order to come to rest, beyond its first wait
	poll      = 100 * time.Millisecond
)

// edge is the shop as a customer's program sees it.
type edge struct {
	http *http.Client
	base string
}

// seen is an order as the edge shows it.
type seen struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Reason string `json:"reason"`
}

func (s seen) rests() bool {
	return s.Status == Confirmed || s.Status == Cancelled || s.Status == refunded
}

// statusError is an answer other than 2xx.
type statusError struct {
	status int
	after  time.Duration
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.text) }

// again reports whether the same request may do better later.
func (e *statusError) again() bool { return e.status >= 500 || e.status == http.StatusTooManyRequests }

// place sends an order and waits until it rests. retries is how often a request had to be sent again.
func (c *edge) place(ctx context.Context, key string, o Order) (got seen, retries int, err error) {
	body, err := json.Marshal(struct {
		CustomerID string  `json:"customer_id"`
		Items      []Item  `json:"items"`
		Card       string  `json:"card"`
		Address    Address `json:"address"`
	}{o.CustomerID, o.Items, o.Card, o.Address})
	if err != nil {
		return seen{}, 0, err
	}
	return c.settle(ctx, "/api/orders", key, body)
}

// refund sends the order back and waits until it rests.
func (c *edge) refund(ctx context.Context, key, id string) (seen, int, error) {
	return c.settle(ctx, "/api/orders/"+url.PathEscape(id)+"/refund", key, nil)
}

func (c *edge) settle(ctx context.Context, path, key string, body []byte) (got seen, retries int, err error) {
	retries, err = c.persist(ctx, tries, func() error {
		got = seen{}
		return c.do(ctx, http.MethodPost, path, key, body, &got)
	})
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for err == nil && !got.rests() {
		if got.ID == "" {
			return got, retries, fmt.Errorf("POST %s: the answer has no order in it", path)
		}
		if err := sleep(ctx, poll); err != nil {
			return got, retries, fmt.Errorf("order %s is still %q: %w", got.ID, got.Status, err)
		}
		var more int
		more, err = c.persist(ctx, tries, func() error {
			return c.do(ctx, http.MethodGet, "/api/orders/"+url.PathEscape(got.ID), "", nil, &got)
		})
		retries += more
	}
	return got, retries, err
}

// persist repeats do while that may help.
func (c *edge) persist(ctx context.Context, tries int, do func() error) (retries int, err error) {
	wait := firstWait
	for {
		err = do()
		var answer *statusError
		isAnswer := errors.As(err, &answer)
		if err == nil || retries == tries-1 || (isAnswer && !answer.again()) {
			return retries, err
		}
		if isAnswer {
			wait = max(wait, answer.after)
		}
		if sleep(ctx, wait) != nil {
			return retries, err
		}
		retries++
		wait = min(2*wait, lastWait)
	}
}

func (c *edge) do(ctx context.Context, method, path, key string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
		req.Header.Set("Prefer", "wait=10")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &statusError{resp.StatusCode, retryAfter(resp.Header), summary(data)}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, 10*time.Second)
}

// summary is the part of a problem that a person wants to read.
func summary(data []byte) string {
	var p struct {
		Reason string `json:"reason"`
		Detail string `json:"detail"`
		Title  string `json:"title"`
	}
	if json.Unmarshal(data, &p) == nil && p.Reason+p.Detail+p.Title != "" {
		if p.Detail == "" {
			p.Detail = p.Title
		}
		return p.Reason + " " + p.Detail
	}
	return string(data[:min(len(data), 200)])
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
