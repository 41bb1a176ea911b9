package resilience_test

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

// drain takes all that can be had.
func emptied(b *resilience.Budget) int {
	n := 0
	for b.TryTake() {
		n++
	}
	return n
}

func TestBudgetOfARatio(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := must(resilience.NewBudget(resilience.BudgetConfig{Ratio: 0.29, MinPerSecond: 0.5}))
		retry := must(resilience.NewRetry(resilience.RetryConfig{Budget: budget}))
		if n := emptied(budget); n != 5 {
			t.Errorf("at first %d, want 0.5 per second for 10s", n)
		}
		for range 100 {
			_ = do(t, retry, works)
		}
		if n := emptied(budget); n != 29 {
			t.Errorf("after 100 calls %d, want 29", n)
		}
		time.Sleep(9 * time.Second)
		if n := emptied(budget); n != 0 {
			t.Errorf("within the window %d more, want none", n)
		}
		time.Sleep(time.Second)
		if n := emptied(budget); n != 5 {
			t.Errorf("when the window has passed %d, want the minimum of 5", n)
		}
		if s := budget.Stats(); s.Taken != 39 || s.Refused != 4 || s.Calls != 0 || s.Extra != 5 || s.Left > 0.001 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestBudgetOfTokens(t *testing.T) {
	t.Parallel()
	budget := must(resilience.NewBudget(resilience.BudgetConfig{MaxTokens: 10, TokenRatio: 0.5}))
	retry := must(resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 1, Budget: budget}))
	for i, tt := range []struct {
		fn    func(context.Context) error
		times int
		left  float64
		may   bool
	}{
		{works, 5, 5, true}, // full is full
		{fails, 4, 1, true},
		{fails, 1, 0, false}, // half is not more than half
		{works, 1, 0.5, true},
		{fails, 1, 0, false},
		{works, 1, 0, false},
		{works, 1, 0.5, true},
		{func(context.Context) error { return hint{retryable: true, notExecuted: true} }, 9, 0.5, true},
		{func(context.Context) error { return hint{retryable: false} }, 9, 0.5, true},
		{fails, 50, 0, false}, // empty is empty
		{works, 10, 0, false},
		{works, 1, 0.5, true},
	} {
		for range tt.times {
			_ = do(t, retry, tt.fn)
		}
		if got := budget.Stats().Left; got != tt.left || budget.TryTake() != tt.may {
			t.Errorf("step %d: %v left, want %v, may %v", i, got, tt.left, tt.may)
		}
	}
}

func TestBudgetIsExactUnderContention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := must(resilience.NewBudget(resilience.BudgetConfig{Ratio: 0.1, MinPerSecond: 5}))
		retry := must(resilience.NewRetry(resilience.RetryConfig{Budget: budget}))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 250 {
					_ = resilience.Do(context.Background(), retry, works)
				}
			})
		}
		wg.Wait()
		var taken atomic.Int64
		for range 8 {
			wg.Go(func() { taken.Add(int64(emptied(budget))) })
		}
		wg.Wait()
		if n := taken.Load(); n != 250 {
			t.Errorf("taken %d, want 0.1 * 2000 + 50", n)
		}
	})
}

func TestBudgetConfig(t *testing.T) {
	t.Parallel()
	type config = resilience.BudgetConfig
	for _, tt := range []struct {
		field string
		cfg   config
	}{
		{"Ratio", config{Ratio: -1}},
		{"Ratio", config{Ratio: math.NaN()}},
		{"Ratio", config{Ratio: math.Inf(1)}},
		{"MinPerSecond", config{MinPerSecond: -1}},
		{"MinPerSecond", config{MinPerSecond: math.NaN()}},
		{"MaxTokens", config{MaxTokens: -1}},
		{"MaxTokens", config{MaxTokens: 1001}},
		{"MaxTokens", config{MaxTokens: 1, Ratio: 0.1}},
		{"TokenRatio", config{MaxTokens: 1, TokenRatio: math.NaN()}},
		{"TokenRatio", config{TokenRatio: 1}},
	} {
		tt.cfg.Name = "payment"
		if _, err := resilience.NewBudget(tt.cfg); err == nil || !strings.Contains(err.Error(), `budget "payment": `+tt.field+" = ") {
			t.Errorf("%+v: %v", tt.cfg, err)
		}
	}
	for want, cfg := range map[string]config{
		"0.2+10/s":         {},
		"tokens(10,0.1)":   {MaxTokens: 10},
		"tokens(10,0.001)": {MaxTokens: 10, TokenRatio: 1e-9},
	} {
		if got := must(resilience.NewBudget(cfg)).String(); got != want {
			t.Errorf("%+v: %q, want %q", cfg, got, want)
		}
	}
}
