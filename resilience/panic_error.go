package resilience

import "fmt"

// PanicError is what a [Hedge] and [SingleFlight.Do] panic with on their callers'
// goroutines when the operation panicked on a goroutine of its own.
type PanicError struct {
	Value any    // what the operation panicked with
	Stack []byte // of the operation
}

// Error gives the value and the stack.
func (p *PanicError) Error() string {
	return fmt.Sprintf("%v\n\nin an operation on a goroutine of its own:\n%s", p.Value, p.Stack)
}

// Unwrap returns the value if it is an error.
func (p *PanicError) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
