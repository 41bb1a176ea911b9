package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/resilience"
)

// pattern plays f (failure), s (success), n (neutral) and . (a second passes).
func play(b *resilience.Breaker, pattern string) {
	for _, c := range pattern {
		switch c {
		case '.':
			time.Sleep(time.Second)
		case 'f':
			_ = resilience.Do(context.Background(), b, fails)
		case 's':
			_ = resilience.Do(context.Background(), b, works)
		case 'n':
			_ = resilience.Do(context.Background(), b, func(context.Context) error { return resilience.ErrFull })
		case 'L': // slow success: two seconds
			_ = resilience.Do(context.Background(), b, func(context.Context) error { time.Sleep(2 * time.Second); return nil })
		}
	}
}

func TestBreakerRules(t *testing.T) {
	t.Parallel()
	type config = resilience.BreakerConfig
	for _, tt := range []struct {
		name    string
		cfg     config
		pattern string
		want    resilience.State
	}{
		{"zero value, 19 failures", config{}, strings.Repeat("f", 19), resilience.Closed},
		{"zero value, 20 failures", config{}, strings.Repeat("f", 20), resilience.Open},
		{"zero value, half fail", config{}, strings.Repeat("sf", 10), resilience.Open},
		{"zero value, fewer than half fail", config{}, strings.Repeat("ssf", 20), resilience.Closed},
		{"zero value, too old", config{}, strings.Repeat("f", 19) + "..........f", resilience.Closed},
		{"consecutive below", config{Window: resilience.Consecutive()}, "ffffsffff", resilience.Closed},
		{"consecutive default is five", config{Window: resilience.Consecutive()}, "fffff", resilience.Open},
		{"consecutive ignores neutral", config{Window: resilience.Consecutive(), Failures: 3}, "fnfnf", resilience.Open},
		{"consecutive slow", config{Window: resilience.Consecutive(), Failures: 3, SlowCall: time.Second}, "LLL", resilience.Open},
		{"consecutive slow broken", config{Window: resilience.Consecutive(), Failures: 3, SlowCall: time.Second}, "LLsLL", resilience.Closed},
		{"count rate", config{Window: resilience.Count(4), FailureRate: 0.75}, "sfff", resilience.Open},
		{"count waits for the window", config{Window: resilience.Count(4), FailureRate: 0.75}, "fff", resilience.Closed},
		{"count forgets", config{Window: resilience.Count(4), FailureRate: 0.75}, "ffssfs", resilience.Closed},
		{"count min calls", config{Window: resilience.Count(4), FailureRate: 1, MinCalls: 2}, "ff", resilience.Open},
		{"count failures", config{Window: resilience.Count(4), Failures: 2}, "fsf", resilience.Open},
		{"count failures slid out", config{Window: resilience.Count(4), Failures: 2}, "fssssf", resilience.Closed},
		{"time failures", config{Window: resilience.Time(3*time.Second, 3), Failures: 3}, "f.f.f", resilience.Open},
		{"time failures slid out", config{Window: resilience.Time(3*time.Second, 3), Failures: 3}, "f.f..f", resilience.Closed},
		{"time long silence", config{Window: resilience.Time(3*time.Second, 3), Failures: 3}, "ff........f", resilience.Closed},
		{"slow rate trips on successes", config{Window: resilience.Count(4), SlowCall: 2 * time.Second}, "ssLL", resilience.Open},
		{"slow rate not reached", config{Window: resilience.Count(4), SlowCall: 2 * time.Second, SlowRate: 0.75}, "ssLL", resilience.Closed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.OpenFor = resilience.OpenFixed(time.Hour)
				b := must(resilience.NewBreaker(tt.cfg))
				play(b, tt.pattern)
				wantState(t, b, tt.want)
			})
		})
	}
}

