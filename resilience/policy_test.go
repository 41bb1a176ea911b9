package resilience_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

// tracer is a user's own policy that notes when it is entered and left.
type tracer struct {
	name string
	log  *[]string
}

func (p tracer) Run(ctx context.Context, next resilience.Next) error {
	*p.log = append(*p.log, p.name+">")
	defer func() { *p.log = append(*p.log, "<"+p.name) }()
	return next.Run(ctx)
}

func (p tracer) Describe() resilience.Description {
	return resilience.Description{Kind: "tracer", Name: p.name}
}

// around runs another policy inside itself, as a user's composite would.
type around struct{ inner resilience.Policy }

func (p around) Run(ctx context.Context, next resilience.Next) error { return p.inner.Run(ctx, next) }
func (p around) Describe() resilience.Description                    { return p.inner.Describe() }

func TestChainRunsFromTheOutsideIn(t *testing.T) {
	t.Parallel()
	var log []string
	a, b, c := tracer{"a", &log}, tracer{"b", &log}, tracer{"c", &log}
	for _, tt := range []struct {
		name   string
		policy resilience.Policy
		want   string
	}{
		{"flat", resilience.Chain(a, b, c), "a> b> c> op <c <b <a"},
		{"nested", resilience.Chain(a, resilience.Chain(b, c)), "a> b> c> op <c <b <a"},
		{"nested first", resilience.Chain(resilience.Chain(a, b), c), "a> b> c> op <c <b <a"},
		{"nil left out", resilience.Chain(nil, a, nil), "a> op <a"},
		{"empty", resilience.Chain(nil), "op"},
		{"no policy", nil, "op"},
		{"chain inside a policy", resilience.Chain(a, around{resilience.Chain(b)}, c), "a> b> c> op <c <b <a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log = nil
			err := do(t, tt.policy, func(context.Context) error { log = append(log, "op"); return errDown })
			if !errors.Is(err, errDown) {
				t.Errorf("error = %v, want the operation's", err)
			}
			if got := strings.Join(log, " "); got != tt.want {
				t.Errorf("ran %q, want %q", got, tt.want)
			}
		})
	}
}

func TestZeroNextSucceeds(t *testing.T) {
	t.Parallel()
	if err := (resilience.Next{}).Run(t.Context()); err != nil {
		t.Errorf("zero Next: %v", err)
	}
}

func TestChainDescribesItself(t *testing.T) {
	t.Parallel()
	policy := resilience.Chain(
		must(resilience.NewTimeout(time.Second)),
		must(resilience.NewRetry(resilience.RetryConfig{Name: "r"})),
		must(resilience.NewBreaker(resilience.BreakerConfig{Name: "b", Window: resilience.Consecutive()})),
		must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "h", Max: 2, Queue: 1, MaxWait: time.Second})),
		must(resilience.NewTimeout(2*time.Second)),
		must(resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 4})),
	)
	want := `chain
  warning: timeout of 2s inside a timeout of 1s never fires
  warning: retry inside retry: up to 12 attempts
  timeout after=1s
  retry "r" attempts=3 max-retry-after=1m0s
  breaker "b" window=Consecutive() failures=5 probes=3 probe-timeout=30s
  bulkhead "h" max=2 queue=1 max-wait=1s
  timeout after=2s
  retry attempts=4 max-retry-after=1m0s`
	if got := policy.Describe().String(); got != want {
		t.Errorf("described as\n%s\nwant\n%s", got, want)
	}
}

func TestCallReturnsTheLastResult(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	retry := must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)}))
	tripped := must(resilience.NewBreaker(resilience.BreakerConfig{}))
	tripped.Trip(time.Hour)

	n := 0
	count := func(context.Context) (int, error) { n++; return n, nil }
	below := func(min int) resilience.CallOption[int] {
		return resilience.FailIf(func(v int) error {
			if v < min {
				return errDown
			}
			return nil
		})
	}
	var discarded []int
	discard := resilience.Discard(func(v int) { discarded = append(discarded, v) })
	orElse := resilience.OrElse(func(_ context.Context, err error) (int, error) {
		if err == nil {
			t.Error("fallback without an error")
		}
		return -1, nil
	})

	for _, tt := range []struct {
		name    string
		policy  resilience.Policy
		opts    []resilience.CallOption[int]
		want    int
		wantErr error
		discard []int
	}{
		{"plain", retry, nil, 1, nil, nil},
		{"without policy", nil, nil, 1, nil, nil},
		{"third result is good", retry, []resilience.CallOption[int]{below(3), discard}, 3, nil, []int{1, 2}},
		{"refused result is returned", retry, []resilience.CallOption[int]{below(9), discard}, 3, errDown, []int{1, 2}},
		{"fallback replaces it", retry, []resilience.CallOption[int]{below(9), discard, orElse}, -1, nil, []int{1, 2, 3}},
		{"rejected", tripped, nil, 0, resilience.ErrOpen, nil},
		{"rejected with fallback", tripped, []resilience.CallOption[int]{orElse}, -1, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, discarded = 0, nil
			got, err := resilience.Call(ctx, tt.policy, count, tt.opts...)
			if got != tt.want || !errors.Is(err, tt.wantErr) {
				t.Errorf("got %d, %v; want %d, %v", got, err, tt.want, tt.wantErr)
			}
			if !slices.Equal(discarded, tt.discard) {
				t.Errorf("discarded %v, want %v", discarded, tt.discard)
			}
		})
	}
}

