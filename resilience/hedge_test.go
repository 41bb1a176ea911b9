package resilience_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

// answers is what one attempt of a hedge does: it takes a time and ends.
type answers struct {
	after time.Duration
	err   error
}

// playback runs attempt n by answers[n-1] and minds its context.
func playback(plan []answers) func(context.Context) (int, error) {
	var begun atomic.Int64
	return func(ctx context.Context) (int, error) {
		n := int(begun.Add(1))
		if got := resilience.AttemptFromContext(ctx); got != n {
			return 0, errors.New("wrong attempt number")
		}
		select {
		case <-time.After(plan[n-1].after):
			return n, plan[n-1].err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func TestHedge(t *testing.T) {
	t.Parallel()
	type config = resilience.HedgeConfig
	const s = time.Second
	final, again := hint{retryable: false}, hint{retryable: true, after: s}
	away := hint{retryable: true, notExecuted: true}
	for _, tt := range []struct {
		name   string
		max    int
		plan   []answers
		result int
		took   time.Duration
		hedges uint64
		err    error
	}{
		{"first is quick", 1, []answers{{s / 2, nil}}, 1, s / 2, 0, nil},
		{"first is slow but wins", 1, []answers{{3 * s / 2, nil}, {s, nil}}, 1, 3 * s / 2, 1, nil},
		{"second wins", 1, []answers{{time.Hour, nil}, {s / 2, nil}}, 2, 3 * s / 2, 1, nil},
		{"third wins", 2, []answers{{time.Hour, nil}, {time.Hour, nil}, {s / 2, nil}}, 3, 5 * s / 2, 2, nil},
		{"no more than allowed", 1, []answers{{4 * s, nil}, {time.Hour, nil}}, 1, 4 * s, 1, nil},
		{"early failure starts the next", 1, []answers{{s / 2, errDown}, {s / 4, nil}}, 2, 3 * s / 4, 1, nil},
		{"failure beside a slow success", 1, []answers{{2 * s, nil}, {s / 2, errDown}}, 1, 2 * s, 1, nil},
		{"all fail", 2, []answers{{s / 2, errDown}, {s / 2, errDown}, {s / 2, errDown}}, 3, 3 * s / 2, 2, errDown},
		{"final error ends it", 2, []answers{{s / 2, final}}, 1, s / 2, 0, final},
		{"final error of a hedge ends it", 2, []answers{{time.Hour, nil}, {s / 2, final}}, 2, 3 * s / 2, 1, final},
		{"asked to wait", 2, []answers{{s / 2, again}}, 1, s / 2, 0, again},
		{"turned away", 2, []answers{{s / 2, away}}, 1, s / 2, 0, away},
		{"asked to wait beside a slow success", 2, []answers{{5 * s, nil}, {s / 2, again}}, 1, 5 * s, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told []int
				hedge := must(resilience.NewHedge(config{
					Name: "price", After: s, Max: tt.max,
					Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
						if e.Kind == resilience.EventHedge && e.Policy == "hedge" && e.Name == "price" {
							told = append(told, e.Attempt)
						}
					}),
				}))
				start := time.Now()
				n, err := resilience.Call(t.Context(), hedge, playback(tt.plan))
				if n != tt.result || time.Since(start) != tt.took {
					t.Errorf("attempt %d in %v, want %d in %v", n, time.Since(start), tt.result, tt.took)
				}
				if !errors.Is(err, tt.err) || tt.hedges == 0 && err != tt.err {
					t.Errorf("error = %v, want %v", err, tt.err)
				}
				want := resilience.HedgeStats{Calls: 1, Hedges: tt.hedges, Delay: s}
				if tt.err != nil {
					want.Failed = 1
				} else if n > 1 {
					want.Won = 1
				}
				if got := hedge.Stats(); got != want {
					t.Errorf("stats = %+v, want %+v", got, want)
				}
				if len(told) != int(tt.hedges) || len(told) > 0 && told[0] != 2 {
					t.Errorf("told of %v", told)
				}
				synctest.Wait()
			})
		})
	}
}

func TestHedgeErrorTellsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{Name: "price", After: time.Second}))
		first := errors.New("first")
		_, err := resilience.Call(t.Context(), hedge, playback([]answers{{0, first}, {0, hint{retryable: true, after: 5}}}))
		var failed *resilience.HedgeError
		if !errors.As(err, &failed) || len(failed.Errs) != 2 || !errors.Is(err, first) {
			t.Fatalf("error = %v", err)
		}
		if d, ok := failed.RetryAfter(); d != 5 || !ok || !failed.Retryable() || failed.NotExecuted() {
			t.Errorf("%v, %v, %v, %v", d, ok, failed.Retryable(), failed.NotExecuted())
		}
		if want := `resilience: hedge "price": 2 attempts failed: hint 5ns`; err.Error() != want {
			t.Errorf("text = %q, want %q", err, want)
		}
	})
}

