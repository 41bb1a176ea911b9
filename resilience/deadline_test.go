package resilience_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

type ctxKey struct{}

// The context of a Timeout must be told apart from context.WithTimeoutCause by
// its cost alone: every scene is played with both, and what is seen must agree.
func TestTimeoutContextBehavesAsTheStandardOne(t *testing.T) {
	t.Parallel()
	type scene func(t *testing.T, ctx context.Context, cancelCaller context.CancelCauseFunc, see func(...any))
	errCaller := errors.New("caller: gone")
	kind := func(err error) any { // causes differ in identity, not in meaning
		if errors.Is(err, resilience.ErrTimeout) {
			return "timeout"
		}
		return err
	}
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for _, tt := range []struct {
		name string
		play scene
	}{
		{"alive", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			deadline, ok := ctx.Deadline()
			see(time.Until(deadline), ok, ctx.Err(), context.Cause(ctx), ctx.Value(ctxKey{}), closed(ctx.Done()), ctx.Err(), ctx.Value(ctxKey{}))
		}},
		{"deadline passes, Done never asked", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			time.Sleep(2 * time.Second)
			see(ctx.Err(), kind(context.Cause(ctx)), closed(ctx.Done()))
		}},
		{"deadline passes, cause asked first", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			time.Sleep(2 * time.Second)
			see(kind(context.Cause(ctx)), ctx.Err())
		}},
		{"deadline passes while waiting", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			start := time.Now()
			<-ctx.Done()
			see(time.Since(start), ctx.Err(), kind(context.Cause(ctx)))
		}},
		{"an error stays what it was", func(_ *testing.T, ctx context.Context, cancel context.CancelCauseFunc, see func(...any)) {
			time.Sleep(2 * time.Second)
			see(ctx.Err())
			cancel(errCaller)
			see(ctx.Err(), kind(context.Cause(ctx)))
		}},
		{"caller cancels with a cause", func(_ *testing.T, ctx context.Context, cancel context.CancelCauseFunc, see func(...any)) {
			cancel(errCaller)
			see(ctx.Err(), context.Cause(ctx), closed(ctx.Done()))
			time.Sleep(2 * time.Second)
			see(ctx.Err(), context.Cause(ctx))
		}},
		{"caller cancels while waiting", func(_ *testing.T, ctx context.Context, cancel context.CancelCauseFunc, see func(...any)) {
			time.AfterFunc(time.Second/2, func() { cancel(errCaller) })
			start := time.Now()
			<-ctx.Done()
			see(time.Since(start), ctx.Err(), context.Cause(ctx))
		}},
		{"caller's later deadline passes too", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			time.Sleep(5 * time.Hour)
			see(kind(context.Cause(ctx)), ctx.Err(), closed(ctx.Done()))
		}},
		{"child of a child", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			child, cancel := context.WithCancel(context.WithValue(ctx, ctxKey{}, 2))
			defer cancel()
			see(child.Err(), child.Value(ctxKey{}))
			<-child.Done()
			see(child.Err(), kind(context.Cause(child)))
		}},
		{"child with a shorter timeout", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			child, cancel := context.WithTimeoutCause(ctx, time.Second/2, errDown)
			defer cancel()
			<-child.Done()
			see(child.Err(), context.Cause(child), ctx.Err(), closed(ctx.Done()))
		}},
		{"child with a longer timeout", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			deadline, ok := child.Deadline()
			see(time.Until(deadline), ok)
			<-child.Done()
			see(child.Err(), kind(context.Cause(child)))
		}},
		{"child cancelled first", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			child, cancel := context.WithCancel(ctx)
			cancel()
			see(child.Err(), ctx.Err(), closed(ctx.Done()))
		}},
		{"AfterFunc fires", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			fired := make(chan struct{})
			context.AfterFunc(ctx, func() { close(fired) })
			start := time.Now()
			<-fired
			see(time.Since(start))
		}},
		{"AfterFunc stopped", func(_ *testing.T, ctx context.Context, _ context.CancelCauseFunc, see func(...any)) {
			stop := context.AfterFunc(ctx, func() { see("fired") })
			see(stop())
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}},
		{"WithoutCancel", func(_ *testing.T, ctx context.Context, cancel context.CancelCauseFunc, see func(...any)) {
			child := context.WithoutCancel(ctx)
			cancel(errCaller)
			_, ok := child.Deadline()
			see(child.Err(), context.Cause(child), ok, child.Value(ctxKey{}), ctx.Err())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				watch := func(run func(context.Context, func(context.Context) error)) []any {
					var seen []any
					see := func(v ...any) { seen = append(seen, v...) }
					caller, stop := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, 1), 3*time.Hour)
					defer stop()
					caller, cancel := context.WithCancelCause(caller)
					defer cancel(nil)
					var left context.Context
					run(caller, func(ctx context.Context) error {
						left = ctx
						tt.play(t, ctx, cancel, see)
						return nil
					})
					see("after", left.Err(), kind(context.Cause(left)), closed(left.Done()))
					return seen
				}
				want := watch(func(ctx context.Context, fn func(context.Context) error) {
					ctx, cancel := context.WithTimeoutCause(ctx, time.Second, &resilience.TimeoutError{})
					defer cancel()
					_ = fn(ctx)
				})
				timeout := must(resilience.NewTimeout(time.Second))
				got := watch(func(ctx context.Context, fn func(context.Context) error) {
					_ = resilience.Do(ctx, timeout, fn)
				})
				same := len(got) == len(want)
				for i := 0; same && i < len(got); i++ {
					same = got[i] == want[i]
				}
				if !same {
					t.Errorf("seen %v, with the standard context %v", got, want)
				}
			})
		})
	}
}

func TestTimeoutContextEndsWithTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timeout := must(resilience.NewTimeout(time.Second))
		var armed, idle context.Context
		ended := make(chan struct{})
		_ = do(t, timeout, func(ctx context.Context) error {
			armed = ctx
			go func() { <-ctx.Done(); close(ended) }()
			synctest.Wait()
			return nil
		})
		<-ended
		_ = do(t, timeout, func(ctx context.Context) error { idle = ctx; return nil })
		time.Sleep(time.Hour) // what was cancelled in time has not timed out
		for _, ctx := range []context.Context{armed, idle} {
			<-ctx.Done()
			if ctx.Err() != context.Canceled || context.Cause(ctx) != context.Canceled {
				t.Errorf("after the call: %v, %v", ctx.Err(), context.Cause(ctx))
			}
		}
		child, cancel := context.WithCancel(idle)
		defer cancel()
		if child.Err() != context.Canceled {
			t.Errorf("child of an ended context: %v", child.Err())
		}
	})
}

func TestTimeoutContextSurvivesPanic(t *testing.T) {
	t.Parallel()
	timeout := must(resilience.NewTimeout(time.Hour))
	var left context.Context
	func() {
		defer func() { _ = recover() }()
		_ = do(t, timeout, func(ctx context.Context) error { left = ctx; _ = ctx.Done(); panic("boom") })
	}()
	if left.Err() != context.Canceled {
		t.Errorf("after a panic: %v", left.Err())
	}
}

// Many goroutines meet the first Done, the end of the call and each other.
func TestTimeoutContextConcurrently(t *testing.T) {
	t.Parallel()
	outer, inner := must(resilience.NewTimeout(time.Hour)), must(resilience.NewTimeout(time.Minute))
	policy := resilience.Chain(outer, inner)
	for range 200 {
		var wg sync.WaitGroup
		_ = do(t, policy, func(ctx context.Context) error {
			begin := make(chan struct{})
			for i := range 8 {
				wg.Go(func() {
					<-begin
					child, cancel := context.WithCancel(ctx)
					defer cancel()
					if i%2 == 0 {
						_ = ctx.Err()
						_ = ctx.Value(ctxKey{})
					}
					<-child.Done()
					<-ctx.Done()
					if child.Err() != context.Canceled || ctx.Err() != context.Canceled {
						t.Errorf("child %v, ctx %v", child.Err(), ctx.Err())
					}
				})
			}
			close(begin)
			return nil
		})
		wg.Wait()
	}
}

