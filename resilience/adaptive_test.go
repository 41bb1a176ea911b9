package resilience_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

// server serves a number of calls at once, each in a random time of the given
// mean, and lets the others queue: M/M/k but for the arrivals.
type server struct {
	workers chan struct{}
	mean    atomic.Int64

	mu   sync.Mutex
	rand *rand.Rand
}

func newServer(workers int, mean time.Duration) *server {
	s := &server{workers: make(chan struct{}, workers), rand: rand.New(rand.NewPCG(1, 2))}
	s.mean.Store(int64(mean))
	return s
}

func (s *server) serve(context.Context) error {
	s.workers <- struct{}{}
	defer func() { <-s.workers }()
	s.mu.Lock()
	took := s.rand.ExpFloat64() * float64(s.mean.Load())
	s.mu.Unlock()
	time.Sleep(time.Duration(took))
	return nil
}

// press keeps clients calling for d, each again 30 ms after a rejection, and
// returns the average limit of the second half.
func press(a *resilience.Adaptive, clients int, d time.Duration, op func(context.Context) error) float64 {
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range clients {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := resilience.Do(context.Background(), a, op); errors.Is(err, resilience.ErrFull) {
					time.Sleep(30 * time.Millisecond)
				}
			}
		})
	}
	sum, n := 0.0, 0.0
	for time.Sleep(d / 2); time.Now().Before(end); time.Sleep(d / 200) {
		sum += float64(a.Stats().Limit)
		n++
	}
	wg.Wait()
	return sum / n
}

func TestAdaptiveConvergesFromBothSides(t *testing.T) {
	t.Parallel()
	const workers, service = 10, 20 * time.Millisecond
	for _, tt := range []struct {
		algorithm resilience.AdaptiveAlgorithm
		guard     time.Duration
		low, high float64
	}{
		// 3 to 6 times log10 of the limit may queue: 4 to 7 beside the 10 served.
		{resilience.Vegas, 0, 8, 20},
		// The guard lets calls take twice the service time: twice the workers.
		{resilience.Gradient2, 2 * service, 12, 24},
		{resilience.AIMD, 2 * service, 12, 24},
	} {
		for _, initial := range []int{1, 100} {
			t.Run(tt.algorithm.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{
						Algorithm: tt.algorithm, Initial: initial, MaxHealthyRTT: tt.guard,
					}))
					s := newServer(workers, service)
					if got := press(a, 80, 40*time.Second, s.serve); got < tt.low || got > tt.high {
						t.Errorf("from %d: the limit is %.1f on average, want %v to %v: %+v", initial, got, tt.low, tt.high, a.Stats())
					}
				})
			})
		}
	}
}

func TestAdaptiveFollowsASlowdownAndBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		algorithm resilience.AdaptiveAlgorithm
		guard     time.Duration
	}{
		{resilience.Vegas, 40 * time.Millisecond},
		{resilience.Gradient2, 40 * time.Millisecond},
		{resilience.AIMD, 40 * time.Millisecond},
	} {
		t.Run(tt.algorithm.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{Algorithm: tt.algorithm, MaxHealthyRTT: tt.guard}))
				s := newServer(10, 20*time.Millisecond)
				before := press(a, 60, 30*time.Second, s.serve)
				s.mean.Store(int64(500 * time.Millisecond))
				if slow := press(a, 60, time.Minute, s.serve); slow > 6 {
					t.Errorf("limit %.1f while calls take half a second", slow)
				}
				s.mean.Store(int64(20 * time.Millisecond))
				if after := press(a, 60, 40*time.Second, s.serve); after < before/2 || after > before*2 {
					t.Errorf("limit %.1f after the slowdown, %.1f before", after, before)
				}
			})
		})
	}
}

// Vegas finds a callee that got slower for good and stays slower, without a guard:
// the same number of workers deserves the same limit.
func TestAdaptiveVegasLearnsANewPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{}))
		s := newServer(10, 20*time.Millisecond)
		press(a, 60, 20*time.Second, s.serve)
		s.mean.Store(int64(80 * time.Millisecond))
		if got := press(a, 60, 3*time.Minute, s.serve); got < 7 || got > 25 {
			t.Errorf("limit %.1f: %+v", got, a.Stats())
		}
	})
}

