package resilience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func waits(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestTimeoutOwnsOnlyItsOwnDeadline(t *testing.T) {
	t.Parallel()
	type setup func(context.Context) (context.Context, context.CancelFunc)
	after := func(d time.Duration) setup {
		return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
	}
	for _, tt := range []struct {
		name    string
		caller  setup
		fn      func(context.Context) error
		ours    bool
		wantErr error
		took    time.Duration
	}{
		{"fires", after(time.Hour), waits, true, context.DeadlineExceeded, time.Second},
		{"stringified error", after(time.Hour), func(ctx context.Context) error { <-ctx.Done(); return errDown }, true, errDown, time.Second},
		{"caller's deadline is earlier", after(time.Second / 2), waits, false, context.DeadlineExceeded, time.Second / 2},
		{"caller cancels", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second/2, cancel)
			return ctx, cancel
		}, waits, false, context.Canceled, time.Second / 2},
		{"plain error in time", after(time.Hour), fails, false, errDown, 0},
		{"result in spite of the timeout", after(time.Hour), func(context.Context) error { time.Sleep(2 * time.Second); return nil }, false, nil, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				timeout := must(resilience.NewTimeout(time.Second))
				ctx, cancel := tt.caller(t.Context())
				defer cancel()
				start := time.Now()
				err := resilience.Do(ctx, timeout, tt.fn)
				if errors.Is(err, resilience.ErrTimeout) != tt.ours || !errors.Is(err, tt.wantErr) {
					t.Errorf("error = %v", err)
				}
				if tt.ours && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v does not match context.DeadlineExceeded", err)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestTimeoutErrorSaysWhetherTheCalleeWasReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bulkhead := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 1}))
		timeout := must(resilience.NewTimeout(time.Second))
		policy := resilience.Chain(timeout, bulkhead)

		go func() {
			_ = resilience.Do(context.Background(), bulkhead, func(context.Context) error {
				time.Sleep(2 * time.Second)
				return nil
			})
		}()
		synctest.Wait()
		err := do(t, policy, works)
		var late *resilience.TimeoutError
		if !errors.As(err, &late) || !late.NotExecuted() || !late.Retryable() || !late.Timeout() {
			t.Errorf("timed out in the queue: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		err = do(t, policy, waits)
		if !errors.As(err, &late) || late.NotExecuted() {
			t.Errorf("timed out in the call: %v", err)
		}
		if got, want := err.Error(), "resilience: call: timed out after 1s"; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
	})
}
