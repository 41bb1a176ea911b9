package resilience

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// BreakerConfig describes a [Breaker]. The zero value opens when half of at least
// 20 calls within 10 s failed, stays open for 5 s at first, and closes after three
// successful probes.
type BreakerConfig struct {
	// Name appears in errors, events and Describe.
	Name string

	// Window is what the rules below look at. The zero value is
	// Time(10*time.Second, 10).
	Window Window

	// MinCalls is the number of calls in the window below which rates are not
	// looked at. 0 means 20, or the whole window if Count is smaller. MinCalls and
	// the rates do not go with Consecutive.
	MinCalls int

	// FailureRate opens the breaker when that share of the calls in the window
	// failed, above 0 up to 1. 0 means 0.5, or no such rule if Failures is set.
	FailureRate float64

	// Failures opens the breaker at that number of failures in the window, in a row
	// for Consecutive. 0 means 5 for Consecutive and no such rule otherwise.
	Failures int

	// SlowCall is the time from which on a call counts as slow. 0 means never.
	// SlowRate opens the breaker when that share of the calls was slow; 0 means 0.5.
	// For Consecutive, Failures slow calls in a row open it instead.
	SlowCall time.Duration
	SlowRate float64

	// OpenFor returns how long the breaker stays open. episode counts from 1 and
	// grows while probes fail; cause is the error that opened the breaker, nil when
	// slow calls did. It is called outside locks; if it panics or returns nothing
	// positive, the default applies: OpenBackoff(5*time.Second, time.Minute).
	OpenFor func(episode int, cause error) time.Duration

	// Probes is the number of calls admitted half-open. All must succeed to close
	// the breaker, one failure opens it again. 0 means 3.
	Probes int

	// ProbeTimeout is the time after which a probe without a result counts as
	// failed, so that a hanging call cannot keep the breaker half-open. 0 means 30 s.
	ProbeTimeout time.Duration

	// Classify judges errors. Nil means the function Classify. If it panics, the
	// call counts as a failure and the panic goes on.
	Classify Classifier

	// Observer, if not nil, is told about state changes, one at a time and in order.
	// It runs on the goroutine of the call that caused the change, or on another one
	// that is just delivering.
	Observer Observer
}

// BreakerStats is a moment's view of a [Breaker].
type BreakerStats struct {
	State State
	// Calls, Failures and Slow are those in the window of a closed breaker and 0
	// otherwise. For Consecutive, Failures and Slow are those in a row.
	Calls, Failures, Slow int
	Episode               int           // openings since the breaker was last closed
	OpenFor               time.Duration // time left in state Open
	Opened                uint64        // openings since the breaker was made
	Rejected              uint64        // calls turned away since the breaker was made
}

// Breaker stops calling what keeps failing. Safe for concurrent use; one breaker
// may protect calls of any type.
//
// Closed, each call costs a few atomic operations, or one short lock for the
// windows Count and Time, and no allocation. A result counts only in the period in
// which its call began: what was under way when the breaker opened can neither
// close nor reopen it. Between two states nothing runs in the background; the
// change from open to half-open happens with the first call that is due.
type Breaker struct {
	cfg      BreakerConfig
	base     time.Time // per instance: a package-level one breaks under synctest
	now      atomic.Pointer[period]
	rejected atomic.Uint64

	mu         sync.Mutex
	opened     uint64
	events     []Event
	delivering bool
}

// period is one stretch of a breaker's life: closed with its sensor, or one open
// episode. Calls keep the period they began in.
type period struct {
	sensor  sensor
	episode *episode
}

// NewBreaker returns a closed breaker.
func NewBreaker(cfg BreakerConfig) (*Breaker, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	b := &Breaker{cfg: cfg, base: time.Now()}
	b.now.Store(&period{sensor: cfg.Window.sensor()})
	return b, nil
}

