package resiliencetest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/resiliencetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// judge is a test that is judged itself: it remembers its failures.
type judge struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (j *judge) Helper()          {}
func (j *judge) Cleanup(f func()) { j.cleanups = append(j.cleanups, f) }
func (j *judge) Errorf(format string, args ...any) {
	j.failures = append(j.failures, fmt.Sprintf(format, args...))
}

// says fails t unless exactly one failure was reported, with all of the words.
func (j *judge) says(t *testing.T, words ...string) {
	t.Helper()
	if len(j.failures) != 1 {
		t.Errorf("%d failures, want one: %q", len(j.failures), j.failures)
		return
	}
	for _, w := range words {
		if !strings.Contains(j.failures[0], w) {
			t.Errorf("failure %q does not say %q", j.failures[0], w)
		}
	}
}

func (j *judge) silent(t *testing.T) {
	t.Helper()
	if len(j.failures) > 0 {
		t.Errorf("unexpected failures: %q", j.failures)
	}
}

// The promise of the package documentation.
func TestClientRetriesThenBreakerOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		script := resiliencetest.Script(resiliencetest.Fail(2), resiliencetest.OK())
		events := new(resiliencetest.Recorder)
		retry := must(resilience.NewRetry(resilience.RetryConfig{
			MaxAttempts: 2, Observer: events,
			Backoff: resilience.Exponential(time.Second, time.Second, resilience.NoJitter),
		}))
		breaker := must(resilience.NewBreaker(resilience.BreakerConfig{
			Name: "payment", Window: resilience.Consecutive(), Failures: 2, Probes: 1,
			OpenFor: resilience.OpenFixed(time.Minute), Observer: events,
		}))
		policy := resilience.Chain(retry, breaker)

		if err := resilience.Do(t.Context(), policy, script.Call); !errors.Is(err, resiliencetest.ErrFailed) {
			t.Errorf("error %v", err)
		}
		script.WantCalls(t, 2)
		resiliencetest.WantState(t, breaker, resilience.Open)
		if got, want := script.Starts(), []time.Duration{0, time.Second}; !slices.Equal(got, want) {
			t.Errorf("attempts at %v, want %v", got, want)
		}
		events.Want(t, resilience.EventRetry, resilience.EventStateChanged, resilience.EventRetriesEnded)
		events.WantStates(t, "payment", resilience.Open)

		time.Sleep(time.Minute)
		resiliencetest.WantState(t, breaker, resilience.HalfOpen)
		if err := resilience.Do(t.Context(), policy, script.Call); err != nil {
			t.Error(err)
		}
		script.WantDone(t)
		events.WantStates(t, "", resilience.Open, resilience.HalfOpen, resilience.Closed)
	})
}

func TestSteps(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		step resiliencetest.Step
		took time.Duration
		err  error
	}{
		"ok":                  {resiliencetest.OK(), 0, nil},
		"zero":                {resiliencetest.Step{}, 0, nil},
		"fail":                {resiliencetest.Fail(1), 0, resiliencetest.ErrFailed},
		"fail with":           {resiliencetest.FailWith(boom), 0, boom},
		"slow":                {resiliencetest.Slow(time.Second), time.Second, nil},
		"slower than allowed": {resiliencetest.Slow(time.Hour), time.Minute, context.DeadlineExceeded},
		"slow failure":        {resiliencetest.After(time.Second, resiliencetest.FailWith(boom)), time.Second, boom},
		"stubborn":            {resiliencetest.Stubborn(time.Hour), time.Hour, nil},
		"hang":                {resiliencetest.Hang(), time.Minute, context.DeadlineExceeded},
		"func":                {resiliencetest.Func(func(context.Context) error { return boom }), 0, boom},
		"over":                {resiliencetest.OK().Times(0), 0, resiliencetest.ErrScriptOver},
		"no failures":         {resiliencetest.Fail(-1), 0, resiliencetest.ErrScriptOver},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := resiliencetest.Script(test.step)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := script.Call(ctx); !errors.Is(err, test.err) {
					t.Errorf("error %v, want %v", err, test.err)
				}
				got := script.Calls()[0]
				want := resiliencetest.Call{Attempt: 1, Took: test.took, Timeout: time.Minute, Err: test.err}
				if got != want {
					t.Errorf("call %+v, want %+v", got, want)
				}
			})
		})
	}
}

func TestPanicAndGoexitAreRecorded(t *testing.T) {
	t.Parallel()
	script := resiliencetest.Script(resiliencetest.Panic("boom"), resiliencetest.Goexit())
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = script.Call(t.Context())
	}()
	returned := false
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = script.Call(t.Context())
		returned = true
	})
	wg.Wait()
	if returned {
		t.Error("the goroutine went on after Goexit")
	}
	for i, c := range script.Calls() {
		if c.Running || c.Err != nil {
			t.Errorf("call %d: %+v", i, c)
		}
	}
	script.WantDone(t)
}

func TestRunningCallsAreMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		script := resiliencetest.Script(resiliencetest.Slow(time.Second), resiliencetest.OK())
		go func() { _ = script.Call(t.Context()) }()
		synctest.Wait()
		_ = script.Call(t.Context())
		calls := script.Calls()
		if !calls[0].Running || calls[1].Running {
			t.Errorf("calls %+v: the first runs, the second has ended", calls)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if calls := script.Calls(); calls[0].Running || calls[0].Took != time.Second {
			t.Errorf("first call %+v after its end", calls[0])
		}
	})
}

func TestAttemptsAreNumbered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		script := resiliencetest.Script(resiliencetest.Fail(2), resiliencetest.OK())
		retry := must(resilience.NewRetry(resilience.RetryConfig{}))
		if v, err := resilience.Call(t.Context(), retry, resiliencetest.Returns(script, 7)); v != 7 || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
		for i, c := range script.Calls() {
			if c.Attempt != i+1 {
				t.Errorf("call %d has attempt number %d", i+1, c.Attempt)
			}
		}
	})
}

func TestScriptJudges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var few, many, fine judge

	script := resiliencetest.Script(resiliencetest.Fail(2), resiliencetest.OK().Times(2))
	_ = script.Call(ctx)
	script.WantDone(&few)
	few.says(t, "called 1 times", "3 fewer")
	few.failures = nil
	script.WantCalls(&few, 2)
	few.says(t, "called 1 times, want 2")

	script = resiliencetest.Script(resiliencetest.OK())
	for range 3 {
		_ = script.Call(ctx)
	}
	script.WantDone(&many)
	many.says(t, "called 3 times", "2 more")

	script = resiliencetest.Script(resiliencetest.OK(), resiliencetest.Fail(1).Forever(), resiliencetest.OK())
	_ = script.Call(ctx)
	script.WantDone(&fine)
	for range 5 {
		if err := script.Call(ctx); !errors.Is(err, resiliencetest.ErrFailed) {
			t.Errorf("error %v", err)
		}
	}
	script.WantDone(&fine)
	script.WantCalls(&fine, 6)
	fine.silent(t)
}

func TestScriptIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	script := resiliencetest.Script(resiliencetest.Fail(50), resiliencetest.OK().Times(50))
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed int
	)
	for range 100 {
		wg.Go(func() {
			if script.Call(t.Context()) != nil {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != 50 {
		t.Errorf("%d calls failed, want 50", failed)
	}
	script.WantDone(t)
}

func TestRecorderJudges(t *testing.T) {
	t.Parallel()
	var wrong, none, states, fine judge
	r := new(resiliencetest.Recorder)
	r.Want(&fine)
	r.On(t.Context(), resilience.Event{
		Kind: resilience.EventStateChanged, Policy: "breaker", Name: "a", To: resilience.Open,
		Duration: time.Second, Err: resiliencetest.ErrFailed,
	})
	r.On(t.Context(), resilience.Event{Kind: resilience.EventRetry, Policy: "retry", Attempt: 1})
	r.Want(&wrong, resilience.EventRetry)
	wrong.says(t, `state changed: breaker "a", closed to open, 1s, resiliencetest: scripted failure`, "retry: retry, attempt 1", "want:")
	r.Want(&none)
	none.says(t, "want: none")
	r.WantStates(&states, "a", resilience.Closed)
	states.says(t, `"a" went through [open], want [closed]`)

	r.Want(&fine, resilience.EventStateChanged, resilience.EventRetry)
	r.WantStates(&fine, "a", resilience.Open)
	r.WantStates(&fine, "b")
	if n := len(r.Events(resilience.EventRetry)); n != 1 {
		t.Errorf("%d retries, want 1", n)
	}
	r.Reset()
	r.Want(&fine)
	fine.silent(t)
}

func TestLineTellsWhatIsSet(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]resilience.Event{
		`rejected: breaker "x", shadow`:    {Kind: resilience.EventRejected, Policy: "breaker", Name: "x", Shadow: true},
		"limit changed: adaptive, limit 0": {Kind: resilience.EventLimitChanged, Policy: "adaptive"},
	} {
		if got := resiliencetest.Line(e); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestStateHelpers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		breaker := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"}))
		var j judge
		resiliencetest.WantState(&j, breaker, resilience.Open)
		j.says(t, `"payment" is closed, want open`)
		j.failures = nil

		resiliencetest.Trip(&j, breaker)
		time.Sleep(365 * 24 * time.Hour)
		resiliencetest.WantState(&j, breaker, resilience.Open)
		j.silent(t)
		j.cleanups[0]()
		resiliencetest.WantState(&j, breaker, resilience.Closed)

		resiliencetest.HalfOpen(&j, breaker)
		j.silent(t)

		breaker.SetMode(resilience.ForcedClosed)
		resiliencetest.Trip(&j, breaker)
		j.says(t, "is closed, want open")
	})
}
