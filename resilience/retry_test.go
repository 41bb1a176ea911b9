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
		{"half-open breaker", config{}, 0, []error{&resilience.OpenError{State: resilience.HalfOpen}}, 2, time.Second, ""},
		{"breaker forced open at the second attempt", config{}, 0, []error{errDown, &resilience.OpenError{State: resilience.Open}}, 2, time.Second, resilience.StopNotRetryable},
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
				retry := must(resilience.NewRetry(tt.cfg))
				err := resilience.Do(ctx, retry, script(&n, tt.errs...))
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
				stats, ended := retry.Stats(), resilience.RetryStats{Calls: 1, Retries: uint64(n) - 1}
				switch tt.reason {
				case resilience.StopAttempts:
					ended.Exhausted = 1
				case resilience.StopNotRetryable:
					ended.NotRetryable = 1
				case resilience.StopDeadline:
					ended.Deadline = 1
				case resilience.StopElapsed:
					ended.Elapsed = 1
				case resilience.StopRetryAfter:
					ended.RetryAfter = 1
				case resilience.StopBackoff:
					ended.Backoff = 1
				}
				if stats != ended {
					t.Errorf("stats = %+v, want %+v", stats, ended)
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
	forced := &resilience.OpenError{State: resilience.Open}
	for _, tt := range []struct{ give, want error }{
		{final, final}, {backoff.Permanent(errDown), errDown}, {forced, forced},
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

func TestRetryTellsWhatItDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		retry := must(resilience.NewRetry(resilience.RetryConfig{
			Backoff: resilience.Exponential(time.Second, time.Minute, resilience.NoJitter),
			Observer: resilience.ObserverFunc(func(_ context.Context, c resilience.Event) {
				told = append(told, fmt.Sprint(c.Kind, " ", c.Attempt, " ", c.Duration))
			}),
		}))
		_ = do(t, retry, fails)
		_ = do(t, retry, func(context.Context) error { return hint{} }) // final at once: nothing to tell
		if want := []string{"retry 1 1s", "retry 2 2s", "gave up 3 0s"}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestRetryRemembersTheFirstAndTheLastErrors(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 1000, Backoff: resilience.Fixed(0)}))
	n := 0
	err := do(t, retry, func(context.Context) error {
		n++
		return hint{retryable: true, notExecuted: n != 500, after: time.Duration(n)}
	})
	var failed *resilience.RetryError
	if !errors.As(err, &failed) || failed.Attempts != 1000 {
		t.Fatal(err)
	}
	var kept []int
	for _, err := range failed.Errs {
		kept = append(kept, int(err.(hint).after))
	}
	want := []int{1, 2, 3, 4, 5, 6, 7, 8, 993, 994, 995, 996, 997, 998, 999, 1000}
	if !slices.Equal(kept, want) {
		t.Errorf("kept %v, want %v", kept, want)
	}
	if failed.NotExecuted() {
		t.Error("attempt 500 reached the callee and is forgotten")
	}
}

func TestRetryCountsRecoveriesAndDeadContexts(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{Name: "charge", Backoff: resilience.Fixed(0)}))
	n := 0
	_ = do(t, retry, works)
	_ = do(t, retry, script(&n, errDown, errDown))
	_ = do(t, retry, func(context.Context) error { return hint{} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = resilience.Do(ctx, retry, works)
	if got, want := retry.Stats(), (resilience.RetryStats{Calls: 4, Retries: 2, Recovered: 1, NotRetryable: 1, Context: 1}); got != want {
		t.Errorf("stats = %+v, want %+v", got, want)
	}
	if retry.Name() != "charge" {
		t.Error(retry.Name())
	}
}

func TestRetryStopsWhenTheBudgetIsSpent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := must(resilience.NewBudget(resilience.BudgetConfig{Ratio: 0.5, MinPerSecond: 0.1}))
		retry := must(resilience.NewRetry(resilience.RetryConfig{Budget: budget, Backoff: second}))
		// One retry of the minimum and one of two calls: the third call gets half of one.
		var attempts []int
		for range 3 {
			n := 0
			err := do(t, retry, script(&n, errDown, errDown, errDown))
			attempts = append(attempts, n)
			var failed *resilience.RetryError
			if !errors.As(err, &failed) || failed.Reason != resilience.StopBudget {
				t.Errorf("error = %v", err)
			}
		}
		if want := []int{2, 2, 1}; !slices.Equal(attempts, want) {
			t.Errorf("attempts = %v, want %v", attempts, want)
		}
		if s := retry.Stats(); s.Budget != 3 || s.Retries != 2 {
			t.Errorf("stats = %+v", s)
		}
		if s := budget.Stats(); s.Taken != 2 || s.Refused != 3 || s.Calls != 3 || s.Extra != 2 {
			t.Errorf("budget = %+v", s)
		}
	})
}
