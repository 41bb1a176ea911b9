package resilience

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// BreakerStats is a moment's view of a [Breaker]. The totals never fall. Each is
// exact, but they are read one after another while calls go on.
type BreakerStats struct {
	State State // what a call would meet
	Mode  Mode
	// Calls, Failures and Slow are those in the window of a closed breaker and 0
	// otherwise. For Consecutive, Failures and Slow are those in a row.
	Calls, Failures, Slow int
	Episode               int           // openings since the breaker was last closed
	OpenFor               time.Duration // time left in state Open, 0 if unknown

	Opened uint64 // openings since the breaker was made
	// Succeeded, Failed and Neutral are the calls that ended, by outcome, in every
	// state and mode; SlowTotal those of the first two that were slow.
	Succeeded, Failed, Neutral, SlowTotal uint64
	Rejected                              uint64 // calls turned away
	ShadowRejected                        uint64 // calls that MetricsOnly let run
}

// State returns the state a call would meet now: half-open as soon as the open time
// is over, and what is forced in a forced mode. Looking does not change it.
func (b *Breaker) State() State {
	v := b.now.Load()
	switch e := v.period.episode; {
	case v.mode == ForcedOpen:
		return Open
	case v.mode == ForcedClosed || e == nil:
		return Closed
	case e.left() > 0:
		return Open
	default:
		return HalfOpen
	}
}

// Stats returns a view of the moment. It takes the window's lock for an instant and
// changes nothing.
func (b *Breaker) Stats() BreakerStats {
	v := b.now.Load()
	var held tally
	switch {
	case v.period.episode != nil:
	case v.cfg.Window.kind == windowConsecutive:
		held = v.period.streak.read()
	default:
		held = b.sensor.read(v.period, b.elapsed())
	}
	return b.stats(v, held)
}

// stats is the view v with what the window held.
func (b *Breaker) stats(v *view, held tally) BreakerStats {
	s := BreakerStats{Mode: v.mode, Calls: held.calls, Failures: held.failures, Slow: held.slow}
	if e := v.period.episode; e != nil {
		s.Episode = e.number
		s.State, s.OpenFor = HalfOpen, e.left()
		if s.OpenFor > 0 {
			s.State = Open
		}
	}
	switch v.mode {
	case ForcedOpen:
		s.State, s.OpenFor = Open, 0
	case ForcedClosed:
		s.State, s.OpenFor = Closed, 0
	}
	sum := b.totals.sum()
	sum.merge(b.sensor.sum())
	s.Succeeded, s.Failed, s.Neutral = sum[totalSucceeded], sum[totalFailed], sum[totalNeutral]
	s.SlowTotal, s.Opened = sum[totalSlow], sum[totalOpened]
	s.Rejected, s.ShadowRejected = sum[totalRejected], sum[totalShadow]
	return s
}

// What is counted over a breaker's life. The first three are the outcomes.
const (
	totalSucceeded = iota
	totalFailed
	totalNeutral
	totalSlow
	totalOpened
	totalRejected
	totalShadow
	totalCount
)

type counts [totalCount]uint64

func (c *counts) merge(other counts) {
	for i, n := range other {
		c[i] += n
	}
}

// totals are counters for paths without a lock, spread so that cores seldom write
// to the same cache line.
type totals [8]struct {
	n [totalCount]atomic.Uint64
	_ [64 - 8*totalCount]byte
}

func (t *totals) add(what int) { t[rand.Uint32()%uint32(len(t))].n[what].Add(1) }

func (t *totals) count(outcome Outcome, slow bool) {
	t.add(int(outcome))
	if slow {
		t.add(totalSlow)
	}
}

func (t *totals) sum() (c counts) {
	for i := range t {
		for what := range c {
			c[what] += t[i].n[what].Load()
		}
	}
	return c
}
