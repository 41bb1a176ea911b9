package peers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	gobreaker2 "github.com/sony/gobreaker/v2"

	"github.com/armature-go/armature/resilience"
)

// FuzzBreakerAgainstGobreakerV2 plays one script to gobreaker v2 and to ours, both
// in two steps and on one virtual clock, and compares after every step: whether a
// call is admitted, why it is not, the state, and the failures counted.
//
// What they share: a trip after failures in a row, after failures in all since the
// breaker closed (Interval 0 there, a Count window longer than the script here), or
// after failures within buckets of time; an open time that is fixed; probes all of
// which must succeed; results that count for nothing; results that come in any order
// and too late; any number of calls at once.
//
// Where they differ on purpose, each with a test below. The scripts stay clear of
// these and nothing else may differ.
//
//  1. At the very instant the open time is over ours admits; gobreaker does one
//     nanosecond later. (The scripts give gobreaker one nanosecond less.)
//  2. Reported twice, a call counts once here and twice there.
//  3. A probe that never reports fails after ProbeTimeout; there it keeps its place.
//  4. runtime.Goexit is a failure; there the call never ends. A panic is a failure
//     in both.
//  5. A call whose caller has cancelled counts for nothing; there it is a failure.
//  6. An error that speaks for a callee in good health (status 4xx) is a success,
//     a rejection further in counts for nothing; there both are failures.
//  7. Rates are looked at after every call; there only after a failure, so that a
//     success which completes the minimum of calls cannot open the breaker.
//  8. In a window of time a result counts when the call ends, in buckets on the
//     breaker's own clock; there when it began, in buckets since the last change of
//     state. (The scripts move by whole buckets and end calls in theirs.)
//  9. Looking at the state changes nothing; there it performs the change to half-open
//     and tells the listener.
func FuzzBreakerAgainstGobreakerV2(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(randomScript(seed, 300))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > maxScript {
			return
		}
		synctest.Test(t, func(t *testing.T) { playBreakers(t, script) })
	})
}

const (
	maxScript = 2000 // bytes, and so calls
	bucket    = 100 * time.Millisecond
	never     = 1000 * time.Hour // longer than a script
)

var errNeutral = errors.New("payment: says nothing")

func randomScript(seed uint64, length int) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	script := make([]byte, length)
	for i := range script {
		script[i] = byte(random.UintN(256))
	}
	return script
}

// script hands out bytes, and zeros when it is over.
type script []byte

func (s *script) next(n int) int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b) % n
}

type rule int

const (
	inARow rule = iota
	inAll
	inTime
	rules
)

// pair is the same call, or the same breaker, of both sides.
type pair struct {
	rule   rule
	ours   *resilience.Breaker
	theirs *gobreaker2.TwoStepCircuitBreaker[any]
	calls  []*call // under way
}

type call struct {
	ours, theirs func(error)
	probe        bool
}

func newPair(r rule, failures, probes, buckets int, open time.Duration) *pair {
	window := resilience.Consecutive()
	settings := gobreaker2.Settings{
		MaxRequests: uint32(probes),
		Timeout:     open - 1,
		ReadyToTrip: func(c gobreaker2.Counts) bool { return c.ConsecutiveFailures >= uint32(failures) },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNeutral) },
	}
	if r != inARow {
		window = resilience.Count(maxScript)
		settings.ReadyToTrip = func(c gobreaker2.Counts) bool { return c.TotalFailures >= uint32(failures) }
	}
	if r == inTime {
		window = resilience.Time(time.Duration(buckets)*bucket, buckets)
		settings.Interval, settings.BucketPeriod = time.Duration(buckets)*bucket, bucket
	}
	return &pair{
		rule:   r,
		theirs: gobreaker2.NewTwoStepCircuitBreaker[any](settings),
		ours: must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: window, Failures: failures, Probes: probes,
			OpenFor: resilience.OpenFixed(open), ProbeTimeout: never,
			Classify: func(_ context.Context, err error) resilience.Outcome {
				if errors.Is(err, errNeutral) {
					return resilience.Neutral
				}
				return resilience.Failure
			},
		})),
	}
}

