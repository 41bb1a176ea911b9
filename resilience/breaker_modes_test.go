package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestForcedModes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Name: "payment", Window: resilience.Consecutive(), Failures: 2, Mode: resilience.ForcedOpen}))
		err := do(t, b, works)
		var open *resilience.OpenError
		if !errors.As(err, &open) || open.State != resilience.Open || b.State() != resilience.Open {
			t.Fatalf("forced open: %v, state %v", err, b.State())
		}
		if wait, ok := open.RetryAfter(); ok || wait != 0 {
			t.Errorf("forced open says to come back in %v", wait)
		}
		if _, err := b.Allow(t.Context()); !errors.Is(err, resilience.ErrOpen) {
			t.Errorf("Allow while forced open: %v", err)
		}

		b.SetMode(resilience.ForcedClosed)
		play(b, "fffffnsf")
		wantState(t, b, resilience.Closed)
		b.SetMode(resilience.Auto)
		play(b, "f") // what went before does not count
		wantState(t, b, resilience.Closed)
		held := must(b.Allow(t.Context()))
		b.SetMode(resilience.ForcedClosed)
		held(errDown) // nor does what ends in a forced mode
		b.SetMode(resilience.Mode(9))
		if b.Mode() != resilience.ForcedClosed {
			t.Errorf("mode = %v after one that does not exist", b.Mode())
		}
		b.SetMode(resilience.Auto)
		wantState(t, b, resilience.Closed)
		if s, want := b.Stats(), (resilience.BreakerStats{
			Calls: 1, Failures: 1, Succeeded: 1, Failed: 8, Neutral: 1, Rejected: 2}); s != want {
			t.Errorf("stats = %+v, want %+v", s, want)
		}

		b.Trip(10 * time.Second) // an episode runs on beneath a forced mode
		b.SetMode(resilience.ForcedClosed)
		if err := do(t, b, works); err != nil || b.State() != resilience.Closed {
			t.Errorf("forced closed over an open breaker: %v, %v", err, b.State())
		}
		time.Sleep(4 * time.Second)
		b.SetMode(resilience.Auto)
		if s := b.Stats(); s.State != resilience.Open || s.OpenFor != 6*time.Second {
			t.Errorf("after a forced mode: %+v", s)
		}
	})
}

func TestMetricsOnlyRejectsNothingAndTellsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Consecutive(), Failures: 2, Probes: 1, Mode: resilience.MetricsOnly,
			OpenFor: resilience.OpenFixed(time.Second), Observer: tellTo(&told),
		}))
		for range 2 {
			if err := do(t, b, fails); err != errDown {
				t.Fatalf("error = %v", err)
			}
		}
		wantState(t, b, resilience.Open)
		ran := false
		if err := do(t, b, func(context.Context) error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("beside an open breaker: ran = %v, %v", ran, err)
		}
		wantState(t, b, resilience.Open) // a call that should not have been says nothing
		time.Sleep(time.Second)
		probe := must(b.Allow(t.Context()))
		play(b, "f") // beside the probe
		wantState(t, b, resilience.HalfOpen)
		probe(nil)
		wantState(t, b, resilience.Closed)
		want := []string{"closed>open", "shadow open", "open>half-open", "shadow half-open", "half-open>closed"}
		if !slices.Equal(told, want) {
			t.Errorf("told\n %v, want\n %v", told, want)
		}
		if s, want := b.Stats(), (resilience.BreakerStats{Mode: resilience.MetricsOnly,
			Opened: 1, Succeeded: 2, Failed: 3, ShadowRejected: 2}); s != want {
			t.Errorf("stats = %+v, want %+v", s, want)
		}
	})
}

// tellTo renders events in a few words. It needs no lock: a breaker tells one event
// at a time.
func tellTo(told *[]string) resilience.Observer {
	return resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
		text := e.Kind.String()
		switch e.Kind {
		case resilience.EventStateChanged:
			text = fmt.Sprintf("%v>%v", e.From, e.To)
		case resilience.EventSlowCall:
			text = "slow " + e.Duration.String()
		case resilience.EventRejected:
			var open *resilience.OpenError
			errors.As(e.Err, &open)
			text = "rejected " + open.State.String()
			if e.Shadow {
				text = "shadow " + open.State.String()
			}
		}
		*told = append(*told, text)
	})
}

func TestBreakerTellsEverythingInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Count(2), SlowCall: 2 * time.Second, Probes: 1,
			OpenFor: resilience.OpenFixed(time.Second), Observer: tellTo(&told),
		}))
		play(b, "LL") // slow successes open it
		play(b, "s.L.s")
		b.SetMode(resilience.ForcedOpen)
		play(b, "s")
		b.SetMode(resilience.ForcedClosed)
		play(b, "f")
		b.Trip(time.Minute) // nobody sees it yet
		b.SetMode(resilience.MetricsOnly)
		b.SetMode(resilience.Auto)
		b.Reset()
		want := []string{"slow 2s", "slow 2s", "closed>open", "rejected open", "open>half-open",
			"slow 2s", "half-open>open", "open>half-open", "half-open>closed",
			"closed>open", "rejected open", "open>closed", "closed>open", "open>closed"}
		if !slices.Equal(told, want) {
			t.Errorf("told\n %v, want\n %v", told, want)
		}
	})
}

func TestBreakerEventsCarryTheirCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var events []resilience.Event
		var values []any
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Name: "payment", Window: resilience.Consecutive(), Failures: 1, OpenFor: resilience.OpenFixed(time.Second),
			Probes: 1, ProbeTimeout: time.Second,
			Observer: resilience.ObserverFunc(func(ctx context.Context, e resilience.Event) {
				events, values = append(events, e), append(values, ctx.Value(key{}))
			}),
		}))
		ctx := func(v int) context.Context { return context.WithValue(t.Context(), key{}, v) }
		_ = resilience.Do(ctx(1), b, fails)
		rejection := resilience.Do(ctx(2), b, works)
		time.Sleep(time.Second)
		must(b.Allow(ctx(3)))   // and never reported
		time.Sleep(time.Second) // until the watchdog opens it again
		synctest.Wait()
		if want := []any{1, 2, 3, nil}; !slices.Equal(values, want) {
			t.Errorf("contexts of %v, want %v", values, want)
		}
		hung := events[3].Err
		want := []resilience.Event{
			{Kind: resilience.EventStateChanged, To: resilience.Open, Duration: time.Second, Err: errDown},
			{Kind: resilience.EventRejected, Err: rejection},
			{Kind: resilience.EventStateChanged, From: resilience.Open, To: resilience.HalfOpen},
			{Kind: resilience.EventStateChanged, From: resilience.HalfOpen, To: resilience.Open, Duration: time.Second, Err: hung},
		}
		for i := range want {
			want[i].Policy, want[i].Name = "breaker", "payment"
		}
		if !slices.Equal(events, want) || hung == nil {
			t.Errorf("events\n %+v, want\n %+v", events, want)
		}
	})
}

func TestSlowObserverMissesNoChangeOfState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := map[resilience.EventKind]int{}
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
				told[e.Kind]++
				time.Sleep(time.Second)
			}),
		}))
		slow := make(chan struct{})
		go func() { defer close(slow); b.Trip(time.Hour) }()
		synctest.Wait()
		play(b, strings.Repeat("s", 3000))
		b.Reset()
		if s := b.Stats(); s.Rejected != 3000 {
			t.Errorf("stats = %+v", s)
		}
		<-slow
		if told[resilience.EventRejected] != 1024 || told[resilience.EventStateChanged] != 2 {
			t.Errorf("told %v", told)
		}
	})
}

func TestBadObserverLosesNothing(t *testing.T) {
	t.Parallel()
	for name, misbehave := range map[string]func(){
		"panics": func() { panic("observer") }, "exits": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var told []string
				b := must(resilience.NewBreaker(resilience.BreakerConfig{
					Window: resilience.Consecutive(), Failures: 1, SlowCall: 2 * time.Second, Probes: 1,
					OpenFor: resilience.OpenFixed(time.Second), ProbeTimeout: 5 * time.Second,
					Observer: resilience.ObserverFunc(func(ctx context.Context, e resilience.Event) {
						tellTo(&told).On(ctx, e)
						misbehave()
					}),
				}))
				run := func(pattern string) { // one call may end in a panic or an exit
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { _ = recover() }()
						play(b, pattern)
					}()
					<-done
				}
				run("f")
				wantState(t, b, resilience.Open)
				run("s")
				time.Sleep(time.Second)
				run("s") // told of half-open, and never ran
				wantState(t, b, resilience.HalfOpen)
				run("L") // its place was given back
				wantState(t, b, resilience.Open)
				time.Sleep(time.Second)
				run("s")
				run("f")
				wantState(t, b, resilience.Open)
				time.Sleep(time.Second)
				run("n") // told of half-open
				must(b.Allow(t.Context()))
				time.Sleep(5 * time.Second) // the watchdog's observer must not end the process
				synctest.Wait()
				wantState(t, b, resilience.Open)
				want := []string{"closed>open", "rejected open", "open>half-open", "slow 2s", "half-open>open",
					"open>half-open", "half-open>open", "open>half-open", "half-open>open"}
				if !slices.Equal(told, want) {
					t.Errorf("told\n %v, want\n %v", told, want)
				}
			})
		})
	}
}