// quick runs n calls at once that take d and end with err.
func quick(a *resilience.Adaptive, n int, d time.Duration, err error) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_ = resilience.Do(context.Background(), a, func(context.Context) error { time.Sleep(d); return err })
		})
	}
	wg.Wait()
}

func TestAdaptiveMovesTheLimit(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		name   string
		cfg    resilience.AdaptiveConfig
		calls  int // at once, of a limit of 20
		failed int // of these
		took   time.Duration
		want   func(limit int) bool
	}{
		{"grows in use", resilience.AdaptiveConfig{Algorithm: resilience.AIMD}, 20, 0, 100 * ms, func(l int) bool { return l == 21 }},
		{"grows from half use on", resilience.AdaptiveConfig{Algorithm: resilience.AIMD}, 10, 0, 100 * ms, func(l int) bool { return l == 21 }},
		{"vegas grows in use", resilience.AdaptiveConfig{}, 20, 0, 100 * ms, func(l int) bool { return l > 20 }},
		{"gradient2 grows in use", resilience.AdaptiveConfig{Algorithm: resilience.Gradient2, MaxHealthyRTT: 100 * ms}, 20, 0, 100 * ms, func(l int) bool { return l > 20 }},
		{"not while unused", resilience.AdaptiveConfig{Algorithm: resilience.AIMD}, 9, 0, 100 * ms, func(l int) bool { return l == 20 }},
		{"vegas not while unused", resilience.AdaptiveConfig{}, 9, 0, 100 * ms, func(l int) bool { return l == 20 }},
		{"gradient2 not while unused", resilience.AdaptiveConfig{Algorithm: resilience.Gradient2}, 9, 0, 100 * ms, func(l int) bool { return l == 20 }},
		{"shrinks above the healthy time", resilience.AdaptiveConfig{MaxHealthyRTT: 100*ms - 1}, 20, 0, 100 * ms, func(l int) bool { return l == 18 }},
		{"that also unused", resilience.AdaptiveConfig{MaxHealthyRTT: 100*ms - 1}, 9, 0, 100 * ms, func(l int) bool { return l == 18 }},
		{"shrinks when a tenth fails", resilience.AdaptiveConfig{Algorithm: resilience.AIMD}, 20, 2, 100 * ms, func(l int) bool { return l == 18 }},
		{"not when fewer fail", resilience.AdaptiveConfig{Algorithm: resilience.AIMD}, 20, 1, 100 * ms, func(l int) bool { return l == 21 }},
		{"never below Min", resilience.AdaptiveConfig{Min: 20}, 20, 20, 100 * ms, func(l int) bool { return l == 20 }},
		{"never above Max", resilience.AdaptiveConfig{Max: 20}, 20, 0, 100 * ms, func(l int) bool { return l == 20 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var events []resilience.Event
				var a *resilience.Adaptive
				tt.cfg.Name = "db"
				tt.cfg.Observer = resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
					_ = a.Stats() // no lock is held
					mu.Lock()
					defer mu.Unlock()
					events = append(events, e)
				})
				a = must(resilience.NewAdaptive(tt.cfg))
				for range 4 { // a measurement needs two calls for each at once
					var wg sync.WaitGroup
					wg.Go(func() { quick(a, tt.failed, tt.took, errDown) })
					quick(a, tt.calls-tt.failed, tt.took, nil)
					wg.Wait()
					if a.Stats().Limit != 20 {
						break
					}
				}
				s := a.Stats()
				if !tt.want(s.Limit) || s.Running != 0 {
					t.Errorf("stats = %+v", s)
				}
				mu.Lock()
				defer mu.Unlock()
				if s.Limit == 20 {
					if len(events) != 0 {
						t.Errorf("events = %+v", events)
					}
				} else if len(events) != 1 || events[0] != (resilience.Event{
					Kind: resilience.EventLimitChanged, Policy: "adaptive", Name: "db", Limit: s.Limit,
				}) {
					t.Errorf("events = %+v", events)
				}
			})
		})
	}
}

