package resilience

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Jitter spreads delays so that callers that failed together do not come back
// together. The kinds are those of Marc Brooker, "Exponential Backoff And Jitter",
// AWS Architecture Blog, 2015.
type Jitter uint8

const (
	// FullJitter draws from [0, d]: the widest spread, the default.
	FullJitter Jitter = iota
	// EqualJitter draws from [d/2, d]: never at once.
	EqualJitter
	// NoJitter waits exactly d.
	NoJitter
	// DecorrelatedJitter draws from [base, m*previous delay]: each delay depends on
	// the one drawn before instead of on the number of the attempt.
	DecorrelatedJitter
)

// String returns "full", "equal", "none" or "decorrelated".
func (j Jitter) String() string {
	switch j {
	case FullJitter:
		return "full"
	case EqualJitter:
		return "equal"
	case NoJitter:
		return "none"
	case DecorrelatedJitter:
		return "decorrelated"
	default:
		return "invalid"
	}
}

// Delays describes delays that grow: Base, m*Base, m*m*Base and so on up to Max,
// each spread by Jitter. [Delays.BackOff] goes into [RetryConfig]; the growth is
// backoff.ExponentialBackOff's.
type Delays struct {
	Base time.Duration // not positive means 100 ms
	Max  time.Duration // not positive means 10 s
	// Multiplier is m. Anything below 1 means 2, or 3 for DecorrelatedJitter.
	Multiplier float64
	Jitter     Jitter
	// Rand returns random numbers from [0, 1). It may be called concurrently, because
	// calls that are retried at the same time share it. Nil means math/rand/v2.
	Rand func() float64
}

// Exponential returns a factory of delays for [RetryConfig]: base, 2*base, 4*base
// and so on up to most, each spread by j; see [Delays] for more choice. A base or
// most that is not positive means no delay.
func Exponential(base, most time.Duration, j Jitter) func() backoff.BackOff {
	if base <= 0 || most <= 0 {
		return Fixed(0)
	}
	return Delays{Base: base, Max: most, Jitter: j}.BackOff
}

// Fixed returns a factory of delays for [RetryConfig] that are all d, none if d is
// negative.
func Fixed(d time.Duration) func() backoff.BackOff {
	return func() backoff.BackOff { return backoff.NewConstantBackOff(max(0, d)) }
}

// BackOff returns the delays of one call. It is safe for concurrent use, what it
// returns is not.
func (d Delays) BackOff() backoff.BackOff {
	if d.Base <= 0 {
		d.Base = 100 * time.Millisecond
	}
	if d.Max <= 0 {
		d.Max = 10 * time.Second
	}
	d.Base = min(d.Base, d.Max)
	if !(d.Multiplier >= 1) || math.IsInf(d.Multiplier, 1) {
		d.Multiplier = 2
		if d.Jitter == DecorrelatedJitter {
			d.Multiplier = 3
		}
	}
	if d.Rand == nil {
		d.Rand = rand.Float64
	}
	if d.Jitter == DecorrelatedJitter {
		return &decorrelated{Delays: d, last: d.Base}
	}
	return &jittered{Delays: d, grow: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(d.Base),
		backoff.WithMaxInterval(d.Max),
		backoff.WithMultiplier(d.Multiplier),
		backoff.WithRandomizationFactor(0),
		backoff.WithMaxElapsedTime(0),
	)}
}

// draw returns a delay from [low, high], whatever Rand returns.
func (d *Delays) draw(low, high time.Duration) time.Duration {
	spread := d.Rand() * (float64(high-low) + 1)
	if !(spread > 0) {
		return low
	}
	if spread >= float64(high-low) {
		return high
	}
	return low + time.Duration(spread)
}

type jittered struct {
	Delays

	grow *backoff.ExponentialBackOff
}

func (b *jittered) Reset() { b.grow.Reset() }

func (b *jittered) NextBackOff() time.Duration {
	d := b.grow.NextBackOff()
	switch b.Jitter {
	case NoJitter:
		return d
	case EqualJitter:
		return b.draw(d/2, d)
	default:
		return b.draw(0, d)
	}
}

type decorrelated struct {
	Delays

	last time.Duration
}

func (b *decorrelated) Reset() { b.last = b.Base }

func (b *decorrelated) NextBackOff() time.Duration {
	high := b.Max
	if wide := float64(b.last) * b.Multiplier; wide < float64(b.Max) {
		high = time.Duration(wide)
	}
	b.last = b.draw(b.Base, high)
	return b.last
}
