package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/armature-go/armature/resilience"
)

// Each test here keeps out a defect that was reproduced in a well-known library.

// oneProbe opens after one failure for a second and closes after one good probe.
func oneProbe() *resilience.Breaker {
	return must(resilience.NewBreaker(resilience.BreakerConfig{
		Name: "payment", Window: resilience.Consecutive(), Failures: 1, Probes: 1,
		OpenFor: resilience.OpenFixed(time.Second), ProbeTimeout: time.Minute,
	}))
}

func wantState(t *testing.T, b *resilience.Breaker, want resilience.State) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("state = %v, want %v", got, want)
	}
}

func TestRegressionPanickingProbeReturnsItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := oneProbe()
		_ = do(t, b, fails)
		time.Sleep(time.Second)
		panics(b)
		wantState(t, b, resilience.Open)
		time.Sleep(time.Second)
		if err := do(t, b, works); err != nil {
			t.Fatalf("after a panicking probe: %v", err)
		}
		wantState(t, b, resilience.Closed)
	})
}

func TestRegressionPanicsAreFailures(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]resilience.Window{
		"consecutive": resilience.Consecutive(), "count": resilience.Count(10), "time": resilience.Time(time.Minute, 6),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: window, Failures: 5}))
			for range 4 {
				panics(b)
			}
			wantState(t, b, resilience.Closed)
			goexits(b, runtime.Goexit)
			wantState(t, b, resilience.Open)
		})
	}
}

func TestRegressionBulkheadSurvivesPanicAndGoexit(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1}))
	panics(b)
	goexits(b, runtime.Goexit)
	if err := do(t, b, works); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s != (resilience.BulkheadStats{Max: 1}) {
		t.Errorf("stats = %+v, want all free", s)
	}
}

func TestRegressionTimeoutIsADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timeout := must(resilience.NewTimeout(3 * time.Second))
		_ = do(t, timeout, func(ctx context.Context) error {
			deadline, ok := ctx.Deadline()
			if !ok || time.Until(deadline) != 3*time.Second {
				t.Errorf("deadline = %v, %v; want one in 3s", deadline, ok)
			}
			return nil
		})
	})
}

func TestRegressionCallerCancellationIsNeutral(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 3}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		// Drivers turn the context's error into a string.
		_ = resilience.Do(ctx, b, func(context.Context) error { return errors.New("rpc: canceled by client") })
	}
	wantState(t, b, resilience.Closed)

	// The same error while the caller waits is the callee's fault.
	for range 3 {
		_ = do(t, b, func(context.Context) error { return context.Canceled })
	}
	wantState(t, b, resilience.Open)
}

func TestRegressionStaleResultsDoNotDecide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Consecutive(), Failures: 2, Probes: 2, OpenFor: resilience.OpenFixed(time.Second),
		}))
		allow := func() func(error) { return must(b.Allow(t.Context())) }
		early := []func(error){allow(), allow(), allow(), allow()}
		_ = do(t, b, fails)
		_ = do(t, b, fails)
		time.Sleep(time.Second)
		probe := allow()

		early[0](nil)
		early[1](nil)
		wantState(t, b, resilience.HalfOpen) // old successes do not close it
		early[2](errDown)
		wantState(t, b, resilience.HalfOpen) // nor do old failures open it

		probe(nil)
		allow()(nil)
		wantState(t, b, resilience.Closed)
		early[3](errDown)
		if s := b.Stats(); s.Failures != 0 {
			t.Errorf("a call of an older period counts: %+v", s)
		}
	})
}

func TestRegressionGoexitInProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := oneProbe()
		_ = do(t, b, fails)
		time.Sleep(time.Second)
		goexits(b, runtime.Goexit)
		time.Sleep(time.Second)
		if err := do(t, b, works); err != nil {
			t.Fatalf("after Goexit in a probe: %v", err)
		}
	})
}

func TestRegressionHungProbeDoesNotBlockRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := oneProbe()
		_ = do(t, b, fails)
		time.Sleep(time.Second)
		hang := make(chan struct{})
		go func() {
			_ = resilience.Do(context.Background(), b, func(context.Context) error { <-hang; return nil })
		}()
		synctest.Wait()
		var open *resilience.OpenError
		if err := do(t, b, works); !errors.As(err, &open) || open.State != resilience.HalfOpen {
			t.Fatalf("beside the probe: %v, want a half-open rejection", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait() // for the watchdog
		wantState(t, b, resilience.Open)
		time.Sleep(time.Second)
		if err := do(t, b, works); err != nil {
			t.Fatalf("after a hung probe: %v", err)
		}
		close(hang) // its late result changes nothing
		synctest.Wait()
		wantState(t, b, resilience.Closed)
	})
}

func TestRegressionListenerMayAskTheBreaker(t *testing.T) {
	t.Parallel()
	var b *resilience.Breaker
	var seen []string
	b = must(resilience.NewBreaker(resilience.BreakerConfig{
		Window: resilience.Consecutive(), Failures: 1,
		Observer: resilience.ObserverFunc(func(_ context.Context, c resilience.Event) {
			seen = append(seen, fmt.Sprintf("%v->%v now %v", c.From, c.To, b.Stats().State))
			if c.To == resilience.Open {
				b.Reset()
			}
		}),
	}))
	_ = do(t, b, fails)
	if got, want := strings.Join(seen, ", "), "closed->open now open, open->closed now closed"; got != want {
		t.Errorf("events = %q, want %q", got, want)
	}
}

func TestRegressionClassifierRunsOutsideLocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Count(100), Failures: 100,
			Classify: func(context.Context, error) resilience.Outcome {
				time.Sleep(time.Millisecond)
				return resilience.Failure
			},
		}))
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _ = resilience.Do(context.Background(), b, fails) })
		}
		wg.Wait()
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("50 classifiers of 1ms took %v, want them at the same time", took)
		}
	})
}

func TestRegressionPanickingClassifierGivesThePlaceBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		explode := true
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Consecutive(), Failures: 1, Probes: 1, OpenFor: resilience.OpenFixed(time.Second),
			Classify: func(context.Context, error) resilience.Outcome {
				if explode {
					panic("classifier")
				}
				return resilience.Failure
			},
		}))
		run := func() {
			defer func() { _ = recover() }()
			_ = resilience.Do(context.Background(), b, fails)
		}
		run()
		wantState(t, b, resilience.Open)
		time.Sleep(time.Second)
		run() // a probe
		wantState(t, b, resilience.Open)
		time.Sleep(time.Second)
		if err := do(t, b, works); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRegressionWindowSlidesAcrossItsBorders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{
			Window: resilience.Time(10*time.Second, 10), Failures: 10,
		}))
		time.Sleep(10*time.Second - 100*time.Millisecond)
		for range 9 {
			_ = do(t, b, fails)
		}
		wantState(t, b, resilience.Closed)
		time.Sleep(200 * time.Millisecond) // a tumbling window would have forgotten
		_ = do(t, b, fails)
		wantState(t, b, resilience.Open)
	})
}

func TestRegressionRetryRunsNothingWithADeadContext(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{Name: "charge"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	err := resilience.Do(ctx, retry, func(context.Context) error { ran = true; return nil })
	var failed *resilience.RetryError
	if ran || !errors.As(err, &failed) || failed.Attempts != 0 || !errors.Is(err, context.Canceled) || !failed.NotExecuted() {
		t.Errorf("ran = %v, error = %v", ran, err)
	}
}

func TestRegressionRetryDoesNotSleepIntoTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retry := must(resilience.NewRetry(resilience.RetryConfig{
			Backoff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Minute) },
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := resilience.Do(ctx, retry, fails)
		var failed *resilience.RetryError
		if !errors.As(err, &failed) || failed.Reason != resilience.StopDeadline || !errors.Is(err, errDown) {
			t.Fatalf("error = %v, want the reason and the last real error", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v, want an answer at once", took)
		}
	})
}
