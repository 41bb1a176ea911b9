package resilience

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker stops calling what keeps failing. Safe for concurrent use; one breaker
// may protect calls of any type.
//
// Closed, each call costs a few atomic operations, or one short lock for the
// windows Count and Time, and no allocation; neither does a rejection allocate. A
// result counts only in the period in which its call began: what was under way when
// the breaker opened can neither close nor reopen it. Between two states nothing
// runs in the background; the change from open to half-open happens with the first
// call that is due.
//
// A panic or Goexit of the operation is a failure, gives every place back and goes
// on to the caller.
type Breaker struct {
	name   string
	base   time.Time  // per instance: a package-level one breaks under synctest
	forced *OpenError // the answer of ForcedOpen
	now    atomic.Pointer[view]
	_      [64]byte // what every call reads shares no cache line with what calls write
	sensor sensor
	totals totals

	mu         sync.Mutex // orders changes of now, episodes and events
	told       State      // what listeners were told last
	events     []notice   // to be delivered from the one numbered delivered on
	delivered  int
	delivering bool
}

// view is what a call meets, replaced as a whole.
type view struct {
	cfg    *BreakerConfig
	mode   Mode
	period *period

	// Derived, so that the usual call tests one thing.
	measured bool // closed and not forced
	clocked  bool // a result needs the clock
}

// period is one stretch of a breaker's life: closed, or one open episode. It is
// what tells calls of now from calls of earlier, whatever the settings.
type period struct {
	episode *episode    // nil while closed
	streak  consecutive // results in a row, for the window Consecutive
}

// NewBreaker returns a breaker, closed unless cfg.Mode forces it open. The error
// names the setting that cannot be.
func NewBreaker(cfg BreakerConfig) (*Breaker, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	b := &Breaker{name: cfg.Name, base: time.Now(), forced: &OpenError{Name: cfg.Name, State: Open}}
	if cfg.Mode == ForcedOpen {
		b.told = Open
	}
	closed := new(period)
	b.sensor.install(closed, cfg.Window)
	b.install(view{cfg: &cfg, mode: cfg.Mode, period: closed})
	return b, nil
}

// Name returns the name given in the configuration.
func (b *Breaker) Name() string { return b.name }

// pass is what an admitted call carries to its end.
type pass struct {
	period *period       // the closed period it counts in, nil for none
	probe  *probe        // set for a probe
	start  time.Duration // on the breaker's clock, negative if nobody asked
}

// Run executes next or returns a *[OpenError].
func (b *Breaker) Run(ctx context.Context, next Next) error {
	v := b.now.Load()
	p := pass{period: v.period, start: -1}
	if !v.measured || v.cfg.SlowCall > 0 { // beside the usual call, which does without
		var err error
		if p, err = b.enter(ctx); err != nil {
			return err
		}
	}
	judged := false
	defer func() {
		if !judged { // a panic or Goexit, of the operation or of the classifier
			b.report(ctx, p, Failure, errNoReturn)
		}
	}()
	err := next.Run(ctx)
	outcome := Success
	if err != nil {
		outcome = b.classify(ctx, err)
	}
	judged = true
	b.report(ctx, p, outcome, err)
	return err
}

// Allow is the breaker in two steps, for streams and consumers: it admits a call,
// whose end must then be reported to done, or returns a *[OpenError]. Only the
// first call of done counts, on whatever goroutine; ctx is what the error is judged
// with. A probe that is never reported fails after ProbeTimeout.
func (b *Breaker) Allow(ctx context.Context) (done func(error), err error) {
	p, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	var called atomic.Bool
	return func(err error) {
		if called.Swap(true) {
			return
		}
		judged := false
		defer func() {
			if !judged {
				b.report(ctx, p, Failure, errNoReturn)
			}
		}()
		outcome := b.classify(ctx, err)
		judged = true
		b.report(ctx, p, outcome, err)
	}, nil
}

// enter admits a call in any state and mode, or rejects it.
func (b *Breaker) enter(ctx context.Context) (pass, error) {
	for {
		v := b.now.Load()
		switch {
		case v.mode == ForcedOpen:
			b.rejected(ctx, v, b.forced)
			return pass{}, b.forced
		case v.mode == ForcedClosed:
			return pass{start: b.startOf(v)}, nil
		case v.measured:
			return pass{period: v.period, start: b.startOf(v)}, nil
		}
		probe, rejection := b.admit(ctx, v.period)
		switch {
		case probe != nil:
			return pass{probe: probe, start: b.startOf(v)}, nil
		case rejection == nil: // the period is over
			continue
		}
		b.rejected(ctx, v, rejection)
		if v.mode != MetricsOnly {
			return pass{}, rejection
		}
		return pass{start: b.startOf(v)}, nil
	}
}

