package resilience

import (
	"context"
	"time"
)

// RateAlgorithm is how a rate is counted.
type RateAlgorithm uint8

const (
	// GCRA, the generic cell rate algorithm, is a token bucket that stores one
	// instant: permits come back one by one, and up to Burst may be taken at once.
	GCRA RateAlgorithm = iota
	// FixedWindow grants Rate permits in each period of Per, counted from the Unix
	// epoch, so that all processes agree on where a period begins. Up to twice the
	// rate may pass around a border between two.
	FixedWindow
)

// String returns "gcra" or "fixed-window".
func (a RateAlgorithm) String() string {
	switch a {
	case GCRA:
		return "gcra"
	case FixedWindow:
		return "fixed-window"
	default:
		return "invalid"
	}
}

// RateLimit is a rate with its defaults filled in: Rate permits per Per, Burst at
// once (unused by FixedWindow).
type RateLimit struct {
	Rate      int
	Per       time.Duration
	Burst     int
	Algorithm RateAlgorithm
}

// RateDecision answers whether permits were granted, and what a client may be told.
type RateDecision struct {
	Allowed    bool
	Limit      int           // permits that can be had at once at most: Burst, or Rate of a FixedWindow
	Remaining  int           // permits left to take at once
	RetryAfter time.Duration // until the permits asked for can be had; 0 when Allowed
	ResetAfter time.Duration // until Remaining is Limit again
}

// RateStore keeps rates where several processes see them, in Redis for instance.
// Implementations are safe for concurrent use.
type RateStore interface {
	// Take takes n permits of key, all or none. An error means that the store could
	// not decide.
	Take(ctx context.Context, key string, limit RateLimit, n int) (RateDecision, error)
}