func TestBreakerLifeStory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []string
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Name: "payment", Window: resilience.Count(4), Failures: 2, Probes: 2,
			OpenFor: func(episode int, _ error) time.Duration { return time.Duration(episode) * time.Second },
			Observer: resilience.ObserverFunc(func(_ context.Context, c resilience.Event) {
				if c.Kind == resilience.EventStateChanged {
					events = append(events, fmt.Sprintf("%v>%v", c.From, c.To))
				}
			}),
		}))
		play(b, "sff")

		var open *resilience.OpenError
		err := do(t, b, works)
		if !errors.As(err, &open) || !errors.Is(err, resilience.ErrOpen) {
			t.Fatalf("error = %v, want an *OpenError", err)
		}
		if wait, ok := open.RetryAfter(); !ok || wait != time.Second || open.Name != "payment" || !open.NotExecuted() || !open.Retryable() || open.Cause != errDown {
			t.Errorf("open error = %+v", open)
		}
		if errors.Is(err, errDown) {
			t.Error("the cause belongs to another call and must not be in the chain")
		}
		if s, want := b.Stats(), (resilience.BreakerStats{
			State: resilience.Open, Episode: 1, OpenFor: time.Second, Opened: 1, Rejected: 1, Succeeded: 1, Failed: 2}); s != want {
			t.Errorf("stats = %+v, want %+v", s, want)
		}

		time.Sleep(time.Until(open.Until)) // exactly what the error says is enough
		play(b, "sf")                      // one good probe, one bad
		wantState(t, b, resilience.Open)
		if s := b.Stats(); s.Episode != 2 || s.OpenFor != 2*time.Second {
			t.Errorf("second episode: %+v", s)
		}
		play(b, "..")
		wantState(t, b, resilience.HalfOpen)
		play(b, "nnnn") // neutral probes pass their place on
		wantState(t, b, resilience.HalfOpen)
		play(b, "ss")
		wantState(t, b, resilience.Closed)
		if s := b.Stats(); s.Calls != 0 {
			t.Errorf("closed with an old window: %+v", s)
		}
		play(b, "ff")
		if s := b.Stats(); s.Episode != 1 || s.Opened != 3 {
			t.Errorf("episodes start anew after recovery: %+v", s)
		}
		b.Trip(time.Minute)
		if s := b.Stats(); s.OpenFor != time.Minute {
			t.Errorf("after Trip: %+v", s)
		}
		b.Reset()
		b.Reset() // closed already: no event
		wantState(t, b, resilience.Closed)

		want := []string{"closed>open", "open>half-open", "half-open>open", "open>half-open",
			"half-open>closed", "closed>open", "open>open", "open>closed"}
		if !slices.Equal(events, want) {
			t.Errorf("events\n %v, want\n %v", events, want)
		}
	})
}

func TestBreakerAdmitsNoMoreThanItsProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Probes: 3}))
		b.Trip(time.Second)
		time.Sleep(time.Second)
		var admitted, rejected atomic.Int64
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				err := resilience.Do(context.Background(), b, func(context.Context) error {
					admitted.Add(1)
					<-release
					return nil
				})
				if errors.Is(err, resilience.ErrOpen) {
					rejected.Add(1)
				}
			})
		}
		synctest.Wait()
		if admitted.Load() != 3 || rejected.Load() != 47 {
			t.Errorf("admitted %d, rejected %d; want 3 and 47", admitted.Load(), rejected.Load())
		}
		close(release)
		wg.Wait()
		wantState(t, b, resilience.Closed)
	})
}

func TestBreakerAllowCountsOnce(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 2}))
	done := must(b.Allow(t.Context()))
	done(errDown)
	done(errDown)
	wantState(t, b, resilience.Closed)
	must(b.Allow(t.Context()))(errDown)
	wantState(t, b, resilience.Open)
	if _, err := b.Allow(t.Context()); !errors.Is(err, resilience.ErrOpen) {
		t.Errorf("Allow while open: %v", err)
	}
}

func TestBreakerTellsOneChangeAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *resilience.Breaker
		var told []resilience.State
		listening := 0
		b = must(resilience.NewBreaker(resilience.BreakerConfig{
			Observer: resilience.ObserverFunc(func(_ context.Context, c resilience.Event) {
				if listening++; listening > 1 {
					t.Error("told about a change while listening to another")
				}
				if len(told) == 0 {
					b.Reset() // a change from within
				}
				time.Sleep(time.Second) // and others meanwhile
				told = append(told, c.To)
				listening--
			}),
		}))
		var wg sync.WaitGroup
		wg.Go(func() { b.Trip(time.Hour) })
		synctest.Wait()
		wg.Go(func() { b.Trip(time.Hour) })
		synctest.Wait()
		wg.Go(b.Reset)
		wg.Wait()
		want := []resilience.State{resilience.Open, resilience.Closed, resilience.Open, resilience.Closed}
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestBreakerSurvivesABadOpenFor(t *testing.T) {
	t.Parallel()
	for name, openFor := range map[string]func(int, error) time.Duration{
		"panics": func(int, error) time.Duration { panic("boom") }, "negative": resilience.OpenFixed(-1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := must(resilience.NewBreaker(resilience.BreakerConfig{
				Window: resilience.Consecutive(), Failures: 1, OpenFor: openFor}))
			_ = do(t, b, fails)
			if s := b.Stats(); s.State != resilience.Open || s.OpenFor <= 4*time.Second {
				t.Errorf("stats = %+v, want the default open time", s)
			}
		})
	}
}

func TestBreakerMadeInALaterTimeThanItsCalls(t *testing.T) {
	t.Parallel()
	// Made outside the bubble, whose clock starts in the past.
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Failures: 2, MinCalls: 1, SlowCall: time.Second}))
	synctest.Test(t, func(t *testing.T) {
		play(b, "s.f")
		wantState(t, b, resilience.Closed)
		play(b, "f")
		wantState(t, b, resilience.Open)
	})
}

