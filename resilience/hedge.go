package resilience

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HedgeConfig describes a [Hedge]. After is required.
type HedgeConfig struct {
	Name string // for errors, events and Describe

	// After is how long an attempt may take before another one is started beside it.
	After time.Duration

	// Quantile, above 0 and below 1, replaces After by that quantile of the latency of
	// the last 256 attempts as soon as there are 32: with 0.95 about one call in twenty
	// is hedged, however fast the callee is. An attempt cut short because another one
	// won counts with the time it had taken. 0 means After at all times.
	Quantile float64

	// Max bounds the attempts beside the first one. 0 means 1.
	Max int

	// Budget, if not nil, bounds the hedges of all policies that share it.
	Budget *Budget

	// Retryable decides whether an error leaves hope for the other attempts. Nil means
	// [Retryable].
	Retryable func(ctx context.Context, err error) bool

	// Observer, if not nil, is told of each attempt beside the first one.
	Observer Observer
}

// HedgeStats are the totals of a [Hedge] since it was made, and its delay now.
type HedgeStats struct {
	Calls  uint64
	Hedges uint64 // attempts beside the first of each call
	Won    uint64 // calls that one of them answered
	Failed uint64 // calls that no attempt answered
	// Panics counts attempts that panicked after the call had its answer; nobody was
	// there to be told.
	Panics uint64
	Delay  time.Duration
}

// HedgeError reports that several attempts failed and none succeeded. It matches,
// with [errors.Is] and [errors.As], the error of each, the last one first.
type HedgeError struct {
	Name string
	Errs []error // in the order in which the attempts ended
}

// Error counts the attempts and gives the last one's error.
func (e *HedgeError) Error() string {
	var b strings.Builder
	b.WriteString("resilience: hedge")
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	fmt.Fprintf(&b, ": %d attempts failed", len(e.Errs))
	if last := e.last(); last != nil {
		fmt.Fprintf(&b, ": %v", last)
	}
	return b.String()
}

// Unwrap returns the attempts' errors, last first.
func (e *HedgeError) Unwrap() []error {
	errs := slices.Clone(e.Errs)
	slices.Reverse(errs)
	return errs
}

func (e *HedgeError) last() error {
	if len(e.Errs) == 0 {
		return nil
	}
	return e.Errs[len(e.Errs)-1]
}

// Retryable reports what the last error says.
func (e *HedgeError) Retryable() bool { return retryable(e.last()) }

// RetryAfter reports the wish of the last error.
func (e *HedgeError) RetryAfter() (time.Duration, bool) { return retryAfter(e.last()) }

// NotExecuted reports whether no attempt reached the callee.
func (e *HedgeError) NotExecuted() bool {
	for _, err := range e.Errs {
		if !notExecuted(err) {
			return false
		}
	}
	return true
}

// Hedge starts another attempt when one takes long, and the first success wins: it
// trades some load for the slowest answers (Dean and Barroso, "The Tail at Scale",
// CACM 2013). The operation must be idempotent, because the callee may well do it
// twice, and safe for concurrent use.
//
// Every attempt runs on a goroutine of its own with a result of its own. Run
// returns with the first success and does not wait for the others: their contexts
// are cancelled, and what they still return is given to [Discard] on their
// goroutine. An attempt that fails starts the next one at once, unless the callee
// was not reached or asks to wait, which ends further attempts; an error that is
// not retryable ends the call. Safe for concurrent use.
type Hedge struct {
	cfg     HedgeConfig
	latency latencies
	calls   atomic.Uint64
	hedges  atomic.Uint64
	won     atomic.Uint64
	failed  atomic.Uint64
	panics  atomic.Uint64
}

// NewHedge returns a hedge policy.
func NewHedge(cfg HedgeConfig) (*Hedge, error) {
	bad := func(field string, value any, rule, fix string) (*Hedge, error) {
		return nil, configError("hedge", cfg.Name, field, value, rule, fix)
	}
	switch {
	case cfg.After <= 0:
		return bad("After", cfg.After, "must be positive", "name the time most calls take, such as their 95th percentile")
	case cfg.Max < 0:
		return bad("Max", cfg.Max, "must not be negative", "use 0 for the default of 1")
	case !(cfg.Quantile >= 0 && cfg.Quantile < 1):
		return bad("Quantile", cfg.Quantile, "must be at least 0 and below 1", "use 0.95, or 0 for After at all times")
	}
	if cfg.Max == 0 {
		cfg.Max = 1
	}
	if cfg.Retryable == nil {
		cfg.Retryable = Retryable
	}
	return &Hedge{cfg: cfg}, nil
}

