package resilience

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Outcome is what a call says about the health of the callee.
type Outcome uint8

const (
	// Success: the callee answered, if only to refuse the request.
	Success Outcome = iota
	// Failure: the callee did not do its work.
	Failure
	// Neutral: the call says nothing about the callee, for instance because the
	// caller gave up or a policy further in turned it away.
	Neutral
)

// String returns "success", "failure" or "neutral".
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Neutral:
		return "neutral"
	default:
		return "invalid"
	}
}

// Classifier judges the error of a call made with ctx. err is never nil: a call
// without error is a success. It runs outside every lock, possibly concurrently.
type Classifier func(ctx context.Context, err error) Outcome

// Classify is the default [Classifier].
//
//   - The caller cancelled ctx: Neutral, whatever the error says, because drivers
//     turn context errors into strings. A deadline that passed is a Failure.
//   - A rejection by a policy further in ([ErrRejected]): Neutral, unless
//     another attempt of the same call got through and failed.
//   - An error with StatusCode() in the range 400 to 499: Success, the callee is
//     well and the request was not. 408, 429 and 499 stay failures.
//   - Everything else: Failure.
func Classify(ctx context.Context, err error) Outcome {
	switch {
	case err == nil:
		return Success
	case errors.Is(ctx.Err(), context.Canceled):
		return Neutral
	case errors.Is(err, ErrRejected) && !executed(err):
		return Neutral
	}
	if coded, ok := errors.AsType[interface {
		error
		StatusCode() int
	}](err); ok {
		switch code := coded.StatusCode(); code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, 499:
			return Failure
		default:
			if code >= 400 && code < 500 {
				return Success
			}
		}
	}
	return Failure
}

// The readers below are how errors cross package borders: by method, found
// anywhere in the chain, the outermost first.

type executionError interface {
	error
	NotExecuted() bool
}

func notExecuted(err error) bool {
	e, ok := errors.AsType[executionError](err)
	return ok && e.NotExecuted()
}

// executed reports whether err says that the callee was reached, as the error of
// several attempts may; it is not the opposite of notExecuted.
func executed(err error) bool {
	e, ok := errors.AsType[executionError](err)
	return ok && !e.NotExecuted()
}

func retryAfter(err error) (time.Duration, bool) {
	e, ok := errors.AsType[interface {
		error
		RetryAfter() (time.Duration, bool)
	}](err)
	if !ok {
		return 0, false
	}
	d, ok := e.RetryAfter()
	return d, ok && d >= 0
}

// retryable reports what err says about itself; unknown errors may be retried.
func retryable(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err)
	return !ok || e.Retryable()
}
