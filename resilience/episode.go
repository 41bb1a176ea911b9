package resilience

import (
	"time"

	"github.com/sony/gobreaker"
)

// episode is one opening of a breaker: open for a while, then half-open until the
// probes decide. gobreaker is its state machine; a fresh one per episode lets the
// open time differ from one to the next. All fields but the constant ones belong
// to Breaker.mu.
type episode struct {
	number int           // constant: openings in a row
	until  time.Duration // constant: when probes are admitted, on the breaker's clock
	cause  error         // constant: what opened it

	machine   *gobreaker.TwoStepCircuitBreaker
	reached   gobreaker.State // set by machine, under its lock and ours
	announced State           // what listeners were told last
	spare     []func(bool)    // places given back by probes without a verdict
}

func newEpisode(number, probes int, d time.Duration, cause error) *episode {
	e := &episode{number: number, cause: cause, announced: Open}
	e.machine = gobreaker.NewTwoStepCircuitBreaker(gobreaker.Settings{
		MaxRequests: uint32(probes),
		// gobreaker is still open at the very instant its time is over; a caller that
		// comes back exactly when told must be admitted.
		Timeout:       max(1, d-1),
		ReadyToTrip:   func(gobreaker.Counts) bool { return true },
		OnStateChange: func(_ string, _, to gobreaker.State) { e.reached = to },
	})
	if done, err := e.machine.Allow(); err == nil {
		done(false)
	}
	return e
}

func (e *episode) state(now time.Duration) State {
	if now < e.until {
		return Open
	}
	return HalfOpen
}

// permit is the right of one probe to report.
type permit struct {
	period   *period
	done     func(bool)
	watchdog *time.Timer
	settled  bool
}

// admit returns a permit for a probe, an *OpenError, or neither if p is over.
func (b *Breaker) admit(p *period) (*permit, error) {
	e := p.episode
	if left := e.until - b.elapsed(); left > 0 { // the usual case, without a lock
		return nil, b.reject(e, Open, left)
	}
	b.mu.Lock()
	defer b.deliver()
	defer b.mu.Unlock()
	if b.now.Load() != p {
		return nil, nil
	}
	var done func(bool)
	if n := len(e.spare); n > 0 {
		done, e.spare = e.spare[n-1], e.spare[:n-1]
	} else {
		var err error
		if done, err = e.machine.Allow(); err != nil {
			return nil, b.reject(e, HalfOpen, 0)
		}
	}
	if e.announced == Open {
		e.announced = HalfOpen
		b.announce(Event{From: Open, To: HalfOpen})
	}
	t := &permit{period: p, done: done}
	t.watchdog = time.AfterFunc(b.cfg.ProbeTimeout, func() { b.settle(t, Failure, errProbeHung) })
	return t, nil
}

func (b *Breaker) reject(e *episode, state State, left time.Duration) error {
	b.rejected.Add(1)
	return &OpenError{Name: b.cfg.Name, State: state, After: left, Cause: e.cause}
}

// settle reports a probe's outcome, once: a late result of a probe that the
// watchdog gave up, or of an episode that is over, changes nothing. A neutral
// outcome passes the place on to the next probe.
func (b *Breaker) settle(t *permit, outcome Outcome, err error) {
	if outcome == Failure {
		if b.claim(t) {
			b.open(t.period, 0, err)
		}
		return
	}
	b.mu.Lock()
	defer b.deliver()
	defer b.mu.Unlock()
	if t.settled {
		return
	}
	t.settled = true
	t.watchdog.Stop()
	e := t.period.episode
	if outcome == Neutral {
		e.spare = append(e.spare, t.done)
		return
	}
	t.done(true)
	if e.reached == gobreaker.StateClosed && b.now.Load() == t.period {
		b.close(t.period)
	}
}

// claim settles a failed probe and reports whether the breaker has to open again.
func (b *Breaker) claim(t *permit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.settled {
		return false
	}
	t.settled = true
	t.watchdog.Stop()
	t.done(false)
	return t.period.episode.reached == gobreaker.StateOpen && b.now.Load() == t.period
}

const (
	errNoReturn  = staticError("resilience: call did not return")
	errProbeHung = staticError("resilience: probe did not return in time")
)
