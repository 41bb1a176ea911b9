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

// sensor measures one closed period of a breaker. Each period has a sensor of its
// own, so results of calls begun earlier fall into a sensor nobody reads.
type sensor interface {
	// record adds a call that ended at now and returns the tally including it.
	record(now time.Duration, failed, slow bool) tally
	// read returns the tally at now.
	read(now time.Duration) tally
}

func (w Window) sensor() sensor {
	switch w.kind {
	case windowConsecutive:
		return new(consecutive)
	case windowCount:
		return &countWindow{ring: make([]sample, w.size)}
	default:
		return &timeWindow{width: w.covered / time.Duration(w.size), ring: make([]tally, w.size)}
	}
}

// consecutive writes only when something changes: a healthy callee costs a load.
type consecutive struct{ failures, slow atomic.Int64 }

func (s *consecutive) record(_ time.Duration, failed, slow bool) tally {
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

func (s *consecutive) read(time.Duration) tally {
	t := tally{failures: int(s.failures.Load()), slow: int(s.slow.Load())}
	t.calls = max(t.failures, t.slow)
	return t
}

type sample struct{ failed, slow bool }

type countWindow struct {
	mu    sync.Mutex
	ring  []sample
	next  int
	total tally
}

func (s *countWindow) record(_ time.Duration, failed, slow bool) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total.calls == len(s.ring) {
		s.total.add(-1, s.ring[s.next].failed, s.ring[s.next].slow)
	}
	s.ring[s.next] = sample{failed, slow}
	s.total.add(1, failed, slow)
	if s.next++; s.next == len(s.ring) {
		s.next = 0
	}
	return s.total
}

func (s *countWindow) read(time.Duration) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

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
	mu    sync.Mutex
	width time.Duration
	ring  []tally
	tick  int64 // number of the newest bucket
	total tally
}

func (s *timeWindow) record(now time.Duration, failed, slow bool) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now)
	s.ring[s.tick%int64(len(s.ring))].add(1, failed, slow)
	s.total.add(1, failed, slow)
	return s.total
}

func (s *timeWindow) read(now time.Duration) tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now)
	return s.total
}

// advance drops the buckets that now has left behind. A clock read before the lock
// was taken may be older than the newest bucket and counts as now.
func (s *timeWindow) advance(now time.Duration) {
	tick, size := int64(now/s.width), int64(len(s.ring))
	if tick >= s.tick+size {
		clear(s.ring)
		s.total, s.tick = tally{}, tick
	}
	for s.tick < tick {
		s.tick++
		old := &s.ring[s.tick%size]
		s.total.calls -= old.calls
		s.total.failures -= old.failures
		s.total.slow -= old.slow
		*old = tally{}
	}
}
