package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/armature-go/armature/resilience"
)

// hint is an error that says what it knows, as errors of transports do.
type hint struct {
	retryable   bool
	after       time.Duration
	notExecuted bool
}

func (h hint) Error() string                     { return fmt.Sprintf("hint %+v", struct{ hint }{h}.after) }
func (h hint) Retryable() bool                   { return h.retryable }
func (h hint) RetryAfter() (time.Duration, bool) { return h.after, h.after > 0 }
func (h hint) NotExecuted() bool                 { return h.notExecuted }

// script returns its errors one after another, then nil.
func script(n *int, errs ...error) func(context.Context) error {
	return func(context.Context) error {
		*n++
		if *n <= len(errs) {
			return errs[*n-1]
		}
		return nil
	}
}

func second() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) }

func TestRetry(t *testing.T) {
	t.Parallel()
	type config = resilience.RetryConfig
	again, final := hint{retryable: true}, hint{retryable: false}
	for _, tt := range []struct {
		name     string
		cfg      config
		deadline time.Duration
		errs     []error
		attempts int
		took     time.Duration
		reason   resilience.StopReason // "" for success
	}{
		{"success", config{}, 0, nil, 1, 0, ""},
		{"second attempt", config{}, 0, []error{errDown}, 2, time.Second, ""},
		{"exhausted", config{}, 0, []error{errDown, errDown, errDown}, 3, 2 * time.Second, resilience.StopAttempts},
		{"one attempt only", config{MaxAttempts: 1}, 0, []error{errDown}, 1, 0, resilience.StopAttempts},
		{"says retryable", config{}, 0, []error{again}, 2, time.Second, ""},
		{"final at the second attempt", config{}, 0, []error{errDown, final}, 2, time.Second, resilience.StopNotRetryable},
		{"permanent at the second attempt", config{}, 0, []error{errDown, backoff.Permanent(errDown)}, 2, time.Second, resilience.StopNotRetryable},
		{"callee's wish is longer", config{}, 0, []error{hint{retryable: true, after: 7 * time.Second}}, 2, 7 * time.Second, ""},
		{"callee's wish is shorter", config{}, 0, []error{hint{retryable: true, after: time.Millisecond}}, 2, time.Second, ""},
		{"callee's wish is too long", config{MaxRetryAfter: 5 * time.Second}, 0, []error{hint{retryable: true, after: 7 * time.Second}}, 1, 0, resilience.StopRetryAfter},
		{"callee's wish does not fit", config{}, 5 * time.Second, []error{hint{retryable: true, after: 7 * time.Second}}, 1, 0, resilience.StopDeadline},
		{"elapsed", config{MaxAttempts: 9, MaxElapsed: 2500 * time.Millisecond}, 0, []error{errDown, errDown, errDown, errDown}, 3, 2 * time.Second, resilience.StopElapsed},
		{"deadline after one delay", config{MaxAttempts: 9}, 1500 * time.Millisecond, []error{errDown, errDown, errDown}, 2, time.Second, resilience.StopDeadline},
		{"backoff stops", config{Backoff: func() backoff.BackOff { return &backoff.StopBackOff{} }}, 0, []error{errDown}, 1, 0, resilience.StopBackoff},
		{"open breaker, wish fits", config{}, 0, []error{hint{retryable: true, notExecuted: true, after: 4 * time.Second}}, 2, 4 * time.Second, ""},
		{"open breaker, wish does not fit", config{}, 3 * time.Second, []error{hint{retryable: true, notExecuted: true, after: 4 * time.Second}}, 1, 0, resilience.StopDeadline},
		{"half-open breaker at the second attempt", config{}, 0, []error{errDown, &resilience.OpenError{State: resilience.HalfOpen}}, 2, time.Second, resilience.StopNotRetryable},
		{"own judgement", config{Retryable: func(_ context.Context, err error) bool { return err != errDown }}, 0, []error{final, errDown}, 2, time.Second, resilience.StopNotRetryable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if tt.cfg.Backoff == nil {
					tt.cfg.Backoff = second
				}
				ctx := t.Context()
				if tt.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
				}
				n, start := 0, time.Now()
				err := resilience.Do(ctx, must(resilience.NewRetry(tt.cfg)), script(&n, tt.errs...))
				if n != tt.attempts || time.Since(start) != tt.took {
					t.Errorf("%d attempts in %v, want %d in %v", n, time.Since(start), tt.attempts, tt.took)
				}
				if tt.reason == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				var failed *resilience.RetryError
				if !errors.As(err, &failed) {
					t.Fatalf("error = %v, want a *RetryError", err)
				}
				if failed.Reason != tt.reason || failed.Attempts != n || len(failed.Errs) != n {
					t.Errorf("failed = %+v, want reason %q", failed, tt.reason)
				}
				if !errors.Is(err, failed.Errs[n-1]) || !errors.Is(err, failed.Errs[0]) {
					t.Errorf("%v does not match every attempt", err)
				}
			})
		})
	}
}

