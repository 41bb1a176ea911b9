package resilience

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// BudgetConfig describes a [Budget]. The zero value grants one extra attempt per
// five calls and ten more per second, both over the last ten seconds: the default
// of Finagle (https://finagle.github.io/blog/2016/02/08/retry-budgets).
type BudgetConfig struct {
	// Name appears in errors of the configuration and labels what Stats says.
	Name string

	// Ratio is the number of extra attempts per call, above 0 up to 10. 0 means 0.2.
	Ratio float64

	// MinPerSecond is added to it, so that a client with few calls may retry at all.
	// What was not used in the last ten seconds may be taken at once. 0 means 10; for
	// next to none use a small number.
	MinPerSecond float64

	// MaxTokens, from 1 to 1000, chooses the throttle of gRPC instead (proposal A6,
	// https://github.com/grpc/proposal/blob/master/A6-client-retries.md): there are
	// MaxTokens at first and at most, each failed attempt takes one, each success
	// gives TokenRatio, and extra attempts are made while more than half are there.
	// Ratio and MinPerSecond do not go with it.
	MaxTokens int

	// TokenRatio is above 0, rounded to thousandths. 0 means 0.1.
	TokenRatio float64
}

// BudgetStats is a moment's view of a [Budget].
type BudgetStats struct {
	// Calls and Extra are the calls and the extra attempts of the last ten seconds; 0
	// when the budget counts tokens.
	Calls, Extra int
	// Left is the number of extra attempts that may be made now, in part; of a budget
	// that counts tokens, those above half.
	Left    float64
	Taken   uint64 // extra attempts granted since the budget was made
	Refused uint64 // extra attempts refused since then
}

// Budget bounds the extra load that retries and hedges put on a callee that is
// already in trouble. One budget per callee is shared by all its policies; a call
// counts once for each policy that has the budget, so an inner one sees the
// attempts of an outer one as calls. Safe for concurrent use; nothing has to be
// given back. A call that succeeds costs a look at the clock and an atomic
// operation, or one atomic operation with tokens.
type Budget struct {
	cfg  BudgetConfig
	base time.Time

	tokens atomic.Int64 // in thousandths

	calls seconds
	mu    sync.Mutex // makes looking and taking one step
	extra seconds

	taken   atomic.Uint64
	refused atomic.Uint64
}

// NewBudget returns a full budget.
func NewBudget(cfg BudgetConfig) (*Budget, error) {
	bad := func(field string, value any, rule, fix string) (*Budget, error) {
		return nil, configError("budget", cfg.Name, field, value, rule, fix)
	}
	switch {
	case !(cfg.Ratio >= 0 && cfg.Ratio <= 10):
		return bad("Ratio", cfg.Ratio, "must be within 0 and 10", "use 0 for the default of 0.2")
	case !(cfg.MinPerSecond >= 0 && cfg.MinPerSecond <= 1e6):
		return bad("MinPerSecond", cfg.MinPerSecond, "must be within 0 and 1e6", "use 0 for the default of 10")
	case cfg.MaxTokens < 0 || cfg.MaxTokens > 1000:
		return bad("MaxTokens", cfg.MaxTokens, "must be within 0 and 1000", "use 0 for no tokens")
	case !(cfg.TokenRatio >= 0 && cfg.TokenRatio <= 1000):
		return bad("TokenRatio", cfg.TokenRatio, "must be within 0 and 1000", "use 0 for the default of 0.1")
	case cfg.MaxTokens == 0 && cfg.TokenRatio > 0:
		return bad("TokenRatio", cfg.TokenRatio, "needs MaxTokens", "set MaxTokens to 10, for instance")
	case cfg.MaxTokens > 0 && (cfg.Ratio > 0 || cfg.MinPerSecond > 0):
		return bad("MaxTokens", cfg.MaxTokens, "does not go with Ratio and MinPerSecond", "choose one of the two")
	}
	if cfg.MaxTokens > 0 {
		if cfg.TokenRatio == 0 {
			cfg.TokenRatio = 0.1
		}
		cfg.TokenRatio = max(1, math.Round(cfg.TokenRatio*1000)) / 1000
	} else {
		if cfg.Ratio == 0 {
			cfg.Ratio = 0.2
		}
		if cfg.MinPerSecond == 0 {
			cfg.MinPerSecond = 10
		}
	}
	b := &Budget{cfg: cfg, base: time.Now()}
	b.tokens.Store(int64(cfg.MaxTokens) * 1000)
	return b, nil
}

