package resilience

import "context"

// DoWith is [Do] for an operation that writes its result into something, as
// remote calls do with a reply. Attempts one after another get own. An attempt
// that runs beside others, as hedges do, gets a value of its own: fresh makes it from the
// one of the attempt it was forked from, which it must not change. DoWith returns the value of the attempt
// that counts, which is own unless attempts ran side by side; values of attempts
// that lost may still be written to, so they must not be used again.
func DoWith[A any](ctx context.Context, p Policy, own A, fresh func(own A) A, fn func(context.Context, A) error) (A, error) {
	if p == nil {
		return own, fn(ctx, own)
	}
	s := &slot[A]{value: own, fresh: fresh, fn: fn}
	err := p.Run(ctx, Next{op: s})
	return s.value, err
}

type slot[A any] struct {
	value A
	fresh func(A) A
	fn    func(context.Context, A) error
}

func (s *slot[A]) run(ctx context.Context) error { return s.fn(ctx, s.value) }
func (s *slot[A]) fork() operation {
	return &slot[A]{value: s.fresh(s.value), fresh: s.fresh, fn: s.fn}
}
func (s *slot[A]) adopt(fork operation) { s.value = fork.(*slot[A]).value }
func (s *slot[A]) discard()             {}
