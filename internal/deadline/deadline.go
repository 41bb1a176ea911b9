// Package deadline makes contexts with a timeout that cost nothing until somebody
// waits for them.
//
//	ctx := deadline.At(parent, start.Add(30*time.Second))
//	defer ctx.End()
//	resp, err := handle(ctx, req)
//
// context.WithDeadline starts a timer and enters the context into its parent, on every
// request, for handlers of which most never look. Here that happens on the first call
// of Done, which everything that waits or derives a cancelable context makes; a
// handler that only computes asks Err, which reads the clock.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is a context.Context with a deadline. Safe for concurrent use.
type Context struct {
	context.Context // the parent
	at              time.Time

	mu    sync.Mutex
	ended bool
	stop  context.CancelFunc
	timed atomic.Pointer[context.Context] // nil until somebody waits
}

// At returns a context that ends at a time, or when parent does, or with End, which
// must be called.
func At(parent context.Context, at time.Time) *Context {
	if earlier, ok := parent.Deadline(); ok && earlier.Before(at) {
		at = earlier
	}
	return &Context{Context: parent, at: at}
}

// End cancels the context. Further calls do nothing. A deadline that has passed
// before and that nobody has noticed counts for nothing.
func (c *Context) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.stop != nil {
		c.stop()
	}
}

// Deadline returns the earlier of the parent's deadline and its own.
func (c *Context) Deadline() (time.Time, bool) { return c.at, true }

// Done starts the timer.
func (c *Context) Done() <-chan struct{} { return c.wait().Done() }

func (c *Context) wait() context.Context {
	if timed := c.timed.Load(); timed != nil {
		return *timed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if timed := c.timed.Load(); timed != nil {
		return *timed
	}
	var timed context.Context
	if c.ended { // before the deadline, as far as anybody knows
		timed, c.stop = context.WithCancel(c.Context)
		c.stop()
	} else {
		timed, c.stop = context.WithDeadline(c.Context, c.at)
	}
	c.timed.Store(&timed)
	return timed
}

// Err returns why the context has ended, nil before that.
func (c *Context) Err() error {
	if timed := c.timed.Load(); timed != nil {
		return (*timed).Err()
	}
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended || c.Context.Err() != nil || !time.Now().Before(c.at) {
		return c.wait().Err() // which stays what it is from now on
	}
	return nil
}

// Value returns the parent's value. Contexts derived from this one find by it, once
// Done was called, the context whose end is theirs.
func (c *Context) Value(key any) any {
	if timed := c.timed.Load(); timed != nil {
		return (*timed).Value(key)
	}
	return c.Context.Value(key)
}
