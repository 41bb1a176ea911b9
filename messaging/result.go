package messaging

import (
	"errors"
	"fmt"
	"time"
)

// Release, returned by a handler, gives the message back to the broker without counting the attempt, together with the
// messages of the same key that wait behind it. It is delivered again after the first backoff delay, perhaps to another
// process. Wrapping it works too.
var Release = errors.New("messaging: released by the handler") //nolint:staticcheck // a result, spelled like the others

// Permanent says that err will not go away: the message goes to the dead letters at once. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// RetryAfter asks for the next attempt after d instead of the usual backoff. The attempt counts.
// RetryAfter(d, nil) is a retry without a reason, never success.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("messaging: handler asked for a retry")
	}
	return &retryAfterError{err, d}
}

// Drop acknowledges the message without having handled it. The reason is logged and counted.
func Drop(reason string) error { return &dropError{reason} }

type permanentError struct{ err error }

func (e *permanentError) Error() string   { return e.err.Error() }
func (e *permanentError) Unwrap() error   { return e.err }
func (e *permanentError) Retryable() bool { return false }

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string                     { return e.err.Error() }
func (e *retryAfterError) Unwrap() error                     { return e.err }
func (e *retryAfterError) Retryable() bool                   { return true }
func (e *retryAfterError) RetryAfter() (time.Duration, bool) { return e.after, true }

type dropError struct{ reason string }

func (e *dropError) Error() string { return fmt.Sprintf("messaging: dropped: %s", e.reason) }

type action uint8

const (
	actAck action = iota
	actDrop
	actRelease
	actRetry
	actDead
)

// classify reads a handler's result. uncounted is set for failures whose callee never saw the call.
func classify(err error) (a action, after time.Duration, exact, uncounted bool) {
	var (
		perm    *permanentError
		drop    *dropError
		later   interface{ RetryAfter() (time.Duration, bool) }
		skipped interface{ NotExecuted() bool }
	)
	switch {
	case err == nil:
		return actAck, 0, false, false
	case errors.As(err, &drop):
		return actDrop, 0, false, false
	case errors.Is(err, Release):
		return actRelease, 0, false, false
	case errors.As(err, &perm):
		return actDead, 0, false, false
	}
	if errors.As(err, &later) {
		after, exact = later.RetryAfter()
	}
	uncounted = errors.As(err, &skipped) && skipped.NotExecuted()
	return actRetry, max(after, 0), exact, uncounted
}