// After a long overload the average that Gradient2 compares with comes down faster
// than it averages, or the next overload would pass for normal.
func TestAdaptiveGradient2ForgetsAnOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{Algorithm: resilience.Gradient2, Min: 20, Max: 20}))
		for range 40 {
			quick(a, 20, time.Second, nil)
		}
		if s := a.Stats(); s.MinRTT != time.Second {
			t.Errorf("stats = %+v", s)
		}
		for range 40 { // at least 20 measurements; the plain average would stay above 900 ms
			quick(a, 20, 100*time.Millisecond, nil)
		}
		if s := a.Stats(); s.MinRTT > 400*time.Millisecond {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestAdaptiveRejects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []resilience.Event
		a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{
			Name: "db", Min: 1, Max: 1, Queue: 1, MaxWait: time.Second,
			Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			}),
		}))
		c := newCaller(a)
		c.call(t.Context(), "runs", time.Minute)
		c.call(t.Context(), "waits", 0)
		if s := a.Stats(); s.Running != 1 || s.Waiting != 1 {
			t.Errorf("stats = %+v", s)
		}
		err := do(t, a, works)
		var full *resilience.FullError
		if !errors.As(err, &full) || full.Policy != "adaptive" || !errors.Is(err, resilience.ErrFull) || !full.NotExecuted() {
			t.Fatalf("error = %v", err)
		}
		if got, want := err.Error(), `resilience: enter adaptive "db": full`; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
		mu.Lock()
		if len(events) != 1 || events[0].Policy != "adaptive" || events[0].Kind != resilience.EventRejected || events[0].Err != err {
			t.Errorf("events = %+v", events)
		}
		mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if err := c.err("waits"); !errors.Is(err, resilience.ErrFull) || a.Stats().Rejected != 2 || a.Name() != "db" {
			t.Errorf("after MaxWait: %v, %+v", err, a.Stats())
		}
		c.wg.Wait()
	})
}

func TestAdaptiveGivesPlacesBack(t *testing.T) {
	t.Parallel()
	a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{Min: 1, Max: 1}))
	panics(a)
	goexits(a, runtime.Goexit)
	if err := do(t, a, works); err != nil || a.Stats().Running != 0 {
		t.Errorf("%v, %+v", err, a.Stats())
	}
}

func TestAdaptiveDoesNotAllocate(t *testing.T) {
	ctx := context.Background()
	a := must(resilience.NewAdaptive(resilience.AdaptiveConfig{Min: 20, Max: 20}))
	if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(ctx, a, works) }); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

func FuzzAdaptiveConfig(f *testing.F) {
	f.Add(0, 0, 0, uint8(0), int64(0), 0, int64(0))
	f.Add(math.MaxInt, math.MaxInt, math.MaxInt, uint8(3), int64(math.MaxInt64), math.MaxInt, int64(math.MaxInt64))
	f.Add(-1, -1, -1, uint8(2), int64(-1), -1, int64(-1))
	f.Fuzz(func(t *testing.T, least, most, initial int, algorithm uint8, healthy int64, queue int, maxWait int64) {
		a, err := resilience.NewAdaptive(resilience.AdaptiveConfig{
			Min: least, Max: most, Initial: initial, Algorithm: resilience.AdaptiveAlgorithm(algorithm),
			MaxHealthyRTT: time.Duration(healthy), Queue: queue, MaxWait: time.Duration(maxWait),
		})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "resilience: configure adaptive: ") {
				t.Errorf("error = %v", err)
			}
			return
		}
		if err := do(t, a, works); err != nil {
			t.Errorf("the first call: %v", err)
		}
		if s := a.Stats(); s.Limit < max(1, least) || most > 0 && s.Limit > most {
			t.Errorf("stats = %+v", s)
		}
	})
}