func playBreakers(t *testing.T, s script) {
	r := rule(s.next(int(rules)))
	failures, probes := 1+s.next(6), 1+s.next(4)
	buckets, open := 2+s.next(8), time.Duration(1+s.next(20))*bucket
	p := newPair(r, failures, probes, buckets, open)
	setup := fmt.Sprintf("rule %d, %d failures, %d probes, %d buckets, open for %v", r, failures, probes, buckets, open)
	for step := 0; len(s) > 0; step++ {
		did := p.step(t, &s, open)
		if diff := p.diff(); diff != "" {
			t.Fatalf("%s: step %d: %s: %s", setup, step, did, diff)
		}
	}
	for len(p.calls) > 0 { // leave no probe behind
		p.end(0, errNeutral)
	}
}

// step does one thing to both and says what.
func (p *pair) step(t *testing.T, s *script, open time.Duration) string {
	outcomes := []error{nil, errDown, errNeutral}
	switch what := s.next(8); {
	case what <= 1:
		return p.begin(t)
	case what <= 4 && len(p.calls) > 0:
		i, err := s.next(len(p.calls)), outcomes[s.next(len(outcomes))]
		p.end(i, err)
		return fmt.Sprintf("end call %d with %v", i, err)
	case what <= 5:
		err := outcomes[s.next(len(outcomes))]
		before := len(p.calls)
		did := p.begin(t)
		if len(p.calls) > before {
			p.end(before, err)
		}
		return fmt.Sprintf("%s and end it with %v", did, err)
	default:
		d := time.Duration(s.next(25)) * bucket
		if p.rule != inTime && what == 7 { // close to where the open time ends
			d = []time.Duration{1, open - 1, open, open + 1}[s.next(4)]
		}
		p.sleep(d)
		return fmt.Sprintf("wait %v", d)
	}
}

func (p *pair) begin(t *testing.T) string {
	t.Helper()
	probe := p.ours.State() == resilience.HalfOpen
	ours, ourErr := p.ours.Allow(context.Background())
	theirs, theirErr := p.theirs.Allow()
	if (ourErr == nil) != (theirErr == nil) || reason(ourErr) != reason(theirErr) {
		t.Fatalf("begin a call: ours says %v, gobreaker %v", ourErr, theirErr)
	}
	if ourErr == nil {
		p.calls = append(p.calls, &call{ours: ours, theirs: theirs, probe: probe})
	}
	return fmt.Sprintf("begin call %d (%v)", len(p.calls), ourErr)
}

// reason is the state that turned a call away.
func reason(err error) resilience.State {
	var open *resilience.OpenError
	switch {
	case errors.As(err, &open):
		return open.State
	case errors.Is(err, gobreaker2.ErrOpenState):
		return resilience.Open
	case errors.Is(err, gobreaker2.ErrTooManyRequests):
		return resilience.HalfOpen
	default:
		return resilience.Closed
	}
}

func (p *pair) end(i int, err error) {
	c := p.calls[i]
	p.calls = append(p.calls[:i:i], p.calls[i+1:]...)
	c.ours(err)
	c.theirs(err)
}

func (p *pair) sleep(d time.Duration) {
	if p.rule == inTime && d > 0 { // difference 8
		for i := len(p.calls) - 1; i >= 0; i-- {
			if !p.calls[i].probe {
				p.end(i, errNeutral)
			}
		}
	}
	time.Sleep(d)
}

// diff compares what can be seen without doing anything.
func (p *pair) diff() string {
	states := map[gobreaker2.State]resilience.State{
		gobreaker2.StateClosed: resilience.Closed, gobreaker2.StateOpen: resilience.Open, gobreaker2.StateHalfOpen: resilience.HalfOpen,
	}
	ours, theirs := p.ours.Stats(), p.theirs.State()
	if ours.State != states[theirs] {
		return fmt.Sprintf("ours is %v, gobreaker %v", ours.State, theirs)
	}
	if ours.State != resilience.Closed {
		return ""
	}
	counts := p.theirs.Counts()
	want := counts.TotalFailures
	if p.rule == inARow {
		want = counts.ConsecutiveFailures
	}
	if ours.Failures != int(want) {
		return fmt.Sprintf("ours counts %d failures, gobreaker %d", ours.Failures, want)
	}
	return ""
}

