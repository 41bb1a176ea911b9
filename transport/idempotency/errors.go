package idempotency

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/armature-go/armature/transport"
)

// What a caller is told. errors.Is holds across the wire.
var (
	// ErrMissing answers 400 to a call without a key where one is required.
	ErrMissing = notExecuted(transport.Errorf(transport.InvalidArgument, "IDEMPOTENCY_KEY_MISSING",
		"this operation needs an Idempotency-Key"))

	// ErrReused answers 422 to a key that came before with a different request.
	ErrReused = transport.Errorf(transport.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED",
		"the Idempotency-Key belongs to a different request").WithStatus(http.StatusUnprocessableEntity)

	// ErrInProgress answers 409 to a duplicate that has waited for as long as
	// Config.Wait. It is retryable, with the same key.
	ErrInProgress = transport.Errorf(transport.Aborted, "IDEMPOTENCY_KEY_IN_PROGRESS",
		"the first request with this Idempotency-Key is still running").WithRetryAfter(time.Second)

	// ErrUnreplayable answers 409 to a duplicate of a call that ran, but whose result
	// was too large to keep or cannot be read.
	ErrUnreplayable = transport.Errorf(transport.FailedPrecondition, "IDEMPOTENCY_RESULT_LOST",
		"the request was carried out before, and its result was not kept")

	// ErrUnavailable answers 503 to a call that could not be claimed.
	ErrUnavailable = notExecuted(transport.Errorf(transport.Unavailable, "IDEMPOTENCY_UNAVAILABLE",
		"the service cannot tell whether the request is a repetition"))

	// ErrInterrupted answers 409 to a call whose lease ran out while it was running:
	// somebody else may be running it now. It is retryable, with the same key.
	ErrInterrupted = transport.Errorf(transport.Aborted, "IDEMPOTENCY_INTERRUPTED",
		"the request was interrupted, and may have been carried out")
)

func notExecuted(e *transport.Error) *transport.Error {
	e.Details.NotExecuted = true
	return e
}

// definitive reports whether running the operation again would give the same error.
func definitive(err error) bool {
	var retryable interface{ Retryable() bool }
	if errors.As(err, &retryable) && retryable.Retryable() {
		return false
	}
	e := transport.AsError(err)
	if e.NotExecuted() || e.Retryable() {
		return false
	}
	switch e.Code {
	case transport.InvalidArgument, transport.NotFound, transport.AlreadyExists, transport.PermissionDenied,
		transport.FailedPrecondition, transport.OutOfRange:
		return true
	}
	return false
}

func badConfig(what, field string, value any, rule, fix string) error {
	return fmt.Errorf("idempotency: configure %s: %s = %v: %s; %s", what, field, value, rule, fix)
}
