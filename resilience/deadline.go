package resilience

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// deadlineContext is context.WithDeadlineCause for callees that never wait: it
// answers Deadline and Err from the clock and makes the real context, with its
// timer and its link to the parent, when somebody first asks for Done or is to be
// told an error. From then on the real context gives every answer, so that nothing
// once said changes and children made by package context link to it without a
// goroutine. The caller must know that deadline is earlier than the parent's.
//
// Two differences remain, both about what nobody asked in time. When the deadline
// passed and then the parent was cancelled, the cancellation counts as the earlier
// one. And what befell the parent before end is told afterwards as plain Canceled.
type deadlineContext struct {
	parent   context.Context
	deadline time.Time
	cause    error

	state atomic.Uint32
	fresh bool       // the Retry that runs next takes it off and need not ask the clock
	mu    sync.Mutex // held to leave any state but idle for armed
	real  context.Context
	stop  context.CancelFunc
}

const (
	deadlineIdle  uint32 = iota // the clock answers
	deadlineArmed               // real is set and answers
	deadlineEnded               // over before anybody waited
)

func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *deadlineContext) Done() <-chan struct{} { return c.arm().Done() }

func (c *deadlineContext) Err() error {
	if c.state.Load() == deadlineIdle && c.parent.Err() == nil && time.Until(c.deadline) > 0 {
		return nil
	}
	return c.arm().Err()
}

// Value asks the real context first, because that is how package context finds the
// parent of a child and the cause of an error.
func (c *deadlineContext) Value(key any) any {
	if c.state.Load() == deadlineArmed {
		return c.real.Value(key)
	}
	return c.parent.Value(key)
}

func (c *deadlineContext) arm() context.Context {
	if c.state.Load() == deadlineArmed {
		return c.real
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Load() == deadlineArmed {
		return c.real
	}
	parent := c.parent
	if errors.Is(parent.Err(), context.DeadlineExceeded) { // ours was earlier
		parent = context.WithoutCancel(parent)
	}
	c.real, c.stop = context.WithDeadlineCause(parent, c.deadline, c.cause)
	if !c.state.CompareAndSwap(deadlineIdle, deadlineArmed) {
		// It ended in time, whatever the clock or the parent say by now.
		c.stop()
		c.real, c.stop = context.WithCancel(context.WithoutCancel(c.parent))
		c.stop()
		c.state.Store(deadlineArmed)
	}
	return c.real
}

// doneAtStart is ctx.Err() for a Retry: a look at the clock is saved when a Timeout
// made ctx for it this moment.
func doneAtStart(ctx context.Context) error {
	if c, ok := ctx.(*deadlineContext); ok && c.fresh {
		c.fresh = false
		ctx = c.parent
	}
	return ctx.Err()
}

// end cancels the context, as the function that context.WithDeadline returns does.
func (c *deadlineContext) end() {
	if c.state.CompareAndSwap(deadlineIdle, deadlineEnded) || c.state.Load() == deadlineEnded {
		return
	}
	c.stop()
}