// Name returns the name given in the configuration.
func (h *Hedge) Name() string { return h.cfg.Name }

// Stats returns a view of the moment.
func (h *Hedge) Stats() HedgeStats {
	return HedgeStats{
		Won: h.won.Load(), Failed: h.failed.Load(), Panics: h.panics.Load(),
		Hedges: h.hedges.Load(), Calls: h.calls.Load(), Delay: h.delay(),
	}
}

// Describe reports the effective settings.
func (h *Hedge) Describe() Description {
	d := Description{Kind: "hedge", Name: h.cfg.Name, Settings: []Setting{
		setting("after", h.cfg.After), setting("max", h.cfg.Max)}}
	if h.cfg.Quantile > 0 {
		d.Settings = append(d.Settings, setting("quantile", h.cfg.Quantile))
	}
	if h.cfg.Budget != nil {
		d.Settings = append(d.Settings, setting("budget", h.cfg.Budget))
	}
	return d
}

func (h *Hedge) delay() time.Duration {
	if h.cfg.Quantile > 0 {
		if d := h.latency.quantile.Load(); d > 0 {
			return time.Duration(d)
		}
	}
	return h.cfg.After
}

// Run executes next until an attempt succeeds, fails for good, or all have failed.
// The error of a single attempt is returned as it is, those of several as a
// *[HedgeError]; the result beside an error is that of the attempt that ended last.
// Attempts are told apart by [AttemptFromContext]. A panic of an attempt cancels
// the others and goes on as a *[PanicError] on the caller's goroutine; Goexit in
// one is a failure of that attempt. A context that is done runs nothing beside the
// first attempt.
func (h *Hedge) Run(ctx context.Context, next Next) error {
	h.calls.Add(1)
	h.cfg.Budget.began()
	r := &race{hedge: h, ctx: ctx, next: next, ended: make(chan *runner, 1+h.cfg.Max)}
	defer r.leave()
	err := r.run()
	if err != nil {
		h.failed.Add(1)
	}
	return err
}

const (
	errHedgeLost = staticError("resilience: hedge: another attempt answered")
	errHedgeExit = staticError("resilience: hedge: attempt exited its goroutine")
)

// race is one call of a Hedge. All but over belongs to the caller's goroutine.
type race struct {
	hedge    *Hedge
	ctx      context.Context
	next     Next
	attempts []*runner
	kept     *runner // the result that Run returns

	ended chan *runner // has room for all, so that sending never waits
	mu    sync.Mutex
	over  bool // the caller has left; guards against sending to nobody
}

// runner is one attempt.
type runner struct {
	number int
	ctx    context.Context
	cancel context.CancelCauseFunc
	fork   Next
	start  time.Time
	end    time.Duration // how long it took
	err    error
	panic  *PanicError
}

func (r *race) run() error {
	h := r.hedge
	r.start()
	timer := time.NewTimer(h.delay())
	defer timer.Stop()
	more := true // attempts may be started
	running := 1
	var errs []error
	another := func() {
		more = more && len(r.attempts) <= h.cfg.Max && r.ctx.Err() == nil
		if !more {
			return
		}
		if more = h.cfg.Budget == nil || h.cfg.Budget.TryTake(); !more {
			return
		}
		h.hedges.Add(1)
		if h.cfg.Observer != nil {
			h.cfg.Observer.On(r.ctx, Event{Kind: EventHedge, Policy: "hedge", Name: h.cfg.Name, Attempt: len(r.attempts) + 1})
		}
		r.start()
		running++
		timer.Reset(h.delay())
	}
	for {
		var a *runner
		select {
		case <-timer.C:
			another()
			continue
		case a = <-r.ended:
		}
		running--
		if a.panic != nil {
			panic(a.panic)
		}
		if r.kept != nil {
			r.kept.drop()
		}
		r.kept = a
		if a.err == nil {
			h.cfg.Budget.succeeded()
			h.latency.add(a.end, h.cfg.Quantile)
			if a.number > 1 {
				h.won.Add(1)
			}
			return nil
		}
		errs = append(errs, unwrapPermanent(a.err))
		final := r.ctx.Err() != nil || !h.cfg.Retryable(r.ctx, a.err)
		if !final {
			h.cfg.Budget.failed(a.err)
			if wish, ok := retryAfter(a.err); ok && wish > 0 || notExecuted(a.err) {
				more = false
			}
			another()
		}
		if final || running == 0 {
			if len(errs) == 1 {
				return errs[0]
			}
			return &HedgeError{Name: h.cfg.Name, Errs: errs}
		}
	}
}

