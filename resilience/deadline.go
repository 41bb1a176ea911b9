package resilience

import (
	"context"
	"errors"
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
	cause    *TimeoutError
	real     atomic.Pointer[realContext] // nil while nobody asked
	fresh    bool                        // the Retry that runs next takes it off and need not ask the clock
}

type realContext struct {
	context.Context
	cancel context.CancelFunc
}

// endedUnasked stands for a context that was over before anybody asked.
var endedUnasked = new(realContext)

func (c *deadlineContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *deadlineContext) Done() <-chan struct{} { return c.arm().Done() }

func (c *deadlineContext) Err() error {
	if c.real.Load() == nil && c.parent.Err() == nil && time.Until(c.deadline) > 0 {
		return nil
	}
	return c.arm().Err()
}

// Value asks the real context first, because that is how package context finds the
// parent of a child and the cause of an error.
func (c *deadlineContext) Value(key any) any {
	if c.asked() {
		return c.real.Load().Value(key)
	}
	return c.parent.Value(key)
}

// arm makes the real context, once.
func (c *deadlineContext) arm() context.Context {
	for {
		r := c.real.Load()
		if r != nil && r != endedUnasked {
			return r
		}
		made := c.make(r == endedUnasked)
		if c.real.CompareAndSwap(r, made) {
			return made
		}
		made.cancel() // somebody was faster, and nobody has seen this one
	}
}

// make returns a context of package context for what has become of c.
func (c *deadlineContext) make(ended bool) *realContext {
	if ended { // in time, whatever the clock or the parent say by now
		ctx, cancel := context.WithCancel(context.WithoutCancel(c.parent))
		cancel()
		return &realContext{ctx, cancel}
	}
	parent := c.parent
	if errors.Is(parent.Err(), context.DeadlineExceeded) { // ours was earlier
		parent = context.WithoutCancel(parent)
	}
	ctx, cancel := context.WithDeadlineCause(parent, c.deadline, c.cause)
	return &realContext{ctx, cancel}
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
	if !c.real.CompareAndSwap(nil, endedUnasked) && c.asked() {
		c.real.Load().cancel()
	}
}

// asked reports whether there is a real context.
func (c *deadlineContext) asked() bool {
	r := c.real.Load()
	return r != nil && r != endedUnasked
}