// The scripts must reach what they are to compare.
func TestBreakerScriptsReachEveryState(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			s := script(randomScript(seed, 300))
			p := newPair(rule(s.next(int(rules))), 1+s.next(6), 1+s.next(4), 2+s.next(8), time.Second)
			for before := p.ours.State(); len(s) > 0; {
				p.step(t, &s, time.Second)
				after := p.ours.State()
				if after != before {
					seen[fmt.Sprint(p.rule, before, after)]++
				}
				before = after
			}
			for len(p.calls) > 0 {
				p.end(0, errNeutral)
			}
		})
	}
	for r := range rules {
		for _, change := range [][2]resilience.State{
			{resilience.Closed, resilience.Open}, {resilience.Open, resilience.HalfOpen},
			{resilience.HalfOpen, resilience.Open}, {resilience.HalfOpen, resilience.Closed},
		} {
			if key := fmt.Sprint(r, change[0], change[1]); seen[key] < 10 {
				t.Errorf("rule %d: only %d changes from %v to %v", r, seen[key], change[0], change[1])
			}
		}
	}
}

// The differences.

func openedOurs(t *testing.T, cfg resilience.BreakerConfig) *resilience.Breaker {
	t.Helper()
	cfg.Window, cfg.Failures, cfg.Probes, cfg.OpenFor = resilience.Consecutive(), 1, 1, resilience.OpenFixed(time.Second)
	b := must(resilience.NewBreaker(cfg))
	_ = resilience.Do(t.Context(), b, func(context.Context) error { return errDown })
	return b
}

func openedTheirs(settings gobreaker2.Settings) *gobreaker2.CircuitBreaker[any] {
	settings.MaxRequests, settings.Timeout = 1, time.Second
	settings.ReadyToTrip = func(gobreaker2.Counts) bool { return true }
	b := gobreaker2.NewCircuitBreaker[any](settings)
	_, _ = b.Execute(func() (any, error) { return nil, errDown })
	return b
}

func wantStates(t *testing.T, ours *resilience.Breaker, want resilience.State, theirs interface{ State() gobreaker2.State }, theirWant gobreaker2.State) {
	t.Helper()
	if got := ours.State(); got != want {
		t.Errorf("ours is %v, want %v", got, want)
	}
	if got := theirs.State(); got != theirWant {
		t.Errorf("gobreaker is %v, want %v", got, theirWant)
	}
}

func TestDifference1InstantOfRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := openedOurs(t, resilience.BreakerConfig{}), openedTheirs(gobreaker2.Settings{})
		time.Sleep(time.Second - 1)
		wantStates(t, ours, resilience.Open, theirs, gobreaker2.StateOpen)
		time.Sleep(1)
		wantStates(t, ours, resilience.HalfOpen, theirs, gobreaker2.StateOpen)
		time.Sleep(1)
		wantStates(t, ours, resilience.HalfOpen, theirs, gobreaker2.StateHalfOpen)
	})
}

func TestDifference2ReportedTwice(t *testing.T) {
	t.Parallel()
	p := newPair(inARow, 2, 1, 0, time.Second)
	p.begin(t)
	for range 2 {
		p.calls[0].ours(errDown)
		p.calls[0].theirs(errDown)
	}
	wantStates(t, p.ours, resilience.Closed, p.theirs, gobreaker2.StateOpen)
}

func TestDifference3HungProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(inARow, 1, 1, 0, time.Second)
		p.begin(t)
		p.end(0, errDown)
		time.Sleep(time.Second)
		p.begin(t)
		time.Sleep(never)
		synctest.Wait()
		wantStates(t, p.ours, resilience.Open, p.theirs, gobreaker2.StateHalfOpen)
	})
}

