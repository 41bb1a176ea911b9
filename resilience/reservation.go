package resilience

import "time"

// Reservation is a promise of permits, made by [RateLimiter.Reserve]. Its methods
// are not for concurrent use.
type Reservation struct {
	limiter *RateLimiter
	bucket  *bucket
	n       int
	arrival int64
	due     time.Duration // on the limiter's clock
	err     error
}

// OK reports whether the permits will be had.
func (r *Reservation) OK() bool { return r.err == nil }

// Err says why a reservation is not OK: a *[RateLimitedError].
func (r *Reservation) Err() error { return r.err }

// Delay returns how long to wait from now on before the permits may be used, 0
// when they may be used at once or the reservation is not OK.
func (r *Reservation) Delay() time.Duration {
	if r.err != nil {
		return 0
	}
	return max(0, r.due-r.limiter.elapsed())
}

// Cancel gives the permits back as far as later reservations allow: what those
// were told was computed with these permits gone, so the permits of later
// reservations are subtracted. Permits whose time has come count as used, and
// those of a limit that [RateLimiter.Update] replaced are not given back. A second
// Cancel does nothing.
func (r *Reservation) Cancel() {
	if r.err != nil || r.n == 0 || r.limiter.elapsed() >= r.due {
		return
	}
	r.bucket.giveBack(r.n, r.arrival)
	r.n = 0
}
