package resilience_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestBulkheadNeverRunsMoreThanMax(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 3, Queue: 100, MaxWait: time.Minute}))
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Microsecond)
				_ = resilience.Do(ctx, b, func(context.Context) error {
					n := running.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					running.Add(-1)
					return nil
				})
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d at once, want at most 3", most.Load())
	}
	if s := b.Stats(); s.Running != 0 || s.Waiting != 0 {
		t.Errorf("places lost: %+v", s)
	}
}

func TestBulkheadServesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "db", Max: 1, Queue: 3}))
		release := make(chan struct{})
		var order []int
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				_ = resilience.Do(context.Background(), b, func(context.Context) error {
					if i == 0 {
						<-release
					}
					order = append(order, i) // one at a time
					return nil
				})
			})
			synctest.Wait()
		}
		if s := b.Stats(); s.Running != 1 || s.Waiting != 3 {
			t.Errorf("stats = %+v", s)
		}
		err := do(t, b, works)
		var full *resilience.FullError
		if !errors.As(err, &full) || !errors.Is(err, resilience.ErrFull) || !full.NotExecuted() || !full.Retryable() {
			t.Errorf("error = %v, want a *FullError", err)
		}
		if got, want := err.Error(), `resilience: enter bulkhead "db": full`; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
		close(release)
		wg.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("order = %v", order)
		}
	})
}

func TestBulkheadEndsTheWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		maxWait time.Duration
		cancel  time.Duration
		took    time.Duration
		ctxErr  bool
	}{
		{"after MaxWait", time.Second, time.Hour, time.Second, false},
		{"with the context", time.Hour, time.Second, time.Second, true},
		{"with the context, no MaxWait", 0, time.Second, time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 1, MaxWait: tt.maxWait}))
				release := make(chan struct{})
				go func() {
					_ = resilience.Do(context.Background(), b, func(context.Context) error { <-release; return nil })
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), tt.cancel)
				defer cancel()
				start := time.Now()
				err := resilience.Do(ctx, b, works)
				var full *resilience.FullError
				if !errors.As(err, &full) || full.Waited != tt.took || time.Since(start) != tt.took {
					t.Errorf("error = %v after %v", err, time.Since(start))
				}
				if errors.Is(err, context.DeadlineExceeded) != tt.ctxErr || full.Retryable() == tt.ctxErr {
					t.Errorf("error = %v, context's = %v", err, tt.ctxErr)
				}
				close(release)
				synctest.Wait()
				if s := b.Stats(); s != (resilience.BulkheadStats{Rejected: 1}) {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

// A place handed to a caller in the very moment it gives up must reach the next.
func TestBulkheadHandoverToACancelledCaller(t *testing.T) {
	t.Parallel()
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 2}))
			ctx, cancel := context.WithCancel(t.Context())
			release := make(chan struct{})
			served := false
			var wg sync.WaitGroup
			for _, call := range []func(){
				func() {
					_ = resilience.Do(context.Background(), b, func(context.Context) error { <-release; return nil })
				},
				func() {
					err := resilience.Do(ctx, b, works)
					if !errors.Is(err, context.Canceled) {
						t.Errorf("cancelled caller: %v", err)
					}
				},
				func() { served = resilience.Do(context.Background(), b, works) == nil },
			} {
				wg.Go(call)
				synctest.Wait()
			}
			cancel()
			close(release)
			wg.Wait()
			if s := b.Stats(); !served || s.Running != 0 || s.Waiting != 0 {
				t.Fatalf("served = %v, stats = %+v", served, s)
			}
		})
	}
}
