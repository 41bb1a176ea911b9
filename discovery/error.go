package discovery

import "errors"

// ErrNoInstance says that no instance could take a call. The errors of
// [Pool.Pick] match it with errors.Is. It is Retryable and NotExecuted.
var ErrNoInstance error = noInstance{}

// ErrClosed says that the pool was closed before the call.
var ErrClosed = errors.New("discovery: pool is closed")

// ErrDeregistered says that a Registration is over and takes no more updates.
var ErrDeregistered = errors.New("discovery: instance is deregistered")

type noInstance struct{}

func (noInstance) Error() string     { return "discovery: no instance" }
func (noInstance) Retryable() bool   { return true }
func (noInstance) NotExecuted() bool { return true }

// NoInstanceError is what [Pool.Pick] returns when nothing can take the call. It
// matches [ErrNoInstance].
type NoInstanceError struct {
	Service string // the service asked for
	Known   int    // instances in the snapshot, whatever their health
	Err     error  // the last failure to dial or to resolve, nil when there was none
}

// Error returns the message with the cause, if there is one.
func (e *NoInstanceError) Error() string {
	msg := "discovery: pick " + e.Service + ": no instance"
	if e.Known > 0 {
		msg = "discovery: pick " + e.Service + ": no instance is passing and reachable"
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Is matches ErrNoInstance.
func (e *NoInstanceError) Is(target error) bool { return target == ErrNoInstance }

// Unwrap returns Err.
func (e *NoInstanceError) Unwrap() error { return e.Err }

// Retryable returns true: an instance may come back.
func (e *NoInstanceError) Retryable() bool { return true }

// NotExecuted returns true: nobody saw the call.
func (e *NoInstanceError) NotExecuted() bool { return true }
