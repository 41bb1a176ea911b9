package resilience_test

import (
	"context"
	"errors"
	"testing"

	"github.com/armature-go/armature/resilience"
)

func TestFallback(t *testing.T) {
	t.Parallel()
	errOther := errors.New("queue: full")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		op      func(context.Context) error
		when    func(context.Context, error) bool
		handled error // what Handle returns
		want    error
		stats   resilience.FallbackStats
	}{
		{name: "success is left alone", op: works},
		{name: "saved", op: fails, stats: resilience.FallbackStats{Answered: 1}},
		{name: "fails too", op: fails, handled: errOther, want: errOther, stats: resilience.FallbackStats{Failed: 1}},
		{name: "cancelled by the caller", ctx: cancelled, op: fails, want: errDown},
		{
			name: "When says no", op: fails, want: errDown,
			when: func(_ context.Context, err error) bool { return !errors.Is(err, errDown) },
		},
		{
			name: "When says yes to a cancelled call", ctx: cancelled, op: fails,
			when:  func(context.Context, error) bool { return true },
			stats: resilience.FallbackStats{Answered: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events []resilience.Event
			f := must(resilience.NewFallback(resilience.FallbackConfig{
				Name: "later", When: tt.when,
				Handle: func(_ context.Context, err error) error {
					if !errors.Is(err, errDown) {
						t.Errorf("handles %v", err)
					}
					return tt.handled
				},
				Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) { events = append(events, e) }),
			}))
			ctx := t.Context()
			if tt.ctx != nil {
				ctx = tt.ctx
			}
			if err := resilience.Do(ctx, f, tt.op); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
			if s := f.Stats(); s != tt.stats {
				t.Errorf("stats = %+v", s)
			}
			if len(events) != int(tt.stats.Answered) {
				t.Errorf("events = %+v", events)
			}
			for _, e := range events {
				if e != (resilience.Event{Kind: resilience.EventFallback, Policy: "fallback", Name: "later", Err: errDown}) {
					t.Errorf("event = %+v", e)
				}
			}
		})
	}
}

func TestFallbackLeavesPanicsAlone(t *testing.T) {
	t.Parallel()
	f := must(resilience.NewFallback(resilience.FallbackConfig{
		Handle: func(context.Context, error) error { t.Error("handled"); return nil },
	}))
	defer func() {
		if recover() != "boom" {
			t.Error("the panic did not pass")
		}
	}()
	_ = resilience.Do(context.Background(), f, func(context.Context) error { panic("boom") })
}

// Inside a breaker, what the fallback saved is a success.
func TestFallbackInsideABreaker(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
	f := must(resilience.NewFallback(resilience.FallbackConfig{Handle: func(context.Context, error) error { return nil }}))
	_ = do(t, resilience.Chain(b, f), fails)
	wantState(t, b, resilience.Closed)
	_ = do(t, resilience.Chain(f, b), fails)
	wantState(t, b, resilience.Open)
}