func TestRetryReturnsAFinalErrorAsItIs(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{}))
	final := hint{retryable: false}
	half := &resilience.OpenError{State: resilience.HalfOpen}
	for _, tt := range []struct{ give, want error }{
		{final, final}, {backoff.Permanent(errDown), errDown}, {half, half},
	} {
		n := 0
		if err := do(t, retry, script(&n, tt.give)); err != tt.want || n != 1 {
			t.Errorf("after %v: %v in %d attempts, want %v in one", tt.give, err, n, tt.want)
		}
	}
}

func TestRetryStopsWhenTheCallerGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retry := must(resilience.NewRetry(resilience.RetryConfig{Name: "charge", Backoff: second}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		start := time.Now()
		err := resilience.Do(ctx, retry, fails)
		var failed *resilience.RetryError
		if !errors.As(err, &failed) || failed.Reason != resilience.StopContext || failed.Attempts != 2 {
			t.Fatalf("error = %v", err)
		}
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errDown) || failed.Retryable() {
			t.Errorf("error = %v", err)
		}
		if took := time.Since(start); took != 1500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		want := `resilience: retry "charge": context done after 2 attempts: payment: down`
		if err.Error() != want {
			t.Errorf("text = %q, want %q", err, want)
		}
	})
}

func TestRetryErrorAnswersForAllAttempts(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 2, Backoff: func() backoff.BackOff { return &backoff.ZeroBackOff{} }}))
	turnedAway, reached := hint{retryable: true, notExecuted: true}, hint{retryable: true}
	for _, tt := range []struct {
		name string
		errs []error
		want bool
	}{
		{"all turned away", []error{turnedAway, turnedAway}, true},
		{"first reached the callee", []error{reached, turnedAway}, false},
		{"last reached the callee", []error{turnedAway, reached}, false},
	} {
		n := 0
		err := do(t, retry, script(&n, tt.errs...))
		var e interface{ NotExecuted() bool }
		if !errors.As(err, &e) || e.NotExecuted() != tt.want {
			t.Errorf("%s: NotExecuted = %v, want %v", tt.name, e.NotExecuted(), tt.want)
		}
	}
	// The last answer is the one others find in the chain first.
	n := 0
	var found hint
	err := do(t, retry, script(&n, turnedAway, hint{retryable: true, after: time.Nanosecond}))
	if !errors.As(err, &found) || found.after == 0 {
		t.Errorf("found %+v first", found)
	}
}

func TestRetryNumbersItsAttempts(t *testing.T) {
	t.Parallel()
	var seen []int
	outer := must(resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 2, Backoff: resilience.Exponential(0, 0, resilience.NoJitter)}))
	_ = do(t, resilience.Chain(outer, outer), func(ctx context.Context) error {
		seen = append(seen, resilience.AttemptFromContext(ctx))
		return errDown
	})
	if !slices.Equal(seen, []int{1, 2, 1, 2}) {
		t.Errorf("attempts = %v, want those of the inner retry", seen)
	}
	if n := resilience.AttemptFromContext(t.Context()); n != 1 {
		t.Errorf("without retry: %d, want 1", n)
	}
}

func TestRetryTellsBeforeItWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		retry := must(resilience.NewRetry(resilience.RetryConfig{
			Backoff: resilience.Exponential(time.Second, time.Minute, resilience.NoJitter),
			Observer: resilience.ObserverFunc(func(_ context.Context, c resilience.Event) {
				told = append(told, fmt.Sprint(c.Attempt, " ", c.Err, " ", c.Duration))
			}),
		}))
		_ = do(t, retry, fails)
		if want := []string{"1 payment: down 1s", "2 payment: down 2s"}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestExponential(t *testing.T) {
	t.Parallel()
	exact := []time.Duration{100, 200, 400, 500, 500}
	for _, tt := range []struct {
		name   string
		jitter resilience.Jitter
		low    func(time.Duration) time.Duration
	}{
		{"none", resilience.NoJitter, func(d time.Duration) time.Duration { return d }},
		{"equal", resilience.EqualJitter, func(d time.Duration) time.Duration { return d / 2 }},
		{"full", resilience.FullJitter, func(time.Duration) time.Duration { return 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			spread := map[time.Duration]bool{}
			for range 200 {
				delays := resilience.Exponential(100, 500, tt.jitter)()
				for i, d := range exact {
					got := delays.NextBackOff()
					if got < tt.low(d) || got > d {
						t.Fatalf("delay %d = %d, want within %d and %d", i, got, tt.low(d), d)
					}
					spread[got] = true
				}
				delays.Reset()
				if got := delays.NextBackOff(); got > 100 {
					t.Fatalf("after Reset: %d", got)
				}
			}
			if wide := len(spread) > 10; wide != (tt.jitter != resilience.NoJitter) {
				t.Errorf("%d different delays", len(spread))
			}
		})
	}
}