func (c *BreakerConfig) complete() error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("breaker", c.Name, field, value, rule, fix)
	}
	if c.Window.kind == windowDefault {
		c.Window = Time(10*time.Second, 10)
	}
	switch w := c.Window; {
	case w.kind == windowCount && w.size <= 0:
		return bad("Window", w, "must hold at least one call", "use Count(100)")
	case w.kind == windowTime && (w.size <= 0 || w.covered < time.Duration(w.size)):
		return bad("Window", w, "must have buckets of at least 1ns", "use Time(10*time.Second, 10)")
	case c.MinCalls < 0:
		return bad("MinCalls", c.MinCalls, "must not be negative", "use 0 for the default of 20")
	case w.kind == windowCount && c.MinCalls > w.size:
		return bad("MinCalls", c.MinCalls, "must fit into "+w.String(), "make the window larger")
	case c.Failures < 0:
		return bad("Failures", c.Failures, "must not be negative", "use 0 for no such rule")
	case w.kind == windowCount && c.Failures > w.size:
		return bad("Failures", c.Failures, "must fit into "+w.String(), "make the window larger")
	case w.kind == windowConsecutive && c.MinCalls > 0:
		return bad("MinCalls", c.MinCalls, "does not apply to Consecutive()", "set Failures")
	case w.kind == windowConsecutive && c.FailureRate > 0:
		return bad("FailureRate", c.FailureRate, "does not apply to Consecutive()", "set Failures")
	case w.kind == windowConsecutive && c.SlowRate > 0:
		return bad("SlowRate", c.SlowRate, "does not apply to Consecutive()", "set Failures")
	case !(c.FailureRate >= 0 && c.FailureRate <= 1):
		return bad("FailureRate", c.FailureRate, "must be within 0 and 1", "use 0.5 for half of the calls")
	case !(c.SlowRate >= 0 && c.SlowRate <= 1):
		return bad("SlowRate", c.SlowRate, "must be within 0 and 1", "use 0.5 for half of the calls")
	case c.SlowCall < 0:
		return bad("SlowCall", c.SlowCall, "must not be negative", "use 0 for no such rule")
	case c.SlowRate > 0 && c.SlowCall == 0:
		return bad("SlowCall", c.SlowCall, "is needed by SlowRate", "name the time from which on a call is slow")
	case c.Probes < 0:
		return bad("Probes", c.Probes, "must not be negative", "use 0 for the default of 3")
	case c.ProbeTimeout < 0:
		return bad("ProbeTimeout", c.ProbeTimeout, "must not be negative", "use 0 for the default of 30s")
	}
	if c.Window.kind == windowConsecutive {
		if c.Failures == 0 {
			c.Failures = 5
		}
	} else {
		if c.MinCalls == 0 {
			c.MinCalls = 20
			if c.Window.kind == windowCount {
				c.MinCalls = min(20, c.Window.size)
			}
		}
		if c.FailureRate == 0 && c.Failures == 0 {
			c.FailureRate = 0.5
		}
		if c.SlowCall > 0 && c.SlowRate == 0 {
			c.SlowRate = 0.5
		}
	}
	if c.Probes == 0 {
		c.Probes = 3
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = 30 * time.Second
	}
	return nil
}

// OpenFixed keeps a breaker open for d each time.
func OpenFixed(d time.Duration) func(int, error) time.Duration {
	return func(int, error) time.Duration { return d }
}

// OpenBackoff keeps a breaker open for first, then twice as long each time probes
// fail, up to most, plus up to a tenth so that callers do not all probe at once. A
// callee that names a longer time with RetryAfter gets it, within the same most.
func OpenBackoff(first, most time.Duration) func(int, error) time.Duration {
	return func(episode int, cause error) time.Duration {
		d := first
		for i := 1; i < episode && d < most; i++ {
			d *= 2
		}
		if wish, ok := retryAfter(cause); ok {
			d = max(d, wish)
		}
		d = min(d, most)
		return d + time.Duration(rand.Float64()*float64(d)/10)
	}
}

// Run executes next or returns a *[OpenError].
func (b *Breaker) Run(ctx context.Context, next Next) error {
	p := b.now.Load()
	if p.episode != nil {
		return b.probe(ctx, p, next)
	}
	var start time.Duration
	if b.cfg.SlowCall > 0 {
		start = b.elapsed()
	}
	judged := false
	defer func() {
		if !judged { // a panic or Goexit, of the operation or of the classifier
			b.record(p, start, Failure, errNoReturn)
		}
	}()
	err := next.Run(ctx)
	outcome := b.classify(ctx, err)
	judged = true
	b.record(p, start, outcome, err)
	return err
}