func TestHedgeDisposesOfLosers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second, Max: 2}))
		var begun atomic.Int64
		var ends [4]atomic.Value
		discarded := make(chan int, 3)
		start := time.Now()
		n, err := resilience.Call(t.Context(), hedge, func(ctx context.Context) (int, error) {
			n := int(begun.Add(1))
			context.AfterFunc(ctx, func() { ends[n].Store(context.Cause(ctx)) })
			time.Sleep([]time.Duration{10 * time.Second, 2 * time.Second, time.Hour}[n-1]) // deaf to its context
			return n, nil
		}, resilience.Discard(func(n int) { discarded <- n }))
		if n != 2 || err != nil || time.Since(start) != 3*time.Second {
			t.Fatalf("%d, %v in %v", n, err, time.Since(start))
		}
		synctest.Wait()
		if ends[1].Load() == nil || ends[3].Load() == nil || !strings.Contains(ends[1].Load().(error).Error(), "another attempt answered") {
			t.Errorf("losers' contexts: %v, %v", ends[1].Load(), ends[3].Load())
		}
		if len(discarded) != 0 {
			t.Error("discarded before it ended")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := []int{<-discarded, <-discarded}; !slices.Equal(got, []int{1, 3}) {
			t.Errorf("discarded %v, want the losers", got)
		}
	})
}

func TestHedgeKeepsTheWinnersContextDuringTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		ctx, cancel := context.WithCancel(t.Context())
		var winner context.Context
		time.AfterFunc(time.Second/2, cancel)
		err := resilience.Do(ctx, hedge, func(ctx context.Context) error { winner = ctx; <-ctx.Done(); return nil })
		if err != nil {
			t.Error(err)
		}
		if winner.Err() == nil {
			t.Error("the winner's context outlives the call")
		}
		// A caller that has given up gets no hedges.
		err = resilience.Do(ctx, hedge, func(context.Context) error { time.Sleep(3 * time.Second); return errDown })
		if err != errDown || hedge.Stats().Hedges != 0 {
			t.Errorf("error = %v, stats %+v", err, hedge.Stats())
		}
	})
}

func TestHedgeAsksTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := must(resilience.NewBudget(resilience.BudgetConfig{Ratio: 0.01, MinPerSecond: 0.1}))
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second, Budget: budget}))
		slow := func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		for range 3 {
			_ = do(t, hedge, slow)
		}
		synctest.Wait()
		if s := hedge.Stats(); s.Hedges != 1 || s.Calls != 3 {
			t.Errorf("stats = %+v", s)
		}
		if s := budget.Stats(); s.Taken != 1 || s.Refused != 2 {
			t.Errorf("budget = %+v", s)
		}
	})
}

func TestHedgeLearnsItsDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second, Quantile: 0.9}))
		var begun atomic.Int64
		call := func(scale time.Duration) {
			_ = do(t, hedge, func(context.Context) error {
				time.Sleep(time.Duration(begun.Add(1)%100+1) * scale)
				return nil
			})
		}
		for range 31 {
			call(time.Millisecond)
		}
		if d := hedge.Stats().Delay; d != time.Second {
			t.Errorf("with 31 samples: %v", d)
		}
		for range 400 {
			call(time.Millisecond)
		}
		synctest.Wait()
		if d := hedge.Stats().Delay; d < 80*time.Millisecond || d > 100*time.Millisecond {
			t.Errorf("delay = %v, want about the 90th percentile of 1 to 100 ms", d)
		}
		// A callee that became faster is hedged earlier.
		for range 512 {
			call(time.Microsecond)
		}
		time.Sleep(time.Minute)
		if d := hedge.Stats().Delay; d > 100*time.Microsecond {
			t.Errorf("delay = %v, want less than 100µs", d)
		}
	})
}

func TestHedgeTakesGoexitAsFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		var n atomic.Int64
		err := do(t, hedge, func(context.Context) error {
			if n.Add(1) == 1 {
				runtime.Goexit()
			}
			return nil
		})
		if err != nil || hedge.Stats().Won != 1 {
			t.Errorf("error = %v, stats = %+v", err, hedge.Stats())
		}
		err = do(t, hedge, func(context.Context) error { runtime.Goexit(); return nil })
		if err == nil || !strings.Contains(err.Error(), "exited its goroutine") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestHedgeConfig(t *testing.T) {
	t.Parallel()
	type config = resilience.HedgeConfig
	for _, tt := range []struct {
		field string
		cfg   config
	}{
		{"After", config{}},
		{"After", config{After: -1}},
		{"Max", config{After: 1, Max: -1}},
		{"Quantile", config{After: 1, Quantile: 1}},
		{"Quantile", config{After: 1, Quantile: -0.1}},
		{"Quantile", config{After: 1, Quantile: math.NaN()}},
	} {
		tt.cfg.Name = "price"
		if _, err := resilience.NewHedge(tt.cfg); err == nil || !strings.Contains(err.Error(), `hedge "price": `+tt.field+" = ") {
			t.Errorf("%+v: %v", tt.cfg, err)
		}
	}
	hedge := must(resilience.NewHedge(config{Name: "price", After: time.Second, Quantile: 0.95, Budget: must(resilience.NewBudget(resilience.BudgetConfig{}))}))
	if got, want := hedge.Describe().String(), `hedge "price" after=1s max=1 quantile=0.95 budget=0.2+10/s`; got != want || hedge.Name() != "price" {
		t.Errorf("%q, want %q", got, want)
	}
}