func (r *race) start() {
	a := &runner{number: len(r.attempts) + 1, fork: r.next.Fork(), start: time.Now()}
	a.ctx, a.cancel = context.WithCancelCause(withAttempt(r.ctx, a.number))
	r.attempts = append(r.attempts, a)
	go r.attempt(a)
}

// attempt runs on a goroutine of its own and hands a over, or disposes of its
// result when there is nobody to take it.
func (r *race) attempt(a *runner) {
	returned := false
	defer func() {
		if !returned {
			a.err = errHedgeExit
			if v := recover(); v != nil {
				a.panic = &PanicError{Value: v, Stack: debug.Stack()}
			}
		}
		a.end = time.Since(a.start)
		r.mu.Lock()
		over := r.over
		if !over {
			r.ended <- a
		}
		r.mu.Unlock()
		if over {
			r.hedge.lost(a)
		}
	}()
	a.err = a.fork.Run(a.ctx)
	returned = true
}

// leave ends every attempt but the one whose result is kept, and gives that result
// to the caller. It runs on every way out of Run.
func (r *race) leave() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	for len(r.ended) > 0 { // ended at the same time as the winner
		r.hedge.lost(<-r.ended)
	}
	won := r.kept != nil && r.kept.err == nil
	for _, a := range r.attempts {
		if a == r.kept {
			continue
		}
		if won && a.ctx.Err() == nil {
			r.hedge.latency.add(time.Since(a.start), r.hedge.cfg.Quantile)
		}
		a.cancel(errHedgeLost)
	}
	a := r.kept
	if a == nil {
		return
	}
	r.next.Adopt(a.fork)
	release := func() { a.cancel(nil) }
	if !r.next.retain(a.ctx, release) {
		release()
	}
}

// drop disposes of the result of an attempt that has ended.
func (a *runner) drop() {
	a.fork.Discard()
	a.cancel(errHedgeLost)
}

// lost is drop for an attempt that nobody looked at. A dispose function of the
// user's that panics must not end the process from a goroutine of ours.
func (h *Hedge) lost(a *runner) {
	defer func() {
		if recover() != nil || a.panic != nil {
			h.panics.Add(1)
		}
	}()
	a.drop()
}

const (
	latencySamples = 256 // remembered
	latencyEnough  = 32  // to say something
	latencyEvery   = 16  // samples between two looks
)

// latencies estimates a quantile from the last samples. Adding one is two atomic
// operations; one in latencyEvery sorts a copy.
type latencies struct {
	quantile atomic.Int64 // 0 until there are enough samples
	added    atomic.Uint64
	samples  [latencySamples]atomic.Int64
	sorting  sync.Mutex
}

func (l *latencies) add(d time.Duration, quantile float64) {
	if quantile == 0 {
		return
	}
	n := l.added.Add(1)
	l.samples[(n-1)%latencySamples].Store(max(1, int64(d)))
	if n < latencyEnough || n%latencyEvery != 0 || !l.sorting.TryLock() {
		return
	}
	defer l.sorting.Unlock()
	sorted := make([]int64, 0, latencySamples)
	for i := range l.samples {
		if v := l.samples[i].Load(); v > 0 {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	l.quantile.Store(sorted[min(len(sorted)-1, int(quantile*float64(len(sorted))))])
}