// probe runs next in an open episode, if it is due and has a place.
func (b *Breaker) probe(ctx context.Context, p *period, next Next) error {
	permit, err := b.admit(p)
	if err != nil {
		return err
	}
	if permit == nil { // the breaker changed meanwhile
		return b.Run(ctx, next)
	}
	judged := false
	defer func() {
		if !judged {
			b.settle(permit, Failure, errNoReturn)
		}
	}()
	err = next.Run(ctx)
	outcome := b.classify(ctx, err)
	judged = true
	b.settle(permit, outcome, err)
	return err
}

// Allow is the breaker in two steps, for streams and consumers: it admits a call,
// whose end must then be reported to done, or returns a *[OpenError]. Only the
// first call of done counts. A probe that is never reported fails after
// ProbeTimeout.
func (b *Breaker) Allow(ctx context.Context) (done func(error), err error) {
	for {
		p := b.now.Load()
		if p.episode == nil {
			start := b.elapsed()
			return b.once(ctx, func(o Outcome, err error) { b.record(p, start, o, err) }), nil
		}
		permit, err := b.admit(p)
		if err != nil {
			return nil, err
		}
		if permit != nil {
			return b.once(ctx, func(o Outcome, err error) { b.settle(permit, o, err) }), nil
		}
	}
}

func (b *Breaker) once(ctx context.Context, report func(Outcome, error)) func(error) {
	var called atomic.Bool
	return func(err error) {
		if called.Swap(true) {
			return
		}
		judged := false
		defer func() {
			if !judged {
				report(Failure, errNoReturn)
			}
		}()
		outcome := b.classify(ctx, err)
		judged = true
		report(outcome, err)
	}
}

// State returns the state a call would meet now. Looking does not change it.
func (b *Breaker) State() State {
	if e := b.now.Load().episode; e != nil {
		return e.state(b.elapsed())
	}
	return Closed
}