// report is the end of every admitted call.
func (b *Breaker) report(ctx context.Context, p pass, outcome Outcome, err error) {
	v := b.now.Load()
	cfg := v.cfg
	var now time.Duration
	slow := false
	if v.clocked {
		now = b.elapsed()
		slow = cfg.SlowCall > 0 && p.start >= 0 && now-p.start >= cfg.SlowCall && outcome != Neutral
	}
	if slow && cfg.Observer != nil {
		b.queue(ctx, cfg.Observer, Event{Kind: EventSlowCall, Duration: now - p.start})
		defer b.deliver() // with what follows, and after the place is given back
	}
	if p.period != v.period || !v.measured || outcome == Neutral {
		b.totals.count(outcome, slow)
		if p.probe != nil {
			if slow && outcome == Success {
				outcome, err = Failure, nil
			}
			b.settle(ctx, p.probe, outcome, err)
		}
		return
	}
	var held tally
	if cfg.Window.kind == windowConsecutive {
		b.totals.count(outcome, slow)
		held = v.period.streak.record(outcome == Failure, slow)
	} else {
		var counted bool
		if held, counted = b.sensor.record(v.period, now, outcome, slow); !counted {
			return
		}
	}
	if cfg.tripped(held) || cfg.ReadyToTrip != nil && cfg.ReadyToTrip(b.stats(v, held)) {
		if outcome != Failure {
			err = nil // an answer that came late, not an error
		}
		b.open(ctx, v.period, 0, err)
	}
}

func (b *Breaker) classify(ctx context.Context, err error) Outcome {
	if err == nil {
		return Success
	}
	judge := b.now.Load().cfg.Classify
	if judge == nil {
		return Classify(ctx, err)
	}
	if outcome := judge(ctx, err); outcome <= Neutral {
		return outcome
	}
	return Failure // whatever the classifier made up
}

func (b *Breaker) elapsed() time.Duration { return max(0, time.Since(b.base)) }

func (b *Breaker) startOf(v *view) time.Duration {
	if v.cfg.SlowCall > 0 {
		return b.elapsed()
	}
	return -1
}

// Trip opens the breaker for d, whatever its state, and so starts a new episode. A
// d that is not positive means what BreakerConfig.OpenFor says. In a forced mode it
// shows once that mode ends.
func (b *Breaker) Trip(d time.Duration) {
	for !b.open(context.Background(), b.now.Load().period, d, nil) {
	}
}

// Reset closes the breaker with an empty window. Calls under way no longer count.
// In a forced mode it shows once that mode ends.
func (b *Breaker) Reset() {
	b.mu.Lock()
	b.close(context.Background())
	b.mu.Unlock()
	b.deliver()
}

// open replaces p by a new episode and reports whether p was still current. d is
// the time to stay open, not positive for what the configuration says.
func (b *Breaker) open(ctx context.Context, p *period, d time.Duration, cause error) (opened bool) {
	v := b.now.Load()
	if v.period != p {
		return false
	}
	number := 1
	if p.episode != nil {
		number = p.episode.number + 1
	}
	// Deferred, so that the user's function can wedge the breaker neither by a panic
	// nor by Goexit.
	defer func() {
		if d <= 0 {
			_ = recover()
			d = OpenBackoff(5*time.Second, time.Minute)(number, cause)
		}
		opened = b.begin(ctx, p, number, d, cause)
	}()
	if d <= 0 && v.cfg.OpenFor != nil {
		d = v.cfg.OpenFor(number, cause)
	}
	return false
}

func (b *Breaker) begin(ctx context.Context, p *period, number int, d time.Duration, cause error) bool {
	b.mu.Lock()
	v := *b.now.Load()
	if v.period != p {
		b.mu.Unlock()
		return false
	}
	v.period = &period{episode: newEpisode(v.cfg, number, d, cause)}
	b.totals.add(totalOpened)
	b.install(v)
	b.announce(ctx, &v, Open, d, cause)
	b.mu.Unlock()
	b.deliver()
	return true
}

// close begins a closed period with an empty window. Called with mu held.
func (b *Breaker) close(ctx context.Context) {
	v := *b.now.Load()
	v.period = new(period)
	b.sensor.install(v.period, v.cfg.Window)
	b.install(v)
	b.announce(ctx, &v, Closed, 0, nil)
}

// install makes v what the next call meets. Called with mu held.
func (b *Breaker) install(v view) {
	v.measured = v.period.episode == nil && !v.mode.forced()
	v.clocked = v.cfg.SlowCall > 0 || v.measured && v.cfg.Window.kind == windowTime
	b.now.Store(&v)
}

const (
	errNoReturn  = staticError("resilience: call did not return")
	errProbeHung = staticError("resilience: probe did not return in time")
)
