package resilience_test

import (
	"context"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

func done(ctx context.Context) error { _ = ctx.Done(); return nil }

type deepKey int

func retryCosts() []struct {
	name   string
	ctx    context.Context
	policy resilience.Policy
	fn     func(context.Context) error
	allocs float64
} {
	budget := must(resilience.NewBudget(resilience.BudgetConfig{}))
	tokens := must(resilience.NewBudget(resilience.BudgetConfig{MaxTokens: 10}))
	retry := must(resilience.NewRetry(resilience.RetryConfig{}))
	timeout := must(resilience.NewTimeout(time.Minute))
	breaker := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Time(10*time.Second, 10)}))
	bulkhead := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 64}))
	composed := resilience.Chain(timeout, retry, breaker, bulkhead)
	background := context.Background()
	deep := background
	for i := range 10 {
		deep = context.WithValue(deep, deepKey(i), i)
	}
	early, cancel := context.WithTimeout(background, 30*time.Second)
	_ = cancel
	return []struct {
		name   string
		ctx    context.Context
		policy resilience.Policy
		fn     func(context.Context) error
		allocs float64
	}{
		{"retry", background, retry, works, 0},
		{"retry, ten values deep", deep, retry, works, 0},
		{"retry with a ratio", background, must(resilience.NewRetry(resilience.RetryConfig{Budget: budget})), works, 0},
		{"retry with tokens", background, must(resilience.NewRetry(resilience.RetryConfig{Budget: tokens})), works, 0},
		{"timeout", background, timeout, works, 1},
		{"timeout of the caller", early, timeout, works, 0},
		{"timeout, Done", background, timeout, done, 6},
		{"timeout retry breaker bulkhead", background, composed, works, 1},
		{"timeout retry breaker bulkhead, Done", background, composed, done, 6},
	}
}

func TestAllocationsOfRetryAndTimeout(t *testing.T) {
	for _, c := range retryCosts() {
		if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(c.ctx, c.policy, c.fn) }); got > c.allocs {
			t.Errorf("%s: %v allocations, want %v", c.name, got, c.allocs)
		}
	}
}

func BenchmarkRetry(b *testing.B) {
	for _, c := range retryCosts() {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = resilience.Do(c.ctx, c.policy, c.fn)
			}
		})
	}
}

func BenchmarkHedge(b *testing.B) {
	hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Minute, Quantile: 0.99}))
	b.ReportAllocs()
	for b.Loop() {
		_ = resilience.Do(context.Background(), hedge, works)
	}
}
