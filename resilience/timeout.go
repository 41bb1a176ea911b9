package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrTimeout matches every [TimeoutError] with [errors.Is].
var ErrTimeout = errors.New("resilience: timeout")

// TimeoutError reports that the policy's own timeout fired. It matches
// [ErrTimeout], [context.DeadlineExceeded] and the operation's error.
type TimeoutError struct {
	After time.Duration // the timeout that fired
	Err   error         // what the operation returned when it noticed
}

// Error names the timeout and the operation's error, if that says more.
func (e *TimeoutError) Error() string {
	if e.Err == nil || e.Err == context.DeadlineExceeded {
		return fmt.Sprintf("resilience: call: timed out after %v", e.After)
	}
	return fmt.Sprintf("resilience: call: timed out after %v: %v", e.After, e.Err)
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
// policy, each attempt when it sits inside a retry. Safe for concurrent use.
type Timeout struct {
	d     time.Duration
	cause *TimeoutError
}

// NewTimeout returns a policy that gives the operation d, which must be positive.
func NewTimeout(d time.Duration) (*Timeout, error) {
	if d <= 0 {
		return nil, configError("timeout", "", "d", d, "must be positive", "leave the policy out for no timeout")
	}
	return &Timeout{d: d, cause: &TimeoutError{After: d}}, nil
}

// Run gives next a context whose Deadline is at most d away, so that transports
// can tell the callee. It waits for next to return; a result that arrives in
// spite of the timeout is kept. When the caller's deadline is the earlier one the
// context is passed on as it is and the caller's error stays the caller's.
func (t *Timeout) Run(ctx context.Context, next Next) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= t.d {
		return next.Run(ctx)
	}
	inner, cancel := context.WithTimeoutCause(ctx, t.d, t.cause)
	defer cancel()
	err := next.Run(inner)
	if err != nil && context.Cause(inner) == error(t.cause) {
		return &TimeoutError{After: t.d, Err: err}
	}
	return err
}

// Describe reports the timeout.
func (t *Timeout) Describe() Description {
	return Description{Kind: "timeout", Settings: []Setting{setting("after", t.d)}}
}