// Stats returns a view of the moment.
func (b *Breaker) Stats() BreakerStats {
	p, now := b.now.Load(), b.elapsed()
	s := BreakerStats{Rejected: b.rejected.Load()}
	if e := p.episode; e != nil {
		s.State, s.Episode = e.state(now), e.number
		s.OpenFor = max(0, e.until-now)
	} else {
		t := p.sensor.read(now)
		s.Calls, s.Failures, s.Slow = t.calls, t.failures, t.slow
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Opened = b.opened
	return s
}

// Trip opens the breaker for d, whatever its state, and so starts a new episode. A
// d that is not positive means what BreakerConfig.OpenFor says.
func (b *Breaker) Trip(d time.Duration) {
	for {
		p := b.now.Load()
		if b.open(p, d, nil) {
			return
		}
	}
}

// Reset closes the breaker with an empty window. Calls under way no longer count.
func (b *Breaker) Reset() {
	b.mu.Lock()
	b.close(b.now.Load())
	b.mu.Unlock()
	b.deliver()
}

// Describe reports the effective settings.
func (b *Breaker) Describe() Description {
	d := Description{Kind: "breaker", Name: b.cfg.Name, Settings: []Setting{setting("window", b.cfg.Window)}}
	add := func(name string, value any, set bool) {
		if set {
			d.Settings = append(d.Settings, setting(name, value))
		}
	}
	add("min-calls", b.cfg.MinCalls, b.cfg.MinCalls > 0)
	add("failure-rate", b.cfg.FailureRate, b.cfg.FailureRate > 0)
	add("failures", b.cfg.Failures, b.cfg.Failures > 0)
	add("slow-call", b.cfg.SlowCall, b.cfg.SlowCall > 0)
	add("slow-rate", b.cfg.SlowRate, b.cfg.SlowRate > 0)
	add("probes", b.cfg.Probes, true)
	add("probe-timeout", b.cfg.ProbeTimeout, true)
	return d
}

func (b *Breaker) elapsed() time.Duration { return max(0, time.Since(b.base)) }

func (b *Breaker) classify(ctx context.Context, err error) Outcome {
	switch {
	case err == nil:
		return Success
	case b.cfg.Classify != nil:
		return b.cfg.Classify(ctx, err)
	default:
		return Classify(ctx, err)
	}
}

// record adds the outcome to the closed period p and opens the breaker if a rule
// says so.
func (b *Breaker) record(p *period, start time.Duration, outcome Outcome, err error) {
	if outcome == Neutral {
		return
	}
	var now time.Duration
	if b.cfg.SlowCall > 0 || b.cfg.Window.kind == windowTime {
		now = b.elapsed()
	}
	slow := b.cfg.SlowCall > 0 && now-start >= b.cfg.SlowCall
	if !b.tripped(p.sensor.record(now, outcome == Failure, slow)) {
		return
	}
	if outcome != Failure {
		err = nil // an answer that came late, not an error
	}
	b.open(p, 0, err)
}

func (b *Breaker) tripped(t tally) bool {
	c := &b.cfg
	if c.Failures > 0 && (t.failures >= c.Failures || c.Window.kind == windowConsecutive && t.slow >= c.Failures) {
		return true
	}
	if t.calls == 0 || t.calls < c.MinCalls {
		return false
	}
	calls := float64(t.calls)
	return c.FailureRate > 0 && float64(t.failures) >= c.FailureRate*calls ||
		c.SlowRate > 0 && float64(t.slow) >= c.SlowRate*calls
}

// open replaces p by a new episode and reports whether p was still current. d is
// the time to stay open, 0 for what the configuration says.
func (b *Breaker) open(p *period, d time.Duration, cause error) bool {
	number := 1
	if p.episode != nil {
		number = p.episode.number + 1
	}
	if b.now.Load() != p {
		return false
	}
	if d <= 0 {
		d = b.openFor(number, cause)
	}
	b.mu.Lock()
	defer b.deliver()
	defer b.mu.Unlock()
	if b.now.Load() != p {
		return false
	}
	e := newEpisode(number, b.cfg.Probes, d, cause)
	e.until = b.elapsed() + d
	b.change(p, &period{episode: e}, Event{To: Open, Duration: d, Err: cause})
	b.opened++
	return true
}

// openFor asks the user's function, which must not be able to wedge the breaker.
func (b *Breaker) openFor(number int, cause error) (d time.Duration) {
	defer func() {
		if d <= 0 {
			_ = recover()
			d = OpenBackoff(5*time.Second, time.Minute)(number, cause)
		}
	}()
	if b.cfg.OpenFor == nil {
		return 0
	}
	return b.cfg.OpenFor(number, cause)
}

// close replaces p by a fresh closed period. Called with mu held.
func (b *Breaker) close(p *period) {
	b.change(p, &period{sensor: b.cfg.Window.sensor()}, Event{To: Closed})
}

// change installs the next period and queues the event. Called with mu held.
func (b *Breaker) change(from, to *period, event Event) {
	event.From = Closed
	if e := from.episode; e != nil {
		event.From = e.announced
	}
	b.now.Store(to)
	b.announce(event)
}

// announce queues an event. Called with mu held.
func (b *Breaker) announce(event Event) {
	if b.cfg.Observer == nil || event.From == event.To && event.To == Closed {
		return
	}
	event.Kind, event.Policy, event.Name = EventStateChanged, "breaker", b.cfg.Name
	b.events = append(b.events, event)
}

// deliver hands queued events to the listener without holding mu. One goroutine
// delivers at a time, which keeps the order; a listener that causes further events
// queues them behind.
func (b *Breaker) deliver() {
	if b.cfg.Observer == nil {
		return
	}
	for b.deliverOne() {
	}
}

func (b *Breaker) deliverOne() bool {
	b.mu.Lock()
	if b.delivering || len(b.events) == 0 {
		b.mu.Unlock()
		return false
	}
	event := b.events[0]
	b.events = b.events[1:]
	b.delivering = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.delivering = false
		b.mu.Unlock()
	}()
	b.cfg.Observer.On(context.Background(), event)
	return true
}