func TestConfigurationErrorsNameTheField(t *testing.T) {
	t.Parallel()
	breaker := func(c resilience.BreakerConfig) error { _, err := resilience.NewBreaker(c); return err }
	retry := func(c resilience.RetryConfig) error { _, err := resilience.NewRetry(c); return err }
	bulkhead := func(c resilience.BulkheadConfig) error { _, err := resilience.NewBulkhead(c); return err }
	_, timeout := resilience.NewTimeout(-1)
	nan := func() float64 { var z float64; return z / z }()

	for _, tt := range []struct {
		err  error
		want string
	}{
		{timeout, "timeout: d = -1ns"},
		{retry(resilience.RetryConfig{MaxAttempts: -1}), "MaxAttempts = -1"},
		{retry(resilience.RetryConfig{MaxElapsed: -1}), "MaxElapsed = -1ns"},
		{retry(resilience.RetryConfig{MaxRetryAfter: -1}), "MaxRetryAfter = -1ns"},
		{bulkhead(resilience.BulkheadConfig{Name: "db"}), `bulkhead "db": Max = 0`},
		{bulkhead(resilience.BulkheadConfig{Max: 1, Queue: -1}), "Queue = -1"},
		{bulkhead(resilience.BulkheadConfig{Max: 1, MaxWait: -1}), "MaxWait = -1ns"},
		{breaker(resilience.BreakerConfig{Window: resilience.Count(0)}), "Window = Count(0)"},
		{breaker(resilience.BreakerConfig{Window: resilience.Time(0, 1)}), "Window = Time(0s, 1)"},
		{breaker(resilience.BreakerConfig{Window: resilience.Time(time.Second, 0)}), "Window = Time(1s, 0)"},
		{breaker(resilience.BreakerConfig{MinCalls: -1}), "MinCalls = -1"},
		{breaker(resilience.BreakerConfig{Window: resilience.Count(5), MinCalls: 6}), "MinCalls = 6"},
		{breaker(resilience.BreakerConfig{Window: resilience.Count(5), Failures: 6}), "Failures = 6"},
		{breaker(resilience.BreakerConfig{Failures: -1}), "Failures = -1"},
		{breaker(resilience.BreakerConfig{FailureRate: 1.5}), "FailureRate = 1.5"},
		{breaker(resilience.BreakerConfig{FailureRate: nan}), "FailureRate = NaN"},
		{breaker(resilience.BreakerConfig{SlowRate: -0.1, SlowCall: 1}), "SlowRate = -0.1"},
		{breaker(resilience.BreakerConfig{SlowRate: 0.1}), "SlowCall = 0s"},
		{breaker(resilience.BreakerConfig{SlowCall: -1}), "SlowCall = -1ns"},
		{breaker(resilience.BreakerConfig{Window: resilience.Consecutive(), FailureRate: 0.5}), "FailureRate = 0.5: does not apply"},
		{breaker(resilience.BreakerConfig{Window: resilience.Consecutive(), SlowCall: 1, SlowRate: 0.5}), "SlowRate = 0.5: does not apply"},
		{breaker(resilience.BreakerConfig{Window: resilience.Consecutive(), MinCalls: 2}), "MinCalls = 2: does not apply"},
		{breaker(resilience.BreakerConfig{Probes: -1}), "Probes = -1"},
		{breaker(resilience.BreakerConfig{ProbeTimeout: -1}), "ProbeTimeout = -1ns"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			if tt.err == nil || !strings.HasPrefix(tt.err.Error(), "resilience: configure ") || !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("error = %v, want it to contain %q", tt.err, tt.want)
			}
		})
	}
}