func TestTimeoutsNested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		total, attempt := must(resilience.NewTimeout(5*time.Second)), must(resilience.NewTimeout(2*time.Second))
		policy := resilience.Chain(total, attempt)
		var late *resilience.TimeoutError
		if err := do(t, policy, waits); !errors.As(err, &late) || late.After != 2*time.Second {
			t.Errorf("inner: %v", err)
		}
		err := do(t, total, func(ctx context.Context) error {
			time.Sleep(4 * time.Second)
			return resilience.Do(ctx, attempt, waits)
		})
		if !errors.As(err, &late) || late.After != 5*time.Second {
			t.Errorf("outer: %v", err)
		}
		if s := attempt.Stats(); s != (resilience.TimeoutStats{Fired: 1}) {
			t.Errorf("attempt: %+v", s)
		}
	})
}

func TestTimeoutWithNameAndObserver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plain := must(resilience.NewTimeout(time.Second))
		var told []resilience.Event
		named := plain.With("payment", resilience.ObserverFunc(func(_ context.Context, e resilience.Event) { told = append(told, e) }))
		err := do(t, named, waits)
		if len(told) != 1 || told[0] != (resilience.Event{
			Kind: resilience.EventTimeout, Policy: "timeout", Name: "payment", Duration: time.Second, Err: err,
		}) {
			t.Errorf("told %+v", told)
		}
		if got, want := err.Error(), `resilience: call "payment": timed out after 1s`; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
		_ = do(t, named, works)
		if s := named.Stats(); s != (resilience.TimeoutStats{Fired: 1}) || plain.Stats().Fired != 0 {
			t.Errorf("named %+v, plain %+v", s, plain.Stats())
		}
		if named.Name() != "payment" || plain.Name() != "" || named.Describe().Name != "payment" {
			t.Error("names differ")
		}
	})
}

// The look at the clock that a Retry right inside a Timeout saves must not hide
// that the context is done.
func TestRetryInsideATimeoutRunsNothingWithADeadContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timeout, retry := must(resilience.NewTimeout(time.Second)), must(resilience.NewRetry(resilience.RetryConfig{}))
		dead := func(context.Context) error { t.Error("ran"); return nil }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := resilience.Do(ctx, resilience.Chain(timeout, retry), dead); !errors.Is(err, context.Canceled) {
			t.Errorf("caller gone: %v", err)
		}
		err := do(t, resilience.Chain(timeout, retry), func(ctx context.Context) error {
			time.Sleep(2 * time.Second)
			return resilience.Do(ctx, retry, dead)
		})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, resilience.ErrTimeout) {
			t.Errorf("time over: %v", err)
		}
	})
}

// What a timeout has learnt about its operations must not change what they see.
func TestTimeoutOfOperationsThatWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timeout := must(resilience.NewTimeout(time.Second))
		for n := range 70 { // the first is lazy, the next get a timer at once, then it looks again
			start := time.Now()
			err := do(t, timeout, waits)
			if !errors.Is(err, resilience.ErrTimeout) || time.Since(start) != time.Second {
				t.Fatalf("call %d: %v after %v", n, err, time.Since(start))
			}
			var seen context.Context
			_ = do(t, timeout, func(ctx context.Context) error {
				if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) != time.Second {
					t.Errorf("call %d: deadline %v", n, deadline)
				}
				seen = ctx
				return nil
			})
			if !errors.Is(seen.Err(), context.Canceled) {
				t.Fatalf("call %d: after the return %v", n, seen.Err())
			}
		}
		if s := timeout.Stats(); s.Fired != 70 {
			t.Errorf("stats = %+v", s)
		}
	})
}
