package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestSingleFlightRunsOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]int{}
		var mu sync.Mutex
		s := must(resilience.NewSingleFlight(func(_ context.Context, key string) (*string, error) {
			mu.Lock()
			runs[key]++
			mu.Unlock()
			time.Sleep(time.Second)
			return &key, errDown
		}))
		var wg sync.WaitGroup
		results := make([]*string, 10)
		for i := range results {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				var err error
				results[i], err = s.Do(context.Background(), fmt.Sprint("key ", i%2))
				if !errors.Is(err, errDown) {
					t.Errorf("error = %v", err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		if got := s.Stats(); got != (resilience.SingleFlightStats{Running: 2, Started: 2, Shared: 8}) {
			t.Errorf("stats = %+v", got)
		}
		wg.Wait()
		for i, r := range results {
			if r != results[i%2] {
				t.Errorf("caller %d got a result of its own", i)
			}
		}
		if runs["key 0"] != 1 || runs["key 1"] != 1 {
			t.Errorf("runs = %v", runs)
		}
		_, _ = s.Bind("key 0")(t.Context()) // over: a new one begins
		if got := s.Stats(); got.Running != 0 || got.Started != 3 {
			t.Errorf("stats = %+v", got)
		}
	})
}

func TestSingleFlightCallersLeave(t *testing.T) {
	t.Parallel()
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		s := must(resilience.NewSingleFlight(func(ctx context.Context, _ int) (any, error) {
			if _, ok := ctx.Deadline(); ok {
				t.Error("the first caller's deadline binds the others")
			}
			select {
			case <-ctx.Done():
				ended.Add(1)
				return nil, ctx.Err()
			case <-time.After(time.Minute):
				return ctx.Value(key{}), nil
			}
		}))
		var wg sync.WaitGroup
		call := func(patience time.Duration, value any, want any, wantErr error) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), key{}, value), patience)
				defer cancel()
				start := time.Now()
				got, err := s.Do(ctx, 1)
				if got != want || !errors.Is(err, wantErr) {
					t.Errorf("got %v, %v; want %v, %v", got, err, want, wantErr)
				}
				if took := time.Since(start); took > patience {
					t.Errorf("left after %v, not %v", took, patience)
				}
			})
			synctest.Wait()
		}
		// The first to come leaves first; the other one still gets the answer.
		call(time.Second, "first", nil, context.DeadlineExceeded)
		call(time.Hour, "second", "first", nil)
		wg.Wait()
		if ended.Load() != 0 {
			t.Error("cancelled although somebody waited")
		}
		// All leave: it is cancelled with the last one, and who comes then starts afresh.
		call(time.Second, "first", nil, context.DeadlineExceeded)
		call(2*time.Second, "second", nil, context.DeadlineExceeded)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if ended.Load() != 0 {
			t.Error("cancelled although somebody waited")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := s.Stats(); ended.Load() != 1 || got.Abandoned != 1 || got.Running != 0 {
			t.Errorf("ended %d, stats = %+v", ended.Load(), got)
		}
		call(time.Hour, "third", "third", nil)
		wg.Wait()
	})
}

func TestSingleFlightDoneContextStartsNothing(t *testing.T) {
	t.Parallel()
	s := must(resilience.NewSingleFlight(func(context.Context, int) (int, error) { t.Error("ran"); return 1, nil }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Do(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestSingleFlightPanicReachesEveryCaller(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){
		"panic":  func() { panic(errDown) },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := must(resilience.NewSingleFlight(func(context.Context, int) (int, error) {
					time.Sleep(time.Second)
					end()
					return 1, nil
				}))
				var wg sync.WaitGroup
				var panicked, failed atomic.Int64
				for range 3 {
					wg.Go(func() {
						defer func() {
							p, ok := recover().(*resilience.PanicError)
							if ok && p.Value == any(errDown) && errors.Is(p, errDown) && strings.Contains(p.Error(), "TestSingleFlightPanic") {
								panicked.Add(1) // and says where it was raised
							}
						}()
						if n, err := s.Do(context.Background(), 1); n == 0 && err != nil {
							failed.Add(1)
						}
					})
				}
				wg.Wait()
				if name == "panic" && panicked.Load() != 3 || name == "goexit" && failed.Load() != 3 {
					t.Errorf("%d panicked, %d failed of 3", panicked.Load(), failed.Load())
				}
				if got := s.Stats(); got.Running != 0 {
					t.Errorf("stats = %+v", got)
				}
			})
		})
	}
}

func TestSingleFlightForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		s := must(resilience.NewSingleFlight(func(context.Context, int) (int64, error) {
			n := runs.Add(1)
			time.Sleep(time.Second)
			return n, nil
		}))
		var wg sync.WaitGroup
		call := func(want int64) {
			wg.Go(func() {
				if n, err := s.Do(context.Background(), 7); n != want || err != nil {
					t.Errorf("got %d, %v; want %d", n, err, want)
				}
			})
		}
		call(1)
		time.Sleep(600 * time.Millisecond)
		s.Forget(7)
		call(2)
		time.Sleep(600 * time.Millisecond) // the first one is over, the second is not
		call(2)
		wg.Wait()
	})
}

func TestSingleFlightRace(t *testing.T) {
	t.Parallel()
	s := must(resilience.NewSingleFlight(func(ctx context.Context, key int) (int, error) {
		if key%2 == 0 {
			runtime.Gosched()
		}
		return key, ctx.Err()
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				if (i+j)%3 == 0 {
					go cancel()
				}
				key := j % 4
				n, err := s.Do(ctx, key)
				switch {
				case err == nil && n != key:
					t.Errorf("got %d for %d", n, key)
				case err != nil && ctx.Err() == nil:
					t.Errorf("a caller that stayed got %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if got := s.Stats(); got.Running != 0 || got.Started+got.Shared > 4000 {
		t.Errorf("stats = %+v", got)
	}
}

func TestSingleFlightNeedsAFunction(t *testing.T) {
	t.Parallel()
	_, err := resilience.NewSingleFlight[int, int](nil)
	if err == nil || !strings.Contains(err.Error(), "fn = nil: is required") {
		t.Errorf("error = %v", err)
	}
}
