package resilience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestChaos(t *testing.T) {
	t.Parallel()
	const delay = time.Second
	for _, tt := range []struct {
		name  string
		cfg   resilience.ChaosConfig
		draws []float64
		took  time.Duration
		want  error // nil: the operation ran
		boom  any
		stats resilience.ChaosStats
	}{
		{"spared", resilience.ChaosConfig{Rate: 0.1, Latency: delay, Err: errDown, Panic: "boom"}, []float64{0.1, 0.1, 0.1}, 0, nil, nil, resilience.ChaosStats{}},
		{"delayed", resilience.ChaosConfig{Rate: 0.1, Latency: delay, Err: errDown}, []float64{0.09, 0.1}, delay, nil, nil, resilience.ChaosStats{Delayed: 1}},
		{"failed", resilience.ChaosConfig{Rate: 0.1, Latency: delay, Err: errDown}, []float64{0.1, 0.09}, 0, errDown, nil, resilience.ChaosStats{Failed: 1}},
		{"late and failed", resilience.ChaosConfig{Rate: 0.1, Latency: delay, Err: errDown}, []float64{0, 0}, delay, errDown, nil, resilience.ChaosStats{Delayed: 1, Failed: 1}},
		{"panicked", resilience.ChaosConfig{Rate: 0.1, Err: errDown, Panic: "boom"}, []float64{0}, 0, nil, "boom", resilience.ChaosStats{Panicked: 1}},
		{"an error of its own", resilience.ChaosConfig{ErrRate: 1}, []float64{0.99}, 0, resilience.ErrInjected, nil, resilience.ChaosStats{Failed: 1}},
		{"a rate of its own", resilience.ChaosConfig{Rate: 1, ErrRate: 0.1, Err: errDown}, []float64{0.1}, 0, nil, nil, resilience.ChaosStats{}},
		{"disabled", resilience.ChaosConfig{Rate: 1, Err: errDown, Enabled: func(context.Context) bool { return false }}, nil, 0, nil, nil, resilience.ChaosStats{}},
		{"enabled", resilience.ChaosConfig{Rate: 1, Err: errDown, Enabled: func(context.Context) bool { return true }}, []float64{0}, 0, errDown, nil, resilience.ChaosStats{Failed: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var events []resilience.Event
				tt.cfg.Name = "lab"
				tt.cfg.Observer = resilience.ObserverFunc(func(_ context.Context, e resilience.Event) { events = append(events, e) })
				draws := tt.draws
				tt.cfg.Rand = func() float64 { d := draws[0]; draws = draws[1:]; return d }
				c := must(resilience.NewChaos(tt.cfg))
				ran, start := false, time.Now()
				var err error
				boom := func() (v any) {
					defer func() { v = recover() }()
					err = do(t, c, func(context.Context) error { ran = true; return nil })
					return nil
				}()
				if boom != tt.boom || !errors.Is(err, tt.want) || ran != (tt.want == nil && tt.boom == nil) {
					t.Errorf("error = %v, panic = %v, ran = %v", err, boom, ran)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v", took)
				}
				if s := c.Stats(); s != tt.stats || len(events) != int(s.Delayed+s.Failed+s.Panicked) {
					t.Errorf("stats = %+v, events = %+v", s, events)
				}
				for _, e := range events {
					if e.Kind != resilience.EventInjected || e.Policy != "chaos" || e.Name != "lab" || (e.Err == nil) != (e.Duration > 0) {
						t.Errorf("event = %+v", e)
					}
				}
				if len(draws) != 0 {
					t.Errorf("%d draws too few", len(draws))
				}
			})
		})
	}
}

func TestChaosDelayEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := must(resilience.NewChaos(resilience.ChaosConfig{Name: "lab", Rate: 1, Latency: time.Hour}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := resilience.Do(ctx, c, func(context.Context) error { t.Error("ran"); return nil })
		var injected *resilience.InjectedError
		if !errors.As(err, &injected) || !errors.Is(err, context.DeadlineExceeded) || injected.Retryable() || time.Since(start) != time.Second {
			t.Errorf("error = %v after %v", err, time.Since(start))
		}
	})
}

// A made-up failure is one for the policies around, unless its error says otherwise.
func TestChaosErrors(t *testing.T) {
	t.Parallel()
	refused := &resilience.OpenError{After: time.Second}
	for _, tt := range []struct {
		err       error
		outcome   resilience.Outcome
		retryable bool
		after     time.Duration
		text      string
	}{
		{nil, resilience.Failure, true, 0, `resilience: pass chaos "lab": injected fault`},
		{errDown, resilience.Failure, true, 0, `resilience: pass chaos "lab": injected fault: payment: down`},
		{notFound{}, resilience.Success, true, 0, `resilience: pass chaos "lab": injected fault: not found`},
		{refused, resilience.Neutral, true, time.Second, `resilience: pass chaos "lab": injected fault: ` + refused.Error()},
		{context.Canceled, resilience.Failure, false, 0, `resilience: pass chaos "lab": injected fault: context canceled`},
	} {
		c := must(resilience.NewChaos(resilience.ChaosConfig{Name: "lab", ErrRate: 1, Err: tt.err}))
		err := do(t, c, works)
		var injected *resilience.InjectedError
		if !errors.As(err, &injected) || !errors.Is(err, resilience.ErrInjected) || !injected.NotExecuted() {
			t.Fatalf("error = %v", err)
		}
		after, known := injected.RetryAfter()
		if got := resilience.Classify(t.Context(), err); got != tt.outcome || injected.Retryable() != tt.retryable ||
			after != tt.after || known != (tt.after > 0) || err.Error() != tt.text {
			t.Errorf("%v: %v, retryable %v, after %v", err, got, injected.Retryable(), after)
		}
	}
}
