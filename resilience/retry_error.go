package resilience

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// StopReason says why a [Retry] made no further attempt.
type StopReason string

// The reasons to stop.
const (
	StopAttempts     StopReason = "attempts exhausted"
	StopNotRetryable StopReason = "error is not retryable"
	StopDeadline     StopReason = "next delay does not fit the deadline"
	StopElapsed      StopReason = "next delay does not fit the elapsed time allowed"
	StopRetryAfter   StopReason = "callee asks for a longer wait than allowed"
	StopBackoff      StopReason = "backoff stopped"
	StopContext      StopReason = "context done"
	StopBudget       StopReason = "budget spent"
)

// RetryError reports that all attempts failed. It matches, with [errors.Is] and
// [errors.As], the error of every attempt in Errs, the last one first, and after
// them the context's error when the context was the reason to stop.
type RetryError struct {
	Name     string
	Attempts int // attempts made; 0 when the context was done from the start
	// Errs has one error per attempt, in order. Of more than 16 attempts it keeps the
	// first 8, which tell how it began, and the last 8.
	Errs   []error
	Reason StopReason

	ctxErr  error
	reached bool // by an attempt that Errs no longer has
}

const errsKept = 16 // even: as many of the first as of the last

// add appends the error of one more attempt.
func (e *RetryError) add(err error) {
	e.Attempts++
	if len(e.Errs) == errsKept {
		e.reached = e.reached || !notExecuted(e.Errs[errsKept/2])
		e.Errs = slices.Delete(e.Errs, errsKept/2, errsKept/2+1)
	}
	e.Errs = append(e.Errs, err)
}

// Error names the reason and the last attempt's error.
func (e *RetryError) Error() string {
	var b strings.Builder
	b.WriteString("resilience: retry")
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	fmt.Fprintf(&b, ": %s after %d attempt", e.Reason, e.Attempts)
	if e.Attempts != 1 {
		b.WriteByte('s')
	}
	if last := e.last(); last != nil {
		fmt.Fprintf(&b, ": %v", last)
	} else if e.ctxErr != nil {
		fmt.Fprintf(&b, ": %v", e.ctxErr)
	}
	return b.String()
}

// Unwrap returns the attempts' errors, last first, and the context's error.
func (e *RetryError) Unwrap() []error {
	errs := make([]error, 0, len(e.Errs)+1)
	for i := len(e.Errs) - 1; i >= 0; i-- {
		errs = append(errs, e.Errs[i])
	}
	if e.ctxErr != nil {
		errs = append(errs, e.ctxErr)
	}
	return errs
}

func (e *RetryError) last() error {
	if len(e.Errs) == 0 {
		return nil
	}
	return e.Errs[len(e.Errs)-1]
}

// Retryable reports what the last attempt's error says; false when the caller's
// context or the error itself ended the retry.
func (e *RetryError) Retryable() bool {
	switch e.Reason {
	case StopNotRetryable, StopContext:
		return false
	default:
		return retryable(e.last())
	}
}

// RetryAfter reports the wish of the last attempt's error.
func (e *RetryError) RetryAfter() (time.Duration, bool) { return retryAfter(e.last()) }

// NotExecuted reports whether no attempt reached the callee.
func (e *RetryError) NotExecuted() bool {
	return !e.reached && !slices.ContainsFunc(e.Errs, func(err error) bool { return !notExecuted(err) })
}