func TestProbesAreJudgedByRate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		probes  int
		share   float64
		pattern string
		want    resilience.State
	}{
		{3, 0, "ss", resilience.HalfOpen},
		{3, 0, "sss", resilience.Closed},
		{3, 0, "f", resilience.Open},
		{4, 0.5, "ffs", resilience.HalfOpen},
		{4, 0.5, "fsfs", resilience.Closed},
		{4, 0.5, "ss", resilience.Closed}, // certain already
		{4, 0.5, "sfff", resilience.Open},
		{4, 0.5, "fff", resilience.Open},
		{4, 0.5, "fnnnfnns", resilience.HalfOpen},
		{100, 0.55, strings.Repeat("s", 55), resilience.Closed}, // 0.55*100 is more than 55
		{100, 0.55, strings.Repeat("f", 45) + strings.Repeat("s", 54), resilience.HalfOpen},
		{5, 1e-9, "ffffs", resilience.Closed},
		{5, 1, "ssssL", resilience.Open},     // slow is not good enough
		{5, 0.8, "ssLss", resilience.Closed}, // unless that many may fail
	} {
		t.Run(fmt.Sprint(tt.probes, tt.share, tt.pattern), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBreaker(resilience.BreakerConfig{
					Probes: tt.probes, ProbeSuccess: tt.share, SlowCall: 2 * time.Second}))
				b.Trip(time.Second)
				time.Sleep(time.Second)
				play(b, tt.pattern)
				wantState(t, b, tt.want)
			})
		})
	}
}

func TestVerdictDoesNotWaitForProbesUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Probes: 4, ProbeSuccess: 0.5}))
		b.Trip(time.Second)
		time.Sleep(time.Second)
		hung := []func(error){must(b.Allow(t.Context())), must(b.Allow(t.Context()))}
		play(b, "ss")
		wantState(t, b, resilience.Closed)
		hung[0](errDown)
		if s := b.Stats(); s.Failures != 0 || s.Failed != 1 {
			t.Errorf("a probe that came late: %+v", s)
		}
		time.Sleep(time.Minute) // and its watchdog is silent
		synctest.Wait()
		wantState(t, b, resilience.Closed)
	})
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	t.Parallel()
	cfg := resilience.BreakerConfig{Name: "payment", Window: resilience.Count(10), Failures: 3}
	b := must(resilience.NewBreaker(cfg))
	before := b.Describe().String()
	for want, change := range map[string]func(*resilience.BreakerConfig){
		"Failures = 11":          func(c *resilience.BreakerConfig) { c.Failures, c.Probes = 11, 7 },
		`Name = other: must not`: func(c *resilience.BreakerConfig) { c.Name, c.Failures = "other", 1 },
	} {
		bad := cfg
		change(&bad)
		if err := b.Update(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want one about %s", err, want)
		}
	}
	if got := b.Describe().String(); got != before {
		t.Errorf("described as\n%s\nwant\n%s", got, before)
	}
	play(b, "ff")
	wantState(t, b, resilience.Closed)
}

func TestUpdateTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := resilience.BreakerConfig{
			Window: resilience.Count(10), Failures: 5, Probes: 1, OpenFor: resilience.OpenFixed(time.Second)}
		b := must(resilience.NewBreaker(cfg))
		update := func() {
			t.Helper()
			if err := b.Update(cfg); err != nil {
				t.Fatal(err)
			}
		}
		play(b, "ff")
		early := must(b.Allow(t.Context()))
		cfg.Failures, cfg.Mode = 3, resilience.ForcedOpen
		update()
		if s := b.Stats(); s.Failures != 2 || s.Mode != resilience.Auto {
			t.Errorf("the window or the mode changed: %+v", s)
		}
		early(errDown) // begun under the old settings, judged by the new
		wantState(t, b, resilience.Open)

		cfg.Probes, cfg.OpenFor = 2, resilience.OpenFixed(time.Minute)
		update()
		time.Sleep(time.Second) // the episode ends as it began
		play(b, "s")
		wantState(t, b, resilience.Closed)
		play(b, "fff")
		if s := b.Stats(); s.OpenFor != time.Minute {
			t.Errorf("the next episode: %+v", s)
		}
		time.Sleep(time.Minute)
		play(b, "s")
		wantState(t, b, resilience.HalfOpen)
		play(b, "s")
		wantState(t, b, resilience.Closed)

		play(b, "ff")
		early = must(b.Allow(t.Context()))
		cfg.Window = resilience.Time(time.Minute, 6)
		update()
		early(errDown)
		if s := b.Stats(); s.Calls != 1 || s.Failures != 1 {
			t.Errorf("another window begins empty and takes calls under way: %+v", s)
		}
		early = must(b.Allow(t.Context()))
		cfg.Window, cfg.SlowCall = resilience.Consecutive(), time.Second
		update()
		time.Sleep(time.Second)
		early(nil)
		if s := b.Stats(); s.SlowTotal != 0 {
			t.Errorf("a call whose start nobody noted cannot be slow: %+v", s)
		}
	})
}

func TestReadyToTripIsARuleBesideTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []resilience.BreakerStats
		var b *resilience.Breaker
		b = must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Count(10), Failures: 3, OpenFor: resilience.OpenFixed(time.Second), Probes: 1,
			ReadyToTrip: func(s resilience.BreakerStats) bool {
				if now := b.Stats(); now != s { // outside locks
					t.Errorf("asked with %+v, Stats says %+v", s, now)
				}
				seen = append(seen, s)
				return s.Succeeded == 4
			},
		}))
		play(b, "sssn")
		wantState(t, b, resilience.Closed)
		var open *resilience.OpenError
		play(b, "s") // a success may open it
		if err := do(t, b, works); !errors.As(err, &open) || open.Cause != nil {
			t.Fatalf("error = %v, want a rejection without a cause", err)
		}
		play(b, ".s") // a probe is not asked about
		if len(seen) != 4 || seen[3].Calls != 4 {
			t.Errorf("asked with %+v", seen)
		}
		play(b, "fff") // the other rule is in force
		wantState(t, b, resilience.Open)
	})
}

func TestOwnRuleAloneHasNoDefaultsBesideIt(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]resilience.Window{
		"consecutive": resilience.Consecutive(), "count": resilience.Count(10), "time": resilience.Time(time.Minute, 6),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := must(resilience.NewBreaker(resilience.BreakerConfig{
				Window: window, ReadyToTrip: func(s resilience.BreakerStats) bool { return s.Failed == 30 }}))
			play(b, strings.Repeat("f", 29))
			wantState(t, b, resilience.Closed)
			play(b, "f")
			wantState(t, b, resilience.Open)
		})
	}
}

func TestPanickingRuleIsTheCallersMatter(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{
		Window: resilience.Count(10), Failures: 2, ReadyToTrip: func(resilience.BreakerStats) bool { panic("rule") }}))
	func() {
		defer func() {
			if recover() != "rule" {
				t.Error("the panic is lost")
			}
		}()
		play(b, "f")
	}()
	if s := b.Stats(); s.Failures != 1 || s.Failed != 1 {
		t.Errorf("counted %+v, want once", s)
	}
	play(b, "f")
	wantState(t, b, resilience.Open)
}

func TestGoexitInOpenForOpensAllTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Consecutive(), Failures: 1, Probes: 1,
			OpenFor: func(int, error) time.Duration { runtime.Goexit(); return 0 }}))
		for episode := 1; episode <= 2; episode++ { // from closed, then from half-open
			done := make(chan struct{})
			go func() { defer close(done); play(b, "f") }()
			<-done
			if s := b.Stats(); s.State != resilience.Open || s.Episode != episode {
				t.Fatalf("stats = %+v", s)
			}
			time.Sleep(b.Stats().OpenFor)
		}
		play(b, "s")
		wantState(t, b, resilience.Closed)
	})
}

func TestOpenErrorTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "payment", Probes: 1}))
		b.Trip(3 * time.Second)
		first := do(t, b, works)
		time.Sleep(time.Second)
		if second := do(t, b, works); second != first {
			t.Errorf("%p and %p: one error per episode and state", first, second)
		}
		var open *resilience.OpenError
		errors.As(first, &open)
		if got, want := open.Error(), `resilience: pass breaker "payment": open for another 2s`; got != want {
			t.Errorf("text %q, want %q", got, want)
		}
		time.Sleep(5 * time.Second)
		if wait, ok := open.RetryAfter(); !ok || wait != 0 {
			t.Errorf("long after: %v, %v; want 0, true", wait, ok)
		}
		must(b.Allow(t.Context()))
		half := do(t, b, works)
		errors.As(half, &open)
		if _, ok := open.RetryAfter(); ok || open.Error() != `resilience: pass breaker "payment": half-open` {
			t.Errorf("half-open: %v, known %v", half, ok)
		}
		b.Reset()
		time.Sleep(time.Minute)
	})
}

func TestOpenBackoffAtItsLimits(t *testing.T) {
	t.Parallel()
	const forever = time.Duration(1<<63 - 1)
	for _, tt := range []struct {
		first, most time.Duration
		random      float64
		episode     int
		want        time.Duration
	}{
		{time.Second, time.Minute, 0, 3, 4 * time.Second},
		{time.Second, time.Minute, 1, 1, 1100 * time.Millisecond},
		{time.Second, time.Minute, -1, 1, time.Second},
		{time.Second, time.Minute, 2, 1, time.Second},
		{time.Second, forever, 1, 1 << 40, forever},
		{time.Second, forever, -1, 1 << 40, forever},
		{0, time.Minute, 1, 1 << 40, 0},
		{time.Hour, time.Minute, 0, 1, time.Minute},
	} {
		openFor := resilience.OpenBackoffRand(tt.first, tt.most, func() float64 { return tt.random })
		if got := openFor(tt.episode, nil); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestRatesAreComparedExactly(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Count(100), FailureRate: 0.55, MinCalls: 100}))
	play(b, strings.Repeat("s", 45)+strings.Repeat("f", 54))
	wantState(t, b, resilience.Closed)
	play(b, "f")
	wantState(t, b, resilience.Open)
}

// TestBreakerUnderFire changes everything at once. What must hold: no
// call uncounted, and no change of state untold or out of order.
func TestBreakerUnderFire(t *testing.T) {
	t.Parallel()
	const probes, callers, rounds = 2, 8, 400
	var told uint64 // rejections
	var last resilience.State
	cfg := resilience.BreakerConfig{
		Window: resilience.Consecutive(), Failures: 3, Probes: probes, OpenFor: resilience.OpenFixed(time.Microsecond),
		SlowCall: time.Minute, ProbeTimeout: time.Minute,
		Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
			switch e.Kind {
			case resilience.EventRejected:
				told++
			case resilience.EventStateChanged:
				if e.From != last {
					t.Errorf("told of %v to %v after one to %v", e.From, e.To, last)
				}
				last = e.To
			}
		}),
	}
	b := must(resilience.NewBreaker(cfg))
	var good, bad, neutral, rejected atomic.Uint64
	count := func(err error) {
		switch {
		case errors.Is(err, resilience.ErrOpen):
			rejected.Add(1)
		case err == nil:
			good.Add(1)
		case err == errDown:
			bad.Add(1)
		default:
			neutral.Add(1)
		}
	}
	errs := []error{nil, errDown, resilience.ErrFull}
	var calls, changes sync.WaitGroup
	for caller := range callers {
		calls.Go(func() {
			for i := range rounds {
				result := errs[(i+caller)%len(errs)]
				if i%2 == 0 {
					count(resilience.Do(context.Background(), b, func(context.Context) error { runtime.Gosched(); return result }))
					continue
				}
				done, err := b.Allow(context.Background())
				if err == nil {
					runtime.Gosched()
					done(result)
					done(errDown)
					err = result
				}
				count(err)
			}
		})
	}
	stop := make(chan struct{})
	windows := []resilience.Window{resilience.Consecutive(), resilience.Count(5), resilience.Time(time.Second, 2)}
	for _, change := range []func(int){
		func(i int) { c := cfg; c.Window = windows[i%3]; must(0, b.Update(c)) },
		func(i int) { b.SetMode(resilience.Mode(i % 4)) },
		func(int) { b.Trip(time.Microsecond) },
		func(int) { b.Reset() },
		func(int) { _, _, _ = b.Stats(), b.State(), b.Describe() },
	} {
		changes.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					change(i)
					runtime.Gosched()
				}
			}
		})
	}
	calls.Wait()
	close(stop)
	changes.Wait()
	s := b.Stats()
	if s.Succeeded != good.Load() || s.Failed != bad.Load() || s.Neutral != neutral.Load() || s.Rejected != rejected.Load() {
		t.Errorf("stats %+v; callers saw %d good, %d bad, %d neutral, %d rejected", s, good.Load(), bad.Load(), neutral.Load(), rejected.Load())
	}
	if all := s.Succeeded + s.Failed + s.Neutral + s.Rejected; all != callers*rounds || s.SlowTotal != 0 {
		t.Errorf("%d calls in the totals of %d", all, callers*rounds)
	}
	if told == 0 || told > s.Rejected+s.ShadowRejected { // fewer when 1024 had to wait
		t.Errorf("told of %d rejections, counted %d and %d", told, s.Rejected, s.ShadowRejected)
	}
	// After all that it still works as one.
	b.SetMode(resilience.Auto)
	must(0, b.Update(cfg))
	b.Reset()
	play(b, "fff")
	if s := b.Stats(); s.Episode != 1 {
		t.Errorf("afterwards: %+v", s)
	}
}

