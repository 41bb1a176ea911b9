package resilience

import (
	"fmt"
	"time"
)

// OpenError reports that a breaker turned the call away. The operation did not
// run. All calls rejected in the same episode and state share one OpenError, which
// must not be changed.
type OpenError struct {
	Name  string
	State State // Open, or HalfOpen while its probes are under way
	// Until is when calls are admitted again; zero if unknown: half-open, or forced
	// open.
	Until time.Time
	// Cause is the error that opened the breaker, nil when slow calls or Trip did. It
	// is not part of the error chain: it belonged to another call.
	Cause error
}

// Error names the breaker, its state and, as of now, when to come back.
func (e *OpenError) Error() string {
	if wait, ok := e.RetryAfter(); ok {
		return fmt.Sprintf("resilience: pass breaker %q: %v for another %v", e.Name, e.State, wait)
	}
	return fmt.Sprintf("resilience: pass breaker %q: %v", e.Name, e.State)
}

// Is matches ErrOpen and ErrRejected.
func (e *OpenError) Is(target error) bool { return target == ErrOpen || target == ErrRejected }

// NotExecuted reports true.
func (e *OpenError) NotExecuted() bool { return true }

// Retryable reports true.
func (e *OpenError) Retryable() bool { return true }

// RetryAfter reports the time left until Until, 0 once that has passed; false if
// Until is not known.
func (e *OpenError) RetryAfter() (time.Duration, bool) {
	if e.Until.IsZero() {
		return 0, false
	}
	return max(0, time.Until(e.Until)), true
}

// State is the state of a [Breaker].
type State uint8

const (
	// Closed: calls pass and are measured.
	Closed State = iota
	// Open: calls are rejected until the open time is over.
	Open
	// HalfOpen: a few calls, the probes, pass and decide.
	HalfOpen
)

// String returns "closed", "open" or "half-open".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	default:
		return "invalid"
	}
}
