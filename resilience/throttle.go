package resilience

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// ThrottledError reports that a throttle turned the call away to relieve a callee
// that refuses most calls. The operation did not run.
type ThrottledError struct {
	Name        string
	Probability float64 // with which calls were rejected at that moment, within 0 and 1
}

// Error names the throttle and the probability.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("resilience: pass throttle %q: rejecting %.0f%% of the calls", e.Name, 100*e.Probability)
}

// Is matches ErrThrottled and ErrRejected.
func (e *ThrottledError) Is(target error) bool {
	return target == ErrThrottled || target == ErrRejected
}

// NotExecuted reports true.
func (e *ThrottledError) NotExecuted() bool { return true }

// Retryable reports true.
func (e *ThrottledError) Retryable() bool { return true }

// RetryAfter reports that no delay is known.
func (e *ThrottledError) RetryAfter() (time.Duration, bool) { return 0, false }

// ThrottleConfig describes a [Throttle]. The zero value rejects once fewer than
// half of the calls of the last 10 s were accepted.
type ThrottleConfig struct {
	Name string // for errors, events and Describe

	// K is how many calls may be sent for each one the callee accepts; at least 1.
	// The nearer to 1, the sooner calls are rejected. 0 means 2.
	K float64

	// Window is the time looked back on. Calls are rejected from about the share
	// 1-1/K of the window after the callee went down. 0 means 10 s.
	Window time.Duration

	// MinRequests is the number of calls sent within the window below which none is
	// rejected. 0 means 10.
	MinRequests int

	// Classify judges errors: a Failure was not accepted, a Neutral call does not
	// count. Nil means the function Classify. If it panics, the call was not accepted.
	Classify Classifier

	// Rand returns numbers in [0, 1). Nil means rand.Float64 of math/rand/v2.
	Rand func() float64

	// Observer, if not nil, is told about rejections.
	Observer Observer
}

// ThrottleStats is a moment's view of a [Throttle].
type ThrottleStats struct {
	Requests, Accepts int     // calls in the window that were sent and that were accepted
	Probability       float64 // with which the next call is rejected
	Rejected          uint64  // calls turned away so far
}

// Throttle rejects calls by chance, the more of them the fewer the callee accepts,
// so that an overloaded callee is not kept busy with refusing. Unlike a breaker it
// never closes altogether. Safe for concurrent use; a call costs two short locks,
// two clock reads and no allocation.
//
// The probability is max(0, (requests-K*accepts)/(requests+1)), from "Handling
// Overload", chapter 21 of Google's Site Reliability Engineering, with one
// difference: there the throttle's own rejections are requests too, which after a
// long outage leaves one probe per window and feeds on itself. Here only calls that
// were sent count, once they have ended. So at any rate of calls
//   - the first MinRequests calls of every window pass, and in a full outage about
//     the square root of the calls made in a window does;
//   - one window after the callee has recovered, at the latest, all calls pass: the
//     failures have left the window, and nothing else counts against it.
//
// The price is a milder throttle: towards a callee that accepts a calls per second
// out of r offered, sqrt(r*K*a) are sent where the book's formula sends K*a.
type Throttle struct {
	cfg  ThrottleConfig
	base time.Time

	mu       sync.Mutex
	ring     [throttleBuckets]struct{ requests, accepts int }
	newest   int64 // number of the newest bucket
	requests int
	accepts  int
	rejected uint64
}

const throttleBuckets = 20

// NewThrottle returns a throttle that has seen no calls.
func NewThrottle(cfg ThrottleConfig) (*Throttle, error) {
	bad := func(field string, value any, rule, fix string) (*Throttle, error) {
		return nil, configError("throttle", cfg.Name, field, value, rule, fix)
	}
	if cfg.K == 0 {
		cfg.K = 2
	}
	if cfg.Window == 0 {
		cfg.Window = 10 * time.Second
	}
	if cfg.MinRequests == 0 {
		cfg.MinRequests = 10
	}
	switch {
	case !(cfg.K >= 1) || math.IsInf(cfg.K, 0):
		return bad("K", cfg.K, "must be at least 1 and finite", "use 0 for the default of 2")
	case cfg.Window < throttleBuckets:
		return bad("Window", cfg.Window, "must be at least 20ns", "use 0 for the default of 10s")
	case cfg.MinRequests < 0:
		return bad("MinRequests", cfg.MinRequests, "must not be negative", "use 0 for the default of 10")
	}
	if cfg.Classify == nil {
		cfg.Classify = Classify
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	return &Throttle{cfg: cfg, base: time.Now()}, nil
}

// Run executes next or returns a *[ThrottledError].
func (t *Throttle) Run(ctx context.Context, next Next) error {
	if p := t.probability(); p > 0 && t.cfg.Rand() < p {
		return t.reject(ctx, p)
	}
	counted := false
	defer func() {
		if !counted { // a panic or Goexit, of the operation or of the classifier
			t.count(false)
		}
	}()
	err := next.Run(ctx)
	outcome := Success
	if err != nil {
		outcome = t.cfg.Classify(ctx, err)
	}
	counted = true
	if outcome != Neutral {
		t.count(outcome == Success)
	}
	return err
}

func (t *Throttle) reject(ctx context.Context, p float64) error {
	t.mu.Lock()
	t.rejected++
	t.mu.Unlock()
	err := &ThrottledError{Name: t.cfg.Name, Probability: p}
	if t.cfg.Observer != nil {
		t.cfg.Observer.On(ctx, Event{Kind: EventRejected, Policy: "throttle", Name: t.cfg.Name, Err: err})
	}
	return err
}

// probability returns the share of calls to reject now.
func (t *Throttle) probability() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.share()
}

// share is probability with mu held.
func (t *Throttle) share() float64 {
	t.advance()
	if t.requests < t.cfg.MinRequests {
		return 0
	}
	sent := float64(t.requests)
	return max(0, (sent-t.cfg.K*float64(t.accepts))/(sent+1))
}

func (t *Throttle) count(accepted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance()
	bucket := &t.ring[t.newest%throttleBuckets]
	t.requests++
	bucket.requests++
	if accepted {
		t.accepts++
		bucket.accepts++
	}
}

// advance drops the buckets that have left the window. Called with mu held.
func (t *Throttle) advance() {
	now := int64(max(0, time.Since(t.base)) / (t.cfg.Window / throttleBuckets))
	if now >= t.newest+throttleBuckets {
		clear(t.ring[:])
		t.requests, t.accepts, t.newest = 0, 0, now
	}
	for t.newest < now {
		t.newest++
		bucket := &t.ring[t.newest%throttleBuckets]
		t.requests -= bucket.requests
		t.accepts -= bucket.accepts
		bucket.requests, bucket.accepts = 0, 0
	}
}

// Name returns the name given in the configuration.
func (t *Throttle) Name() string { return t.cfg.Name }

// Stats returns a view of the moment.
func (t *Throttle) Stats() ThrottleStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.share()
	return ThrottleStats{Requests: t.requests, Accepts: t.accepts, Probability: p, Rejected: t.rejected}
}

// Describe reports the effective settings.
func (t *Throttle) Describe() Description {
	return Description{Kind: "throttle", Name: t.cfg.Name, Settings: []Setting{
		setting("k", t.cfg.K), setting("window", t.cfg.Window), setting("min-requests", t.cfg.MinRequests),
	}}
}