func TestDifference4Goexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := openedOurs(t, resilience.BreakerConfig{}), openedTheirs(gobreaker2.Settings{})
		run := func(fn func()) {
			apart(func() {
				_ = resilience.Do(context.Background(), ours, func(context.Context) error { fn(); return nil })
			})
			apart(func() { _, _ = theirs.Execute(func() (any, error) { fn(); return nil, nil }) })
		}
		time.Sleep(time.Second + 1)
		run(runtime.Goexit)
		wantStates(t, ours, resilience.Open, theirs, gobreaker2.StateHalfOpen)
	})
	synctest.Test(t, func(t *testing.T) { // a panic is the same in both
		ours, theirs := openedOurs(t, resilience.BreakerConfig{}), openedTheirs(gobreaker2.Settings{})
		time.Sleep(time.Second + 1)
		swallow(func() {
			_ = resilience.Do(t.Context(), ours, func(context.Context) error { panic("boom") })
		})
		swallow(func() { _, _ = theirs.Execute(func() (any, error) { panic("boom") }) })
		wantStates(t, ours, resilience.Open, theirs, gobreaker2.StateOpen)
	})
}

func TestDifference5CallerCancelled(t *testing.T) {
	t.Parallel()
	ours := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
	theirs := gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{ReadyToTrip: func(gobreaker2.Counts) bool { return true }})
	ctx := cancelled(t)
	_ = resilience.Do(ctx, ours, func(ctx context.Context) error { return ctx.Err() })
	_, _ = theirs.Execute(func() (any, error) { return nil, ctx.Err() })
	wantStates(t, ours, resilience.Closed, theirs, gobreaker2.StateOpen)
}

type status int

func (s status) Error() string   { return http.StatusText(int(s)) }
func (s status) StatusCode() int { return int(s) }

func TestDifference6HealthyCallee(t *testing.T) {
	t.Parallel()
	for _, err := range []error{status(http.StatusNotFound), resilience.ErrFull} {
		ours := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
		theirs := gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{ReadyToTrip: func(gobreaker2.Counts) bool { return true }})
		_ = resilience.Do(t.Context(), ours, func(context.Context) error { return err })
		_, _ = theirs.Execute(func() (any, error) { return nil, err })
		wantStates(t, ours, resilience.Closed, theirs, gobreaker2.StateOpen)
	}
}

func TestDifference7RateAfterSuccess(t *testing.T) {
	t.Parallel()
	ours := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Count(10), MinCalls: 4, FailureRate: 0.5}))
	theirs := gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{ReadyToTrip: func(c gobreaker2.Counts) bool {
		calls := c.TotalSuccesses + c.TotalFailures
		return calls >= 4 && c.TotalFailures*2 >= calls
	}})
	for _, err := range []error{errDown, errDown, errDown, nil} {
		_ = resilience.Do(t.Context(), ours, func(context.Context) error { return err })
		_, _ = theirs.Execute(func() (any, error) { return nil, err })
	}
	wantStates(t, ours, resilience.Open, theirs, gobreaker2.StateClosed)
}

func TestDifference8BucketOfALongCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A failure that took as long as the window is news here and forgotten there.
		p := newPair(inTime, 1, 1, 5, time.Second)
		p.begin(t)
		time.Sleep(5 * bucket)
		p.end(0, errDown)
		wantStates(t, p.ours, resilience.Open, p.theirs, gobreaker2.StateClosed)
	})
}

func TestDifference9LookingAtTheState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ourChanges, theirChanges int
		ours := openedOurs(t, resilience.BreakerConfig{
			Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
				if e.Kind == resilience.EventStateChanged {
					ourChanges++
				}
			}),
		})
		theirs := openedTheirs(gobreaker2.Settings{
			OnStateChange: func(string, gobreaker2.State, gobreaker2.State) { theirChanges++ },
		})
		time.Sleep(time.Second + 1)
		wantStates(t, ours, resilience.HalfOpen, theirs, gobreaker2.StateHalfOpen)
		if ourChanges != 1 || theirChanges != 2 {
			t.Errorf("%d changes told of ours, %d of gobreaker; want 1 and 2", ourChanges, theirChanges)
		}
	})
}
