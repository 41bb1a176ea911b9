package messaging

import (
	"errors"
	"fmt"
)

// ErrClosed is returned by a Broker after Close and by a driver whose connection was closed for good.
var ErrClosed = errors.New("messaging: closed")

// PublishError says what became of each message of a Publish call.
type PublishError struct {
	Topic string
	Errs  []error // one per message, in call order; nil where the message is stored
}

// Error names the first failure and how many there are.
func (e *PublishError) Error() string {
	var first error
	for _, err := range e.Errs {
		if err != nil {
			first = err
			break
		}
	}
	return fmt.Sprintf("messaging: publish to %q: %d of %d messages failed: %v", e.Topic, len(e.Failed()), len(e.Errs), first)
}

// Unwrap returns the failures.
func (e *PublishError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Failed returns the indexes of the messages that were not (known to be) stored.
func (e *PublishError) Failed() []int {
	var failed []int
	for i, err := range e.Errs {
		if err != nil {
			failed = append(failed, i)
		}
	}
	return failed
}

// PanicError is what a panicking handler is taken to have returned.
type PanicError struct {
	Value any
	Stack string
}

func (e *PanicError) Error() string { return fmt.Sprintf("messaging: handler panicked: %v", e.Value) }

// Unwrap returns the panic value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