func TestOpenBackoff(t *testing.T) {
	t.Parallel()
	openFor := resilience.OpenBackoff(time.Second, 5*time.Second)
	busy := hint{after: 3 * time.Second}
	endless := hint{after: time.Hour}
	for _, tt := range []struct {
		episode int
		cause   error
		want    time.Duration
	}{
		{1, nil, time.Second}, {2, errDown, 2 * time.Second}, {3, nil, 4 * time.Second}, {4, nil, 5 * time.Second},
		{1000, nil, 5 * time.Second}, {1, busy, 3 * time.Second}, {1, endless, 5 * time.Second},
	} {
		if got := openFor(tt.episode, tt.cause); got < tt.want || got > tt.want+tt.want/10 {
			t.Errorf("episode %d after %v: %v, want %v and up to a tenth more", tt.episode, tt.cause, got, tt.want)
		}
	}
}

type coded int

func (c coded) Error() string   { return fmt.Sprint("status ", int(c)) }
func (c coded) StatusCode() int { return int(c) }

func TestClassify(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		want resilience.Outcome
	}{
		{"nil", canceled, nil, resilience.Success},
		{"error", t.Context(), errDown, resilience.Failure},
		{"caller cancelled", canceled, errDown, resilience.Neutral},
		{"deadline passed", late, errDown, resilience.Failure},
		{"bulkhead further in", t.Context(), &resilience.FullError{}, resilience.Neutral},
		{"breaker further in", t.Context(), &resilience.OpenError{}, resilience.Neutral},
		{"retried further in, all rejected", t.Context(), &resilience.RetryError{Errs: []error{&resilience.FullError{}, &resilience.OpenError{}}}, resilience.Neutral},
		{"retried further in, one failed", t.Context(), &resilience.RetryError{Errs: []error{errDown, &resilience.OpenError{}}}, resilience.Failure},
		{"not found", t.Context(), fmt.Errorf("get: %w", coded(404)), resilience.Success},
		{"too many requests", t.Context(), coded(429), resilience.Failure},
		{"request timeout", t.Context(), coded(408), resilience.Failure},
		{"cancelled upstream", t.Context(), coded(499), resilience.Failure},
		{"server error", t.Context(), coded(500), resilience.Failure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := resilience.Classify(tt.ctx, tt.err); got != tt.want {
				t.Errorf("outcome = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestWindowsAgreeWithAPlainList compares both sliding windows with a list of all
// calls.
func TestWindowsAgreeWithAPlainList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 6).Draw(rt, "size")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				wait:   time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond,
				failed: rapid.Bool().Draw(rt, "failed"),
			}
		}), 0, 40).Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(*testing.T) { problem = compareWindows(size, steps) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

type step struct {
	wait   time.Duration
	failed bool
}

func compareWindows(size int, steps []step) string {
	type call struct {
		second int
		failed bool
	}
	count := func(calls []call) (failures int) {
		for _, c := range calls {
			if c.failed {
				failures++
			}
		}
		return failures
	}
	start := time.Now()
	never := resilience.BreakerConfig{FailureRate: 1, MinCalls: 1 << 30}
	never.Window = resilience.Time(time.Duration(size)*time.Second, size)
	byTime := must(resilience.NewBreaker(never))
	byCount := must(resilience.NewBreaker(resilience.BreakerConfig{
		Window: resilience.Count(size), FailureRate: 1, MinCalls: size}))

	var calls []call
	for i, s := range steps {
		time.Sleep(s.wait)
		fn := works
		if s.failed {
			fn = fails
		}
		now := int(time.Since(start) / time.Second)
		calls = append(calls, call{now, s.failed})

		_ = resilience.Do(context.Background(), byTime, fn)
		young := slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.second <= now-size })
		if got := byTime.Stats(); got.Calls != len(young) || got.Failures != count(young) {
			return fmt.Sprintf("step %d: time window holds %d/%d, want %d/%d", i, got.Failures, got.Calls, count(young), len(young))
		}

		if byCount.State() != resilience.Closed {
			continue
		}
		_ = resilience.Do(context.Background(), byCount, fn)
		last := calls[max(0, len(calls)-size):]
		got := byCount.Stats()
		if all := count(last) == size; all != (got.State == resilience.Open) {
			return fmt.Sprintf("step %d: count window is %v with %d of %d failed", i, got.State, count(last), size)
		} else if !all && (got.Calls != len(last) || got.Failures != count(last)) {
			return fmt.Sprintf("step %d: count window holds %d/%d, want %d/%d", i, got.Failures, got.Calls, count(last), len(last))
		}
		if got.State == resilience.Open {
			byCount.Trip(24 * time.Hour) // the list goes on, the window is done
		}
	}
	return ""
}