// Name returns the name given in the configuration.
func (b *Budget) Name() string { return b.cfg.Name }

// String describes the effective settings in one word, as "0.2+10/s" or
// "tokens(10,0.1)".
func (b *Budget) String() string {
	if b.cfg.MaxTokens > 0 {
		return fmt.Sprintf("tokens(%d,%v)", b.cfg.MaxTokens, b.cfg.TokenRatio)
	}
	return fmt.Sprintf("%v+%v/s", b.cfg.Ratio, b.cfg.MinPerSecond)
}

// TryTake reports whether one extra attempt may be made, and if so counts it.
// Policies of this package report calls and outcomes themselves; whoever has only
// TryTake draws on MinPerSecond and on what the policies bring in.
func (b *Budget) TryTake() bool {
	granted := b.take()
	if granted {
		b.taken.Add(1)
	} else {
		b.refused.Add(1)
	}
	return granted
}

func (b *Budget) take() bool {
	if b.cfg.MaxTokens > 0 {
		return b.tokens.Load() > b.half()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.second()
	if b.left(now) < 1 {
		return false
	}
	b.extra.add(now)
	return true
}

// Stats returns a view of the moment.
func (b *Budget) Stats() BudgetStats {
	s := BudgetStats{Taken: b.taken.Load(), Refused: b.refused.Load()}
	if b.cfg.MaxTokens > 0 {
		s.Left = float64(max(0, b.tokens.Load()-b.half())) / 1000
		return s
	}
	now := b.second()
	s.Calls, s.Extra = int(b.calls.sum(now)), int(b.extra.sum(now))
	s.Left = max(0, b.left(now))
	return s
}

// left is what ratio and minimum leave. The small term mends products such as
// 0.29*100, which is a little less than 29.
func (b *Budget) left(now uint32) float64 {
	return b.cfg.Ratio*float64(b.calls.sum(now)) + b.cfg.MinPerSecond*windowSeconds - float64(b.extra.sum(now)) + 1e-9
}

func (b *Budget) half() int64 { return int64(b.cfg.MaxTokens) * 500 }

func (b *Budget) second() uint32 { return uint32(max(0, time.Since(b.base)) / time.Second) }

// began, succeeded and failed are what policies report: each call once, each
// attempt with its outcome if that says something about the callee. A nil budget
// has nothing to count.

func (b *Budget) began() {
	if b != nil && b.cfg.MaxTokens == 0 {
		b.calls.add(b.second())
	}
}

func (b *Budget) succeeded() {
	if b != nil && b.cfg.MaxTokens > 0 {
		b.give(int64(b.cfg.TokenRatio * 1000))
	}
}

func (b *Budget) failed(err error) {
	if b != nil && b.cfg.MaxTokens > 0 && !notExecuted(err) {
		b.give(-1000)
	}
}

func (b *Budget) give(thousandths int64) {
	for {
		old := b.tokens.Load()
		now := min(max(0, old+thousandths), int64(b.cfg.MaxTokens)*1000)
		if now == old || b.tokens.CompareAndSwap(old, now) {
			return
		}
	}
}

const windowSeconds = 10

// seconds counts events of the last ten seconds, the present one included. Each
// slot holds the second it is about and the count, so that a slot of an older
// second needs no clearing.
type seconds [windowSeconds]atomic.Uint64

func (s *seconds) add(now uint32) {
	slot := &s[now%windowSeconds]
	for {
		old := slot.Load()
		next := old + 1
		if about := uint32(old >> 32); about < now {
			next = uint64(now)<<32 | 1
		} else if about > now { // ten seconds late: nobody looks at that one any more
			return
		}
		if slot.CompareAndSwap(old, next) {
			return
		}
	}
}

func (s *seconds) sum(now uint32) uint64 {
	var n uint64
	for i := range s {
		v := s[i].Load()
		if about := uint32(v >> 32); about <= now && now-about < windowSeconds {
			n += v & math.MaxUint32
		}
	}
	return n
}