// TestProbesUnderFire: many callers and changes that do not begin an episode, with
// the probes of each episode counted.
func TestProbesUnderFire(t *testing.T) {
	t.Parallel()
	const probes = 3
	cfg := resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1, Probes: probes, ProbeTimeout: time.Hour}
	b := must(resilience.NewBreaker(cfg))
	for episode := range 50 {
		b.Trip(1)
		for b.State() != resilience.HalfOpen {
			runtime.Gosched()
		}
		var running, most atomic.Int64
		var callers sync.WaitGroup
		for i := range 8 {
			callers.Go(func() {
				for range 20 {
					_ = resilience.Do(context.Background(), b, func(context.Context) error {
						if n := running.Add(1); n > most.Load() {
							most.Store(n)
						}
						runtime.Gosched()
						running.Add(-1)
						return resilience.ErrFull // neutral: the place goes from hand to hand
					})
					if i == 0 {
						must(0, b.Update(cfg))
					}
				}
			})
		}
		callers.Wait()
		wantState(t, b, resilience.HalfOpen)
		if most.Load() > probes || most.Load() == 0 {
			t.Fatalf("episode %d: %d probes at once, want at most %d", episode, most.Load(), probes)
		}
		play(b, "sss")
		wantState(t, b, resilience.Closed)
	}
}

func TestBreakerLimits(t *testing.T) {
	t.Parallel()
	type config = resilience.BreakerConfig
	for want, cfg := range map[string]config{
		"Probes = 10001":             {Probes: 10001},
		"ProbeSuccess = 1.1":         {ProbeSuccess: 1.1},
		"ProbeSuccess = NaN":         {ProbeSuccess: math.NaN()},
		"Mode = 4":                   {Mode: 4},
		"Window = Count(1000001)":    {Window: resilience.Count(1_000_001)},
		"Window = Time(1s, 100001)":  {Window: resilience.Time(time.Second, 100_001)},
		"SlowRate = NaN":             {SlowCall: 1, SlowRate: math.NaN()},
		"FailureRate = +Inf: must":   {FailureRate: math.Inf(1)},
		"Window = Time(-1s, 2): mus": {Window: resilience.Time(-time.Second, 2)},
	} {
		if _, err := resilience.NewBreaker(cfg); err == nil || !strings.Contains(err.Error(), "breaker: "+want) {
			t.Errorf("error = %v, want one about %s", err, want)
		}
	}
}

func TestSlowAnswerIsNoCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Consecutive(), Failures: 2, SlowCall: time.Second, Observer: tellTo(&told)}))
		late := func(context.Context) error { time.Sleep(time.Second); return coded(404) }
		_ = do(t, b, late)
		if want := []string{"slow 1s"}; !slices.Equal(told, want) { // not only with the next change
			t.Errorf("told %v, want %v", told, want)
		}
		_ = do(t, b, late)
		var open *resilience.OpenError
		if err := do(t, b, works); !errors.As(err, &open) || open.Cause != nil {
			t.Errorf("error = %v, cause %v; want a rejection without", err, open.Cause)
		}
	})
}

func TestNeutralIsNeverSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{SlowCall: time.Second}))
		_ = do(t, b, func(context.Context) error { time.Sleep(time.Hour); return resilience.ErrFull })
		if s := b.Stats(); s.SlowTotal != 0 || s.Neutral != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestMadeUpOutcomeIsAFailure(t *testing.T) {
	t.Parallel()
	for _, window := range []resilience.Window{resilience.Consecutive(), resilience.Count(9)} {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: window, Failures: 2, Classify: func(context.Context, error) resilience.Outcome { return 200 }}))
		play(b, "ff")
		wantState(t, b, resilience.Open)
		if s := b.Stats(); s.Failed != 2 {
			t.Errorf("stats = %+v", s)
		}
	}
}

func TestModeChangesTellOfTheStateTheyUncover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []resilience.Event
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Probes: 2, Mode: resilience.ForcedOpen, Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
				e.Policy, e.Name = "", ""
				events = append(events, e)
			}),
		}))
		want := func(want ...resilience.Event) {
			t.Helper()
			for i := range want {
				want[i].Kind = resilience.EventStateChanged
			}
			if !slices.Equal(events, want) {
				t.Errorf("events\n %+v, want\n %+v", events, want)
			}
			events = nil
		}
		b.SetMode(resilience.ForcedOpen) // as it was made
		want()
		b.SetMode(resilience.ForcedClosed)
		want(resilience.Event{From: resilience.Open})
		b.Trip(10 * time.Second)
		want()
		time.Sleep(3 * time.Second)
		b.SetMode(resilience.Auto)
		want(resilience.Event{To: resilience.Open, Duration: 7 * time.Second})
		time.Sleep(7 * time.Second)
		done := must(b.Allow(t.Context()))
		want(resilience.Event{From: resilience.Open, To: resilience.HalfOpen})
		b.SetMode(resilience.MetricsOnly)
		want()
		b.SetMode(resilience.ForcedOpen)
		want(resilience.Event{From: resilience.HalfOpen, To: resilience.Open})
		b.SetMode(resilience.Auto)
		want(resilience.Event{From: resilience.Open, To: resilience.HalfOpen})
		done(nil)
		play(b, "s")
		want(resilience.Event{From: resilience.HalfOpen, To: resilience.Closed})
	})
}

func TestStreakDoesNotSurviveAnotherWindow(t *testing.T) {
	t.Parallel()
	cfg := resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 3}
	b := must(resilience.NewBreaker(cfg))
	play(b, "ff")
	cfg.Window = resilience.Count(10)
	must(0, b.Update(cfg))
	play(b, "s")
	cfg.Window = resilience.Consecutive()
	must(0, b.Update(cfg))
	play(b, "f")
	if s := b.Stats(); s.State != resilience.Closed || s.Failures != 1 {
		t.Errorf("stats = %+v", s)
	}
}

func TestNoProbePassesBetweenVerdictAndReopening(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b *resilience.Breaker
		asked := false
		b = must(resilience.NewBreaker(resilience.BreakerConfig{
			Probes: 2, OpenFor: func(int, error) time.Duration { // asked just then, without a lock
				asked = true
				if _, err := b.Allow(context.Background()); !errors.Is(err, resilience.ErrOpen) {
					t.Errorf("Allow after the verdict: %v", err)
				}
				return time.Second
			},
		}))
		b.Trip(time.Second)
		time.Sleep(time.Second)
		free, bad := must(b.Allow(t.Context())), must(b.Allow(t.Context()))
		free(resilience.ErrFull)
		bad(errDown)
		if s := b.Stats(); !asked || s.State != resilience.Open || s.Episode != 2 {
			t.Errorf("asked %v, %+v", asked, s)
		}
	})
}

func TestProbeOfAnEpisodeThatWasTrippedOver(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]error{"good": nil, "bad": errDown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBreaker(resilience.BreakerConfig{Probes: 1}))
				b.Trip(time.Second)
				time.Sleep(time.Second)
				probe := must(b.Allow(t.Context()))
				b.Trip(time.Minute)
				probe(result)
				if s := b.Stats(); s.State != resilience.Open || s.Episode != 2 || s.OpenFor != time.Minute {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}
