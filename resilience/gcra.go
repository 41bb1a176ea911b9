package resilience

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// meter turns a limit into arithmetic on one number per bucket. It counts time in
// units, of which a permit is worth a fixed whole number, so that no rate drifts,
// whether it divides a second or not.
//
// For GCRA a permit is 2^k units, with k such that a unit is between half a
// nanosecond and one. For FixedWindow a unit is a permit, and the clock jumps by
// Rate at the start of each window. A bucket then is the same for both: the
// theoretical arrival time of the generic cell rate algorithm (ITU-T I.371, annex
// A), which each permit moves on by its worth and which may lie at most capacity
// ahead of the clock.
type meter struct {
	limit    RateLimit
	permit   int64  // units per permit
	capacity int64  // units that may be taken at once, at most 2^57
	ratio    uint64 // GCRA: units per nanosecond, in 2^-63
	phase    int64  // FixedWindow: nanoseconds since the border before instant 0
}

// most is the number of permits that may be taken at once.
func (l RateLimit) most() int {
	if l.Algorithm == FixedWindow {
		return l.Rate
	}
	return l.Burst
}

// newMeter wants a complete limit and the wall clock at instant 0.
func newMeter(limit RateLimit, epoch time.Time) *meter {
	m := &meter{limit: limit}
	if limit.Algorithm == FixedWindow {
		m.phase, m.permit, m.capacity = epoch.UnixNano()%int64(limit.Per), 1, int64(limit.Rate)
		return m
	}
	// Rate << k lies in [Per, 2*Per), hence the ratio in [1, 2).
	rate, per := uint64(limit.Rate), uint64(limit.Per)
	k := bits.Len64(per/rate) - 1
	if rate<<k < per {
		k++
	}
	m.permit, m.capacity = 1<<k, int64(limit.Burst)<<k
	scaled := rate << k
	var rest uint64
	if m.ratio, rest = bits.Div64(scaled>>1, scaled<<63, per); rest > 0 {
		m.ratio++ // so that a whole period is never a unit short
	}
	return m
}

// at is the clock in units at an instant. The ratio, rounded up, wins less than one
// unit in 2^63.
func (m *meter) at(now time.Duration) int64 {
	if m.ratio == 0 {
		return (m.phase + int64(now)) / int64(m.limit.Per) * int64(m.limit.Rate)
	}
	hi, lo := bits.Mul64(uint64(now), m.ratio)
	return int64(hi<<1 | lo>>63)
}

// when is the first instant at which the clock shows units or more.
func (m *meter) when(units int64) time.Duration {
	if units <= 0 {
		return 0
	}
	if m.ratio == 0 {
		window := (units + int64(m.limit.Rate) - 1) / int64(m.limit.Rate)
		if window > math.MaxInt64/int64(m.limit.Per) {
			return math.MaxInt64
		}
		return time.Duration(max(0, window*int64(m.limit.Per)-m.phase))
	}
	quotient, remainder := bits.Div64(uint64(units)>>1, uint64(units)<<63, m.ratio)
	if remainder > 0 {
		quotient++
	}
	return time.Duration(quotient)
}

// bucket is the state of one key: its arrival time, shifted to leave room for the
// lowest bits of the number of grants by allow. Counting there saves the healthy
// path a second atomic operation. Half-nanosecond units last 17 years of uptime.
//
// A bucket is lock-free. A clock read that is late by the time it is used can only
// make it stricter, since the arrival time never follows a clock backwards.
type bucket struct {
	*meter

	word   atomic.Int64
	grants *atomic.Uint64 // by allow, without those counted in word
}

const (
	countBits = 3
	countMask = 1<<countBits - 1
	// horizon is the last arrival time there is.
	horizon = math.MaxInt64>>countBits - 1
	// frozen is the word of a bucket that Update is about to replace.
	frozen = math.MaxInt64
)

