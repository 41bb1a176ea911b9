package resiliencetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

var (
	// ErrFailed is what [Fail] fails with.
	ErrFailed = errors.New("resiliencetest: scripted failure")
	// ErrScriptOver is the error of a call for which the script has no step.
	ErrScriptOver = errors.New("resiliencetest: script is over")
)

// Step is what one or several calls of a script do. The zero Step succeeds, once.
type Step struct {
	run   func(context.Context) error
	times int // 0 means 1, forever all that follow
}

const forever = -1

// OK succeeds at once.
func OK() Step { return Step{} }

// Fail fails n calls in a row with [ErrFailed]. Less than one is none.
func Fail(n int) Step {
	s := FailWith(ErrFailed)
	return s.Times(n)
}

// FailWith fails with err: for errors that say Retryable or RetryAfter, or that
// carry a status.
func FailWith(err error) Step {
	return Step{run: func(context.Context) error { return err }}
}

// Slow succeeds after d, or returns the context's error when that ends first.
func Slow(d time.Duration) Step { return After(d, OK()) }

// After does what step does, d later. When the context ends first, its error is
// the result.
func After(d time.Duration, step Step) Step {
	do := step.do
	step.run = func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return do(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return step
}

// Stubborn succeeds after d and does not care about its context, like a driver
// that knows none.
func Stubborn(d time.Duration) Step {
	return Step{run: func(context.Context) error { time.Sleep(d); return nil }}
}

// Hang waits for the end of the context and returns its error.
func Hang() Step {
	return Step{run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
}

// Panic panics with v.
func Panic(v any) Step {
	return Step{run: func(context.Context) error { panic(v) }}
}

// Goexit ends the goroutine of the call, as t.FailNow does.
func Goexit() Step {
	return Step{run: func(context.Context) error { runtime.Goexit(); return nil }}
}

// Func does whatever fn does.
func Func(fn func(context.Context) error) Step { return Step{run: fn} }

// Times returns s for n calls in a row. Less than one is none.
func (s Step) Times(n int) Step {
	s.times = n
	if n <= 0 {
		s.times = none
	}
	return s
}

// Forever returns s for all calls that follow; later steps are never played.
func (s Step) Forever() Step {
	s.times = forever
	return s
}

const none = -2

func (s Step) do(ctx context.Context) error {
	if s.run == nil {
		return nil
	}
	return s.run(ctx)
}

// Call is one call of a script.
type Call struct {
	Attempt int           // number of the attempt, as resilience.AttemptFromContext has it
	Start   time.Duration // since the script was made
	Took    time.Duration
	Timeout time.Duration // left to the deadline at the start; 0 without one
	Running bool          // not ended yet: Took and Err are not set
	Err     error         // also nil after a panic or Goexit
}

// Scripted is an operation that plays one step per call. Safe for concurrent use:
// calls that run at the same time take steps in the order in which they begin.
type Scripted struct {
	base time.Time

	mu    sync.Mutex
	steps []Step
	calls []Call
	extra int // calls that found the script over
}

// Script returns an operation that plays steps in order. After the last one, calls
// fail with [ErrScriptOver]; see [Step.Forever] for an end that goes on.
func Script(steps ...Step) *Scripted {
	steps = slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return s.times == none })
	return &Scripted{base: time.Now(), steps: steps}
}

// Call plays the next step. Pass the method value to [resilience.Do].
func (s *Scripted) Call(ctx context.Context) error {
	step, i := s.begin(ctx)
	var err error
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		call := &s.calls[i]
		call.Took, call.Running, call.Err = time.Since(s.base)-call.Start, false, err
	}()
	err = step.do(ctx)
	return err
}

func (s *Scripted) begin(ctx context.Context) (Step, int) {
	call := Call{Attempt: resilience.AttemptFromContext(ctx), Running: true}
	now := time.Now()
	if deadline, ok := ctx.Deadline(); ok {
		call.Timeout = deadline.Sub(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Start = now.Sub(s.base)
	s.calls = append(s.calls, call)
	return s.next(), len(s.calls) - 1
}

// next takes a step off the script.
func (s *Scripted) next() Step {
	if len(s.steps) == 0 {
		s.extra++
		return FailWith(ErrScriptOver)
	}
	step := s.steps[0]
	switch {
	case step.times == forever:
	case step.times > 1:
		s.steps[0].times--
	default:
		s.steps = s.steps[1:]
	}
	return step
}

// Returns makes s an operation with a result, for [resilience.Call]: value when
// the step succeeds, the zero T otherwise.
func Returns[T any](s *Scripted, value T) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		if err := s.Call(ctx); err != nil {
			var zero T
			return zero, err
		}
		return value, nil
	}
}

// Calls returns the calls so far, in the order in which they began.
func (s *Scripted) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Starts returns when the calls began, since the script was made: the delays of a
// retry can be read off it.
func (s *Scripted) Starts() []time.Duration {
	var starts []time.Duration
	for _, c := range s.Calls() {
		starts = append(starts, c.Start)
	}
	return starts
}

// WantCalls fails the test unless there were n calls.
func (s *Scripted) WantCalls(tb testing.TB, n int) {
	tb.Helper()
	if got := len(s.Calls()); got != n {
		tb.Errorf("operation called %d times, want %d", got, n)
	}
}

// WantDone fails the test unless every step was played and no call came after the
// last one. Steps that go on forever need not be reached.
func (s *Scripted) WantDone(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := 0
	for _, step := range s.steps {
		if step.times == forever {
			break
		}
		left += max(1, step.times)
	}
	if left > 0 || s.extra > 0 {
		tb.Errorf("operation called %d times, which is %s", len(s.calls), difference(left, s.extra))
	}
}

func difference(left, extra int) string {
	if left > 0 {
		return fmt.Sprintf("%d fewer than the script has steps", left)
	}
	return fmt.Sprintf("%d more than the script has steps", extra)
}
