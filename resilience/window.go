package resilience

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Window is what a closed [Breaker] looks back on: [Count], [Time] or
// [Consecutive]. The zero Window is Time(10*time.Second, 10).
type Window struct {
	kind    windowKind
	size    int // calls or buckets
	covered time.Duration
}

type windowKind uint8

const (
	windowDefault windowKind = iota
	windowConsecutive
	windowCount
	windowTime
)

// Consecutive counts failures in a row; any success starts anew. The cheapest
// window: no lock, no clock.
func Consecutive() Window { return Window{kind: windowConsecutive} }

// Count looks at the last n calls, whenever they were.
func Count(n int) Window { return Window{kind: windowCount, size: n} }

// Time looks at the calls of the last d, which slides on in steps of d/buckets.
func Time(d time.Duration, buckets int) Window {
	return Window{kind: windowTime, size: buckets, covered: d}
}

// String returns the expression that makes the window.
func (w Window) String() string {
	switch w.kind {
	case windowConsecutive:
		return "Consecutive()"
	case windowCount:
		return fmt.Sprintf("Count(%d)", w.size)
	case windowTime:
		return fmt.Sprintf("Time(%v, %d)", w.covered, w.size)
	default:
		return Time(10*time.Second, 10).String()
	}
}

// tally is what a window holds at one moment.
type tally struct{ calls, failures, slow int }

// window holds the latest results. It needs a lock around it.
type window interface {
	// add takes a call that ended at now and returns the tally including it.
	add(now time.Duration, failed, slow bool) tally
	// read returns the tally at now.
	read(now time.Duration) tally
}

func (w Window) make() window {
	switch w.kind {
	case windowConsecutive:
		return nil
	case windowCount:
		return &countWindow{ring: make([]sample, w.size)}
	default:
		return &timeWindow{width: w.covered / time.Duration(w.size), ring: make([]tally, w.size)}
	}
}

// sensor measures the closed period that owns it. It lives as long as its breaker,
// so that under its lock, which a result needs anyway, the totals come for free.
type sensor struct {
	mu     sync.Mutex
	owner  *period
	window window // nil for Consecutive, whose results the period counts itself
	counts counts
}

// install gives p, which is closed, an empty window.
func (s *sensor) install(p *period, w Window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner, s.window = p, w.make()
}

// record counts a call of p. It returns the tally including it, or false if p does
// not own the window any more.
func (s *sensor) record(p *period, now time.Duration, outcome Outcome, slow bool) (tally, bool) {
	s.mu.Lock()
	s.counts[outcome]++
	if slow {
		s.counts[totalSlow]++
	}
	if s.owner != p || s.window == nil {
		s.mu.Unlock()
		return tally{}, false
	}
	t := s.window.add(now, outcome == Failure, slow)
	s.mu.Unlock()
	return t, true
}

func (s *sensor) read(p *period, now time.Duration) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != p || s.window == nil {
		return tally{}
	}
	return s.window.read(now)
}

func (s *sensor) sum() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// consecutive writes only when something changes: a healthy callee costs a load.
type consecutive struct{ failures, slow atomic.Int64 }

func (s *consecutive) record(failed, slow bool) tally {
	t := tally{failures: streak(&s.failures, failed), slow: streak(&s.slow, slow)}
	t.calls = max(t.failures, t.slow)
	return t
}

func streak(n *atomic.Int64, hit bool) int {
	if hit {
		return int(n.Add(1))
	}
	if n.Load() != 0 {
		n.Store(0)
	}
	return 0
}

func (s *consecutive) reset() {
	s.failures.Store(0)
	s.slow.Store(0)
}

func (s *consecutive) read() tally {
	t := tally{failures: int(s.failures.Load()), slow: int(s.slow.Load())}
	t.calls = max(t.failures, t.slow)
	return t
}

type sample struct{ failed, slow bool }

type countWindow struct {
	ring  []sample
	next  int
	total tally
}

func (w *countWindow) add(_ time.Duration, failed, slow bool) tally {
	place := &w.ring[w.next]
	if w.total.calls == len(w.ring) {
		w.total.add(-1, place.failed, place.slow)
	}
	*place = sample{failed, slow}
	w.total.add(1, failed, slow)
	if w.next++; w.next == len(w.ring) {
		w.next = 0
	}
	return w.total
}

func (w *countWindow) read(time.Duration) tally { return w.total }

func (t *tally) add(n int, failed, slow bool) {
	t.calls += n
	if failed {
		t.failures += n
	}
	if slow {
		t.slow += n
	}
}

type timeWindow struct {
	width time.Duration
	ring  []tally
	tick  int64 // number of the newest bucket
	total tally
}

func (w *timeWindow) add(now time.Duration, failed, slow bool) tally {
	w.advance(now)
	w.ring[w.tick%int64(len(w.ring))].add(1, failed, slow)
	w.total.add(1, failed, slow)
	return w.total
}

func (w *timeWindow) read(now time.Duration) tally {
	w.advance(now)
	return w.total
}

// advance drops the buckets that now has left behind. A clock read before the lock
// was taken may be older than the newest bucket and counts as now.
func (w *timeWindow) advance(now time.Duration) {
	tick, size := int64(now/w.width), int64(len(w.ring))
	if tick >= w.tick+size {
		clear(w.ring)
		w.total, w.tick = tally{}, tick
	}
	for w.tick < tick {
		w.tick++
		old := &w.ring[w.tick%size]
		w.total.calls -= old.calls
		w.total.failures -= old.failures
		w.total.slow -= old.slow
		*old = tally{}
	}
}
