package resilience

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// body is an operation whose result needs its context, as an HTTP response does.
type body struct {
	fn       func(context.Context) error
	ctx      context.Context
	releases []func()
	closed   *atomic.Int64
}

func (b *body) run(ctx context.Context) error { b.discard(); b.ctx = ctx; return b.fn(ctx) }
func (b *body) fork() operation               { return &body{fn: b.fn, closed: b.closed} }
func (b *body) adopt(fork operation) {
	b.discard()
	f := fork.(*body)
	b.ctx, b.releases = f.ctx, f.releases
}

func (b *body) discard() {
	for _, release := range b.releases {
		b.closed.Add(1)
		release()
	}
	b.releases = nil
}

func (b *body) retain(_ context.Context, release func()) bool {
	b.releases = append(b.releases, release)
	return true
}

func TestAResultKeepsItsContextUntilItIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timeout, err := NewTimeout(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		attempt, err := NewTimeout(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		hedge, err := NewHedge(HedgeConfig{After: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		retry, err := NewRetry(RetryConfig{Backoff: Fixed(0)})
		if err != nil {
			t.Fatal(err)
		}
		var closed atomic.Int64
		failures := 1
		op := &body{closed: &closed, fn: func(ctx context.Context) error {
			if n := AttemptFromContext(ctx); n == 1 {
				<-ctx.Done() // beaten by the hedge
				return ctx.Err()
			}
			if failures--; failures >= 0 {
				return errNoReturn
			}
			return nil
		}}
		// A chain inside a policy of the user's own hands the offer on.
		policy := Chain(outside{}, timeout, retry, hedge, attempt)
		if err := policy.Run(t.Context(), Next{op: op}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if op.ctx.Err() != nil {
			t.Fatal("the result's context ended with the call")
		}
		if len(op.releases) != 3 { // attempt, hedge, timeout
			t.Fatalf("%d releases", len(op.releases))
		}
		before := closed.Load()
		op.discard()
		if op.ctx.Err() == nil || closed.Load() != before+3 {
			t.Error("closing the result did not end its context")
		}

		// The deadline stays in force while the result is used.
		op.fn = func(context.Context) error { return nil }
		if err := Chain(attempt).Run(t.Context(), Next{op: op}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-op.ctx.Done()
		if time.Since(start) != time.Minute || !errors.Is(context.Cause(op.ctx), ErrTimeout) {
			t.Errorf("ended after %v: %v", time.Since(start), context.Cause(op.ctx))
		}
		op.discard()
	})
}

type outside struct{}

func (outside) Run(ctx context.Context, next Next) error { return Chain(passes{}).Run(ctx, next) }
func (outside) Describe() Description                    { return Description{Kind: "outside"} }

type passes struct{}

func (passes) Run(ctx context.Context, next Next) error { return next.Run(ctx) }
func (passes) Describe() Description                    { return Description{Kind: "passes"} }
