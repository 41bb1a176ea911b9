package resilience_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/resilience"
)

func seeded(seed uint64) func() float64 {
	return rand.New(rand.NewPCG(seed, seed)).Float64
}

func TestThrottleFollowsTheFormula(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		k            float64
		good, failed int
		want         float64
	}{
		{"all accepted", 2, 100, 0, 0},
		{"half accepted", 2, 50, 50, 0},
		{"a quarter accepted", 2, 25, 75, 50.0 / 101},
		{"none accepted", 2, 0, 100, 100.0 / 101},
		{"below MinRequests", 2, 0, 9, 0},
		{"at MinRequests", 2, 0, 10, 10.0 / 11},
		{"K 1", 1, 50, 50, 50.0 / 101},
		{"the default K", 0, 25, 75, 50.0 / 101},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				draw := 1.0 // never rejects
				throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{
					Name: "search", K: tt.k, Rand: func() float64 { return draw },
				}))
				for range tt.good {
					_ = do(t, throttle, works)
				}
				for range tt.failed {
					_ = do(t, throttle, fails)
				}
				s := throttle.Stats()
				if s.Requests != tt.good+tt.failed || s.Accepts != tt.good || math.Abs(s.Probability-tt.want) > 1e-9 {
					t.Fatalf("stats = %+v, want probability %v", s, tt.want)
				}
				if tt.want == 0 {
					draw = 0
					if err := do(t, throttle, works); err != nil {
						t.Errorf("a call that must pass: %v", err)
					}
					return
				}
				draw = tt.want
				if err := do(t, throttle, fails); !errors.Is(err, errDown) {
					t.Errorf("drawn at the probability: %v", err)
				}
				draw = math.Nextafter(throttle.Stats().Probability, 0)
				err := do(t, throttle, works)
				var throttled *resilience.ThrottledError
				if !errors.As(err, &throttled) || !errors.Is(err, resilience.ErrThrottled) || !errors.Is(err, resilience.ErrRejected) ||
					!throttled.NotExecuted() || !throttled.Retryable() || throttled.Name != "search" {
					t.Errorf("drawn below the probability: %v", err)
				}
				if got := throttle.Stats(); got.Requests != s.Requests+1 || got.Rejected != 1 {
					t.Errorf("a rejection counts as a request: %+v", got)
				}
			})
		})
	}
}

// A throttle that counts its own rejections as requests can stay shut after the
// callee came back. Here everything passes one window after the recovery at the
// latest, at any rate of calls and after any outage.
func TestRegressionThrottleRecovers(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []float64{0.05, 1, 20, 1000} {
		for _, outage := range []time.Duration{30 * time.Second, time.Hour} {
			if perSecond*outage.Seconds() > 2e4 {
				outage = time.Duration(2e4 / perSecond * float64(time.Second))
			}
			synctest.Test(t, func(t *testing.T) {
				const window = 10 * time.Second
				throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{Window: window, Rand: seeded(1)}))
				sent := 0
				run := func(d time.Duration, op func(context.Context) error) (calls, passed int) {
					for start := time.Now(); time.Since(start) < d; calls++ {
						before := sent
						_ = do(t, throttle, func(ctx context.Context) error { sent++; return op(ctx) })
						passed += sent - before
						time.Sleep(time.Duration(float64(time.Second) / perSecond))
					}
					return calls, passed
				}
				run(window, works)
				if calls, passed := run(outage, fails); outage > time.Minute && perSecond >= 20 && passed > calls/10 {
					t.Errorf("%v/s, down for %v: %d of %d calls passed", perSecond, outage, passed, calls)
				}
				run(window, works)
				if s := throttle.Stats(); s.Probability != 0 {
					t.Errorf("%v/s, down for %v: %+v one window after the recovery", perSecond, outage, s)
				}
				if calls, passed := run(2*window, works); passed != calls {
					t.Errorf("%v/s, down for %v: then %d of %d calls passed", perSecond, outage, passed, calls)
				}
			})
		}
	}
}

