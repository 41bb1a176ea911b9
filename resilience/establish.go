package resilience

import "context"

// Establish runs open under p for a result that outlives the call, as a stream does.
// Attempts that fail are made again as p says. What p holds for the result is given
// back when it ends, which must be reported to end, once, with the error it ended
// with or nil for a good end:
//
//   - a [Breaker] of the chain judges the whole life of the result through
//     [Breaker.Allow], rather than the opening alone;
//   - the context of open lives until then, and the deadline of a [Timeout] stays in
//     force.
//
// Every other policy, and a breaker inside a policy that is not a [Chain], sees the
// opening only. closeResult disposes of a result nobody will see, such as that of a
// hedge that lost; nil does nothing. When Establish returns an error, end is nil and
// there is nothing to report.
func Establish[T any](ctx context.Context, p Policy, open func(context.Context) (T, error), closeResult func(T)) (result T, end func(error), err error) {
	o := &opening[T]{open: open, close: closeResult}
	kept := false
	defer func() {
		if !kept {
			o.discard()
		}
	}()
	if p == nil {
		err = o.run(ctx)
	} else {
		err = holding(p).Run(ctx, Next{op: o})
	}
	if err != nil {
		return result, nil, err
	}
	kept = true
	ends := o.ends
	return o.result, func(err error) { endAll(ends, err) }, nil
}

// opening is the operation of Establish.
type opening[T any] struct {
	open    func(context.Context) (T, error)
	close   func(T)
	result  T
	present bool
	ends    []func(error) // innermost first
}

func (o *opening[T]) run(ctx context.Context) error {
	o.discard()
	inner, cancel := context.WithCancel(ctx)
	opened := false
	defer func() {
		if !opened {
			cancel()
		}
	}()
	var err error
	o.result, err = o.open(inner)
	if opened = err == nil; opened {
		o.present = true
		o.ends = append(o.ends, func(error) { cancel() })
	}
	return err
}

func (o *opening[T]) fork() operation { return &opening[T]{open: o.open, close: o.close} }

func (o *opening[T]) adopt(fork operation) {
	o.discard()
	f := fork.(*opening[T])
	o.result, o.present, o.ends = f.result, f.present, f.ends
	f.present, f.ends = false, nil
}

func (o *opening[T]) discard() {
	result, present, ends := o.result, o.present, o.ends
	var zero T
	o.result, o.present, o.ends = zero, false, nil
	if present && o.close != nil {
		o.close(result)
	}
	endAll(ends, context.Canceled)
}

// endAll goes from the inside out: a breaker must judge before the context it was
// called with ends.
func endAll(ends []func(error), err error) {
	for _, end := range ends {
		end(err)
	}
}

func (o *opening[T]) retain(_ context.Context, release func()) bool {
	return o.hold(func(error) { release() })
}

func (o *opening[T]) hold(end func(error)) bool {
	if o.present {
		o.ends = append(o.ends, end)
	}
	return o.present
}

// holder is an operation whose result goes on after the run: end is told how it
// ended.
type holder interface{ hold(end func(error)) bool }

func (n Next) hold(end func(error)) bool {
	h, ok := n.op.(holder)
	return ok && h.hold(end)
}

// holding replaces the breakers of p by ones that hold on.
func holding(p Policy) Policy {
	switch p := p.(type) {
	case *Breaker:
		return heldBreaker{p}
	case *chain:
		held := make(chain, len(*p))
		for i, member := range *p {
			held[i] = holding(member)
		}
		return &held
	default:
		return p
	}
}

// heldBreaker keeps its permit until the result of the call has ended.
type heldBreaker struct{ *Breaker }

func (b heldBreaker) Run(ctx context.Context, next Next) error {
	done, err := b.Allow(ctx)
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned {
			done(errNoReturn)
		}
	}()
	err = next.Run(ctx)
	returned = true
	if err != nil || !(Next{op: next.op}).hold(done) {
		done(err)
	}
	return err
}
