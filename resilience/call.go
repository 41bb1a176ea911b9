package resilience

import "context"

// Do runs fn under p. A nil p runs fn as it is.
func Do(ctx context.Context, p Policy, fn func(context.Context) error) error {
	if p == nil {
		return fn(ctx)
	}
	return p.Run(ctx, Next{op: opFunc(fn)})
}

// Call runs fn under p and returns the result of the last attempt together with
// the policy's verdict. When p rejects the call before fn ran, the result is the
// zero value. A nil p runs fn as it is. Call itself costs one allocation.
func Call[T any](ctx context.Context, p Policy, fn func(context.Context) (T, error), opts ...CallOption[T]) (T, error) {
	c := &call[T]{fn: fn}
	for _, opt := range opts {
		opt(c)
	}
	var err error
	if p == nil {
		err = c.run(ctx)
	} else {
		err = p.Run(ctx, Next{op: c})
	}
	if err != nil && c.orElse != nil {
		c.replace()
		return c.orElse(ctx, err)
	}
	return c.result, err
}

// Wrap binds p to fn. The function returned is safe for concurrent use if fn is.
func Wrap[T any](p Policy, fn func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) { return Call(ctx, p, fn) }
}

// CallOption adjusts one Call.
type CallOption[T any] func(*call[T])

// FailIf turns a result into an error for the policies: a non-nil error from
// check counts as the operation's failure. The result is still returned beside
// the error. check runs only when the operation itself succeeded.
func FailIf[T any](check func(T) error) CallOption[T] {
	return func(c *call[T]) { c.failIf = check }
}

// OrElse supplies the answer when the policies give up: it receives the error and
// returns what Call returns. It runs outside every policy, with the caller's ctx.
func OrElse[T any](fallback func(context.Context, error) (T, error)) CallOption[T] {
	return func(c *call[T]) { c.orElse = fallback }
}

// Discard receives results that nobody will see: those that FailIf refused and a
// later attempt or OrElse replaced, and those of hedges that lost. It is the place
// to close a response body, and runs on whichever goroutine finds out.
func Discard[T any](dispose func(T)) CallOption[T] {
	return func(c *call[T]) { c.dispose = dispose }
}

// call is one typed operation with its result slot. Policies run attempts one
// after another, or each on a fork of its own, so the slot needs no lock.
type call[T any] struct {
	fn      func(context.Context) (T, error)
	failIf  func(T) error
	orElse  func(context.Context, error) (T, error)
	dispose func(T)
	result  T
	present bool // result is one of fn without error
	refused bool // by failIf
}

func (c *call[T]) run(ctx context.Context) error {
	c.replace()
	var err error
	c.result, err = c.fn(ctx)
	c.present = err == nil
	if err == nil && c.failIf != nil {
		err = c.failIf(c.result)
		c.refused = err != nil
	}
	return err
}

// replace makes room for another result.
func (c *call[T]) replace() {
	if c.refused {
		c.discard()
		return
	}
	var zero T
	c.result, c.present = zero, false
}

func (c *call[T]) discard() {
	old, present := c.result, c.present
	var zero T
	c.result, c.present, c.refused = zero, false, false
	if present && c.dispose != nil {
		c.dispose(old)
	}
}

func (c *call[T]) fork() operation {
	return &call[T]{fn: c.fn, failIf: c.failIf, dispose: c.dispose}
}

func (c *call[T]) adopt(fork operation) {
	c.replace()
	f := fork.(*call[T])
	c.result, c.present, c.refused = f.result, f.present, f.refused
}
