package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/internal/deadline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type key struct{}

func ExampleAt() {
	ctx := deadline.At(context.Background(), time.Now().Add(time.Minute))
	fmt.Println(ctx.Err())
	ctx.End()
	fmt.Println(ctx.Err())
	// Output:
	// <nil>
	// context canceled
}

// Whoever looks, and in whatever order, sees what context.WithTimeout would show.
func TestBehavesLikeWithTimeout(t *testing.T) {
	t.Parallel()
	steps := map[string]func(parent context.CancelFunc, end func()){
		"nothing":          func(context.CancelFunc, func()) {},
		"time passes":      func(context.CancelFunc, func()) { time.Sleep(time.Second) },
		"end":              func(_ context.CancelFunc, end func()) { end() },
		"end twice":        func(_ context.CancelFunc, end func()) { end(); end() },
		"end, then time":   func(_ context.CancelFunc, end func()) { end(); time.Sleep(2 * time.Second) },
		"end, then parent": func(parent context.CancelFunc, end func()) { end(); parent() },
		"parent":           func(parent context.CancelFunc, _ func()) { parent() },
		"parent, then end": func(parent context.CancelFunc, end func()) { parent(); end() },
	}
	looks := map[string]func(context.Context) string{
		"err":  func(ctx context.Context) string { return fmt.Sprint(ctx.Err()) },
		"done": func(ctx context.Context) string { return fmt.Sprint(closed(ctx), ctx.Err()) },
		"derived": func(ctx context.Context) string {
			derived, cancel := context.WithCancel(ctx)
			defer cancel()
			synctest.Wait()
			return fmt.Sprint(closed(derived), derived.Err(), ctx.Err())
		},
		"value": func(ctx context.Context) string { return fmt.Sprint(ctx.Value(key{}), ctx.Value("none")) },
		"cause": func(ctx context.Context) string { ctx.Done(); return fmt.Sprint(context.Cause(ctx)) },
		"when":  func(ctx context.Context) string { at, ok := ctx.Deadline(); return fmt.Sprint(at, ok) },
	}
	for stepName, step := range steps {
		for lookName, look := range looks {
			for _, early := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					root, cancelRoot := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
					defer cancelRoot()
					want, cancelWant := context.WithTimeout(root, time.Second)
					defer cancelWant()
					got := deadline.At(root, time.Now().Add(time.Second))
					defer got.End()
					if early {
						got.Done()
					}
					step(cancelRoot, func() { cancelWant(); got.End() })
					synctest.Wait()
					if g, w := look(got), look(want); g != w {
						t.Errorf("%s, %s, waited for before: %v: got %s, want %s", stepName, lookName, early, g, w)
					}
				})
			}
		}
	}
}

func closed(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// What Err has said once stays true, although the parent ends later.
func TestErrDoesNotChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		ctx := deadline.At(parent, time.Now().Add(time.Second))
		defer ctx.End()
		time.Sleep(time.Second)
		first := ctx.Err()
		cancel()
		if second := ctx.Err(); !errors.Is(first, context.DeadlineExceeded) || second != first {
			t.Errorf("Err said %v, then %v", first, second)
		}
	})
}

// A derived context ends with this one, at the deadline, while it is waited for.
func TestDerivedContextsWakeUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := deadline.At(t.Context(), time.Now().Add(time.Second))
		defer ctx.End()
		derived, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		start := time.Now()
		<-derived.Done()
		if took := time.Since(start); took != time.Second || derived.Err() != context.DeadlineExceeded {
			t.Errorf("derived context ended after %v with %v", took, derived.Err())
		}
	})
}

func TestParentsEarlierDeadlineWins(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ctx := deadline.At(parent, time.Now().Add(time.Hour))
	defer ctx.End()
	got, _ := ctx.Deadline()
	if want, _ := parent.Deadline(); !got.Equal(want) {
		t.Errorf("deadline %v, want %v", got, want)
	}
}

func TestNobodyWaitsCostsOneAllocation(t *testing.T) {
	parent := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		ctx := deadline.At(parent, time.Now().Add(time.Minute))
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		ctx.End()
	}); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}