// At a thousand calls a second the way back takes about a second, not a window.
func TestThrottleRecoversQuicklyUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{Rand: seeded(2)}))
		for range 60_000 {
			_ = do(t, throttle, fails)
			time.Sleep(time.Millisecond)
		}
		if s := throttle.Stats(); s.Requests < 50 || s.Requests > 200 { // about √10000
			t.Errorf("sent %d calls in a window of an outage", s.Requests)
		}
		for range 2000 {
			_ = do(t, throttle, works)
			time.Sleep(time.Millisecond)
		}
		if s := throttle.Stats(); s.Probability > 0.01 {
			t.Errorf("after 2s: %+v", s)
		}
	})
}

// A callee that can do 100 calls a second out of 1000 gets about √(r·K·a) of them.
func TestThrottleRelievesAnOverloadedCallee(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{Rand: seeded(3)}))
		var second int64
		sent, inSecond := 0, 0
		op := func(context.Context) error {
			if now := time.Now().Unix(); now != second {
				second, inSecond = now, 0
			}
			sent++
			if inSecond++; inSecond > 100 {
				return errDown
			}
			return nil
		}
		for i := range 60_000 {
			if i == 30_000 {
				sent = 0
			}
			_ = do(t, throttle, op)
			time.Sleep(time.Millisecond)
		}
		if perSecond := sent / 30; perSecond < 300 || perSecond > 600 { // √(1000·2·100) ≈ 447
			t.Errorf("%d calls per second sent", perSecond)
		}
	})
}

func TestThrottleOutcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{}))
		want := func(requests, accepts int) {
			t.Helper()
			if s := throttle.Stats(); s.Requests != requests || s.Accepts != accepts {
				t.Errorf("stats = %+v, want %d of %d", s, accepts, requests)
			}
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_ = resilience.Do(cancelled, throttle, fails) // neutral
		want(0, 0)
		_ = do(t, throttle, works)
		want(1, 1)
		panics(throttle)
		want(2, 1)
		goexits(throttle, runtime.Goexit)
		want(3, 1)
		time.Sleep(11 * time.Second)
		want(0, 0)
	})
}

func TestThrottleTellsOfRejections(t *testing.T) {
	t.Parallel()
	var throttle *resilience.Throttle
	var events []resilience.Event
	throttle = must(resilience.NewThrottle(resilience.ThrottleConfig{
		Name: "search", MinRequests: 1, Rand: func() float64 { return 0 },
		Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
			_ = throttle.Stats() // no lock is held
			events = append(events, e)
		}),
	}))
	_ = do(t, throttle, fails)
	err := do(t, throttle, works)
	if len(events) != 1 || events[0] != (resilience.Event{
		Kind: resilience.EventRejected, Policy: "throttle", Name: "search", Err: err,
	}) || throttle.Name() != "search" {
		t.Errorf("events = %+v", events)
	}
	if got, want := err.Error(), `resilience: pass throttle "search": rejecting 50% of the calls`; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
}

// The window forgets exactly what has left it, whatever the pauses.
func TestThrottleWindowSlides(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		pauses := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 100).Draw(rt, "pauses in ms")
		synctest.Test(t, func(t *testing.T) {
			throttle := must(resilience.NewThrottle(resilience.ThrottleConfig{Rand: func() float64 { return 1 }}))
			start := time.Now()
			var at []time.Duration
			for _, pause := range pauses {
				time.Sleep(time.Duration(pause) * time.Millisecond)
				_ = do(t, throttle, works)
				at = append(at, time.Since(start))
				want := 0 // in the current and the 19 buckets before it, of half a second each
				for _, then := range at {
					if time.Since(start)/(time.Second/2)-then/(time.Second/2) < 20 {
						want++
					}
				}
				if s := throttle.Stats(); s.Requests != want || s.Accepts != want {
					t.Fatalf("stats = %+v, want %d", s, want)
				}
			}
		})
	})
}
