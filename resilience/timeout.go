package resilience

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrTimeout matches every [TimeoutError] with [errors.Is].
var ErrTimeout = errors.New("resilience: timeout")

// TimeoutError reports that the policy's own timeout fired. It matches
// [ErrTimeout], [context.DeadlineExceeded] and the operation's error.
type TimeoutError struct {
	Name  string        // of the policy, may be empty
	After time.Duration // the timeout that fired
	Err   error         // what the operation returned when it noticed
}

// Error names the timeout and the operation's error, if that says more.
func (e *TimeoutError) Error() string {
	text := "resilience: call"
	if e.Name != "" {
		text += fmt.Sprintf(" %q", e.Name)
	}
	text += fmt.Sprintf(": timed out after %v", e.After)
	if e.Err == nil || e.Err == context.DeadlineExceeded {
		return text
	}
	return text + ": " + e.Err.Error()
}

// Is matches ErrTimeout.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

// Unwrap returns the operation's error and context.DeadlineExceeded.
func (e *TimeoutError) Unwrap() []error {
	if e.Err == nil {
		return []error{context.DeadlineExceeded}
	}
	return []error{e.Err, context.DeadlineExceeded}
}

// Timeout reports true, the way [net.Error] does.
func (e *TimeoutError) Timeout() bool { return true }

// Retryable reports true: the attempt took too long, another one may not.
func (e *TimeoutError) Retryable() bool { return true }

// RetryAfter reports that no delay is known.
func (e *TimeoutError) RetryAfter() (time.Duration, bool) { return 0, false }

// NotExecuted reports whether the time passed before the operation was begun,
// for instance in the queue of a bulkhead. Otherwise the outcome is unknown.
func (e *TimeoutError) NotExecuted() bool { return notExecuted(e.Err) }

// Timeout bounds what is inside it: the whole call when it is the outermost
// policy, each attempt when it sits inside a retry. Safe for concurrent use. A call
// costs one allocation, and a timer only if the operation waits for its context, or if
// operations of that timeout have done so lately.
type Timeout struct {
	d        time.Duration
	name     string
	observer Observer
	cause    *TimeoutError
	anchor   atomic.Pointer[time.Time] // a look at the clock not long ago
	waiting  atomic.Int32              // calls to come that get a timer at once
	fired    atomic.Uint64
}

// TimeoutStats are the totals of a [Timeout] since it was made.
type TimeoutStats struct {
	Fired uint64 // calls that failed because of it
}

const (
	// reanchor bounds how far the wall clock's part of a deadline may be off after the
	// wall clock was set.
	reanchor = time.Second
	// lazyAgain is the number of calls after which a timeout whose operation waited for
	// its context looks again whether it still does.
	lazyAgain = 32
)

// NewTimeout returns a policy that gives the operation d, which must be positive.
func NewTimeout(d time.Duration) (*Timeout, error) {
	if d <= 0 {
		return nil, configError("timeout", "", "d", d, "must be positive", "leave the policy out for no timeout")
	}
	return &Timeout{d: d, cause: &TimeoutError{After: d}}, nil
}

// With returns a timeout of the same duration with a name for errors and Describe
// and an observer, which may be nil, to be told each time it fires. It counts by
// itself, and t stays as it is.
func (t *Timeout) With(name string, o Observer) *Timeout {
	return &Timeout{d: t.d, name: name, observer: o, cause: &TimeoutError{Name: name, After: t.d}}
}

// Name returns the name given to With.
func (t *Timeout) Name() string { return t.name }

// Stats returns a view of the moment.
func (t *Timeout) Stats() TimeoutStats {
	return TimeoutStats{Fired: t.fired.Load()}
}

// Run gives next a context whose Deadline is at most d away, so that transports
// can tell the callee. It waits for next to return; a result that arrives in
// spite of the timeout is kept. When the caller's deadline is the earlier one the
// context is passed on as it is and the caller's error stays the caller's. A panic
// passes through.
func (t *Timeout) Run(ctx context.Context, next Next) error {
	deadline := t.deadline()
	if earlier, ok := ctx.Deadline(); ok && !earlier.After(deadline) {
		return next.Run(ctx)
	}
	if n := t.waiting.Load(); n > 0 {
		t.waiting.Store(n - 1)
		return t.runWaiting(ctx, next, deadline)
	}
	inner := &deadlineContext{parent: ctx, deadline: deadline, cause: t.cause}
	if len(next.inner) > 0 {
		_, inner.fresh = next.inner[0].(*Retry)
	}
	kept := false
	defer func() {
		if !kept {
			inner.end()
		}
	}()
	err := next.Run(inner)
	if err != nil {
		err = t.judge(ctx, inner, err)
	}
	if inner.asked() {
		t.waiting.Store(lazyAgain)
	}
	if r, ok := next.op.(retainer); ok {
		kept = r.retain(inner, inner.end)
	}
	return err
}

// runWaiting is Run for an operation that will wait for its context anyway: the
// standard one is cheaper then.
func (t *Timeout) runWaiting(ctx context.Context, next Next, deadline time.Time) error {
	inner, cancel := context.WithDeadlineCause(ctx, deadline, t.cause)
	kept := false
	defer func() {
		if !kept {
			cancel()
		}
	}()
	err := next.Run(inner)
	if err != nil {
		err = t.judge(ctx, inner, err)
	}
	kept = next.retain(inner, cancel)
	return err
}

// deadline is time.Now().Add(t.d), mostly without reading the wall clock, which costs
// as much again as the monotonic one.
func (t *Timeout) deadline() time.Time {
	if anchor := t.anchor.Load(); anchor != nil {
		if since := time.Since(*anchor); since >= 0 && since < reanchor {
			return anchor.Add(since + t.d)
		}
	}
	now := time.Now()
	t.anchor.Store(&now)
	return now.Add(t.d)
}

// judge makes err a *TimeoutError if the timeout is what ended inner.
func (t *Timeout) judge(ctx, inner context.Context, err error) error {
	if context.Cause(inner) != error(t.cause) {
		return err
	}
	err = &TimeoutError{Name: t.name, After: t.d, Err: err}
	t.fired.Add(1)
	if t.observer != nil {
		t.observer.On(ctx, Event{Kind: EventTimeout, Policy: "timeout", Name: t.name, Duration: t.d, Err: err})
	}
	return err
}

// Describe reports the timeout.
func (t *Timeout) Describe() Description {
	return Description{Kind: "timeout", Name: t.name, Settings: []Setting{setting("after", t.d)}}
}
