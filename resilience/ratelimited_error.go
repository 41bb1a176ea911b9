package resilience

import (
	"fmt"
	"time"
)

// RateLimitedError reports that a rate limiter had no permit. The operation did
// not run.
type RateLimitedError struct {
	Name string
	// Key is whose permits were gone, "" for a limiter without keys. Error leaves it
	// out: it may be an address or another piece of personal data.
	Key   string
	After time.Duration // time until the permits can be had, 0 if never or unknown
	// Err is why waiting was no help: the context's error, with
	// [context.DeadlineExceeded] standing for a deadline that would have passed; the
	// error of a store that is away; more permits asked for than there ever are. Nil
	// when the limit alone decided.
	Err error
}

// Error names the limiter and when to come back.
func (e *RateLimitedError) Error() string {
	s := fmt.Sprintf("resilience: pass rate limiter %q: ", e.Name)
	switch {
	case e.Err != nil && e.After > 0:
		return s + fmt.Sprintf("limited for another %v: %v", e.After, e.Err)
	case e.Err != nil:
		return s + e.Err.Error()
	case e.After > 0:
		return s + fmt.Sprintf("limited for another %v", e.After)
	default:
		return s + "limited"
	}
}

// Is matches ErrRateLimited and ErrRejected.
func (e *RateLimitedError) Is(target error) bool {
	return target == ErrRateLimited || target == ErrRejected
}

// Unwrap returns Err.
func (e *RateLimitedError) Unwrap() error { return e.Err }

// NotExecuted reports true.
func (e *RateLimitedError) NotExecuted() bool { return true }

// Retryable reports whether another try may pass: not when the context ended, nor
// when more was asked for than the limit ever grants.
func (e *RateLimitedError) Retryable() bool {
	return e.Err == nil || e.After > 0 && !isContextError(e.Err)
}

// RetryAfter reports After.
func (e *RateLimitedError) RetryAfter() (time.Duration, bool) { return e.After, e.After > 0 }
