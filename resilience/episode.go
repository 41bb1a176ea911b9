package resilience

import (
	"context"
	"math"
	"time"

	"github.com/sony/gobreaker"
)

// episode is one opening of a breaker: open for a while, then half-open until the
// probes decide. gobreaker is its state machine; a fresh one per episode lets open
// time and probes differ from one to the next. The places it grants are held until
// the verdict is certain, so that the share of good probes decides instead of the
// first bad one. All that changes belongs to Breaker.mu.
type episode struct {
	number       int // openings in a row
	open, half   *OpenError
	probes, need int // places, and how many must do well
	patience     time.Duration

	machine   *gobreaker.TwoStepCircuitBreaker
	reached   gobreaker.State // set by machine, under its lock and ours
	probing   bool            // a probe was admitted
	places    []func(bool)    // granted by machine
	free      int             // granted places that probes without a verdict gave back
	good, bad int
}

func newEpisode(cfg *BreakerConfig, number int, d time.Duration, cause error) *episode {
	e := &episode{number: number, probes: cfg.Probes, need: probesNeeded(cfg.Probes, cfg.ProbeSuccess), patience: cfg.ProbeTimeout}
	e.machine = gobreaker.NewTwoStepCircuitBreaker(gobreaker.Settings{
		MaxRequests: uint32(cfg.Probes),
		// gobreaker is still open at the very instant its time is over; a caller that
		// comes back exactly when told must be admitted.
		Timeout:       max(1, d-1),
		ReadyToTrip:   func(gobreaker.Counts) bool { return true },
		OnStateChange: func(_ string, _, to gobreaker.State) { e.reached = to },
	})
	if done, err := e.machine.Allow(); err == nil {
		done(false)
	}
	e.open = &OpenError{Name: cfg.Name, State: Open, Until: time.Now().Add(d), Cause: cause}
	e.half = &OpenError{Name: cfg.Name, State: HalfOpen, Cause: cause}
	return e
}

// probesNeeded is the smallest number whose share of n reaches share.
func probesNeeded(n int, share float64) int {
	if share == 0 {
		return n
	}
	k := int(math.Ceil(share * float64(n)))
	if float64(k-1)/float64(n) >= share { // 0.55*100 is a little more than 55
		k--
	}
	return k
}

// left is the time until probes are admitted.
func (e *episode) left() time.Duration { return max(0, time.Until(e.open.Until)) }

// grant takes a place for a probe, if there is one.
func (e *episode) grant() bool {
	if e.free > 0 && e.reached == gobreaker.StateHalfOpen {
		e.free--
		return true
	}
	if len(e.places) == e.probes { // as gobreaker would say, with another lock and look at the clock
		return false
	}
	done, err := e.machine.Allow()
	if err != nil {
		return false
	}
	e.places = append(e.places, done)
	return true
}

// count adds a probe's outcome and gives the machine its verdict once the remaining
// probes cannot change it.
func (e *episode) count(outcome Outcome) {
	switch outcome {
	case Neutral:
		e.free++
		return
	case Success:
		e.good++
	default:
		e.bad++
	}
	switch {
	case e.good >= e.need:
		for e.free = 0; e.grant(); { // gobreaker closes on a success in every place
		}
		for _, done := range e.places {
			done(true)
		}
	case e.bad > e.probes-e.need:
		e.places[0](false)
	}
}

// probe is the right of one call to be counted in a half-open episode.
type probe struct {
	period   *period
	watchdog *time.Timer
	settled  bool
}

// admit returns a probe, a rejection, or neither if p is over.
func (b *Breaker) admit(ctx context.Context, p *period) (*probe, *OpenError) {
	e := p.episode
	if e.left() > 0 { // the usual case, without a lock
		return nil, e.open
	}
	b.mu.Lock()
	v := b.now.Load()
	if v.period != p {
		b.mu.Unlock()
		return nil, nil
	}
	if !e.grant() {
		b.mu.Unlock()
		return nil, e.half
	}
	if !e.probing {
		e.probing = true
		b.announce(ctx, v, HalfOpen, 0, nil)
	}
	t := &probe{period: p}
	t.watchdog = time.AfterFunc(e.patience, func() {
		defer func() { _ = recover() }() // an observer's panic has no caller to go to here
		b.settle(context.Background(), t, Failure, errProbeHung)
	})
	b.mu.Unlock()
	told := false
	defer func() {
		if !told { // an observer panicked, and the call will not take place
			b.settle(ctx, t, Neutral, nil)
		}
	}()
	b.deliver()
	told = true
	return t, nil
}

// settle counts a probe, once: a late result of a probe that the watchdog gave up,
// or of an episode that is over, changes nothing. A neutral outcome passes the place
// on to the next probe.
func (b *Breaker) settle(ctx context.Context, t *probe, outcome Outcome, err error) {
	b.mu.Lock()
	e := t.period.episode
	t.watchdog.Stop()
	if t.settled || e.reached != gobreaker.StateHalfOpen || b.now.Load().period != t.period {
		b.mu.Unlock()
		return
	}
	t.settled = true
	e.count(outcome)
	if e.reached == gobreaker.StateClosed {
		b.close(ctx)
	}
	reopen := e.reached == gobreaker.StateOpen
	b.mu.Unlock()
	if reopen {
		b.open(ctx, t.period, 0, err)
		return
	}
	b.deliver()
}