// verdict is what a bucket says to one request.
type verdict struct {
	granted bool
	frozen  bool          // ask the bucket that replaces this one
	delay   time.Duration // until the permits may be used, or could be had
	arrival int64         // after this request
}

// allow takes n permits if they can be had at once. 0 <= n <= most.
func (b *bucket) allow(now time.Duration, n int) (granted, isFrozen bool) {
	clock, cost := b.at(now), int64(n)*b.permit
	for {
		old := b.word.Load()
		arrival := max(old>>countBits, clock) + cost
		if old == frozen || arrival-clock > b.capacity {
			return false, old == frozen
		}
		count := (old + 1) & countMask
		if b.word.CompareAndSwap(old, arrival<<countBits|count) {
			if count == 0 {
				b.grants.Add(countMask + 1)
			}
			return true, false
		}
	}
}

// reserve books n permits if they can be had within wait, and leaves counting to
// the caller. 0 <= n <= most.
func (b *bucket) reserve(now time.Duration, n int, wait time.Duration) verdict {
	clock, cost := b.at(now), int64(n)*b.permit
	for {
		old := b.word.Load()
		if old == frozen {
			return verdict{frozen: true}
		}
		start := max(old>>countBits, clock)
		if start > horizon-cost {
			return verdict{delay: math.MaxInt64, arrival: start}
		}
		arrival := start + cost
		var delay time.Duration
		if arrival-clock > b.capacity {
			delay = b.when(arrival-b.capacity) - now
		}
		switch {
		case delay > wait:
			return verdict{delay: delay, arrival: start}
		case b.word.CompareAndSwap(old, arrival<<countBits|old&countMask):
			return verdict{granted: true, delay: delay, arrival: arrival}
		}
	}
}

// giveBack returns what n permits that led to arrival are still worth. What later
// reservations were told stands on those permits, so theirs are subtracted:
// otherwise a newcomer could be sent to the same instant as the last of them.
func (b *bucket) giveBack(n int, arrival int64) {
	for {
		old := b.word.Load()
		// An earlier Cancel may have moved the word below arrival; that is no gain.
		worth := int64(n)*b.permit - max(0, old>>countBits-arrival)
		if old == frozen || worth <= 0 || b.word.CompareAndSwap(old, old-worth<<countBits) {
			return
		}
	}
}

// decision tells v the way a client is told.
func (b *bucket) decision(now time.Duration, v verdict) RateDecision {
	d := RateDecision{Allowed: v.granted, Limit: b.limit.most(), Remaining: b.limit.most()}
	if !v.granted {
		d.RetryAfter = v.delay
	}
	if debt := v.arrival - b.at(now); debt > 0 {
		d.Remaining = int(max(0, b.capacity-debt) / b.permit)
		d.ResetAfter = b.when(v.arrival) - now
	}
	return d
}

// full reports whether forgetting the bucket loses nothing.
func (b *bucket) full(now time.Duration) bool { return b.word.Load()>>countBits <= b.at(now) }

// moveTo freezes b and returns a bucket of m with the permits b had left.
func (b *bucket) moveTo(m *meter, now time.Duration) *bucket {
	word := b.word.Swap(frozen)
	left := b.capacity - max(0, word>>countBits-b.at(now))
	moved := &bucket{meter: m, grants: b.grants}
	clock := m.at(now)
	// What was left, in units of m. The quotient of a promise that reaches beyond the
	// horizon stays there.
	magnitude := uint64(max(left, -left))
	scaled := int64(horizon)
	if hi, lo := bits.Mul64(magnitude, uint64(m.permit)); hi < uint64(b.permit) {
		quotient, _ := bits.Div64(hi, lo, uint64(b.permit))
		scaled = int64(min(quotient, horizon))
	}
	if left < 0 {
		scaled = -scaled
	}
	arrival := min(horizon, clock+m.capacity-min(scaled, m.capacity))
	moved.word.Store(arrival<<countBits | word&countMask)
	return moved
}
