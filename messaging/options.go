package messaging

import (
	"fmt"
	"time"
)

// SubscribeOption changes one subscription.
type SubscribeOption func(*subscribeOptions)

type subscribeOptions struct {
	concurrency int
	inFlight    int
	attempts    int
	initial     time.Duration
	maxDelay    time.Duration
	timeout     time.Duration
	middleware  []Middleware
}

// Concurrency lets at most n handlers run at a time; 8 by default. Messages of one key never run at the same time.
func Concurrency(n int) SubscribeOption { return func(o *subscribeOptions) { o.concurrency = n } }

// MaxInFlight bounds how many messages the subscription holds: running, waiting for their turn or for a retry. The
// default is 64, or eight times the concurrency if that is more. A key that keeps failing can hold at most this many.
func MaxInFlight(n int) SubscribeOption { return func(o *subscribeOptions) { o.inFlight = n } }

// MaxAttempts sends a message to the dead letters after n failed attempts; 10 by default, 0 retries for ever.
func MaxAttempts(n int) SubscribeOption { return func(o *subscribeOptions) { o.attempts = n } }

// Backoff sets the delay before the second attempt and the longest one; 200 ms and one minute by default. Delays double
// and are jittered: the actual delay is between half of it and all of it.
func Backoff(initial, longest time.Duration) SubscribeOption {
	return func(o *subscribeOptions) { o.initial, o.maxDelay = initial, longest }
}

// Timeout cancels the handler's context after d. There is no limit by default.
func Timeout(d time.Duration) SubscribeOption { return func(o *subscribeOptions) { o.timeout = d } }

// Use wraps the handler of this subscription; the first is outermost, inside those of Config.Middleware.
func Use(mw ...Middleware) SubscribeOption {
	return func(o *subscribeOptions) { o.middleware = append(o.middleware, mw...) }
}

func newSubscribeOptions(opts []SubscribeOption) (subscribeOptions, error) {
	o := subscribeOptions{concurrency: 8, attempts: 10, initial: 200 * time.Millisecond, maxDelay: time.Minute}
	for _, opt := range opts {
		opt(&o)
	}
	if o.inFlight == 0 {
		o.inFlight = max(64, 8*o.concurrency)
	}
	switch {
	case o.concurrency < 1:
		return o, fmt.Errorf("option Concurrency is %d, must be at least 1", o.concurrency)
	case o.inFlight < o.concurrency:
		return o, fmt.Errorf("option MaxInFlight is %d, must be at least Concurrency, which is %d", o.inFlight, o.concurrency)
	case o.attempts < 0:
		return o, fmt.Errorf("option MaxAttempts is %d, must be positive, or 0 to retry for ever", o.attempts)
	case o.initial <= 0 || o.maxDelay < o.initial:
		return o, fmt.Errorf("option Backoff is (%s, %s), the first must be positive and at most the second", o.initial, o.maxDelay)
	case o.timeout < 0:
		return o, fmt.Errorf("option Timeout is %s, must not be negative", o.timeout)
	}
	return o, nil
}
