package saga

import "errors"

// Errors of this package. Match them with errors.Is.
var (
	// ErrExists is answered by Start for an id that was used before.
	ErrExists = errors.New("saga: id already exists")
	// ErrNotFound is answered for an id that the store does not hold.
	ErrNotFound = errors.New("saga: not found")
	// ErrFenced means another coordinator has taken the saga, or the node's
	// name, over. Nothing was written.
	ErrFenced = errors.New("saga: fenced: another coordinator took over")
	// ErrUndone is answered by a [Barrier] to a step whose undo came first. It
	// is a refusal: the step had no effect and must not be tried again.
	ErrUndone error = &refusal{errors.New("saga: step was already undone")}
)

type refusal struct{ cause error }

func (r *refusal) Error() string   { return r.cause.Error() }
func (r *refusal) Unwrap() error   { return r.cause }
func (r *refusal) Retryable() bool { return false }

// Refuse marks err as a definite no: the step had no effect and will not have
// one. Use it only when the participant has said so; a timeout is no refusal.
// Refuse(nil) is nil.
func Refuse(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{err}
}

// IsRefused reports whether err is a definite no.
func IsRefused(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// notExecuted reports whether the callee never saw the attempt: an open
// breaker, a full bulkhead.
func notExecuted(err error) bool {
	var e interface{ NotExecuted() bool }
	return errors.As(err, &e) && e.NotExecuted()
}

// permanent reports whether trying again is of no use.
func permanent(err error) bool {
	var e interface{ Retryable() bool }
	return errors.As(err, &e) && !e.Retryable()
}
