package peers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/armature-go/armature/resilience"
)

// FuzzRateAgainstTimeRate plays one script to x/time/rate and to our GCRA limiter on
// one virtual clock and compares every answer: whether permits are granted, how long
// a reservation has to wait, how long those that wait did wait, and who is turned
// away because of a deadline.
//
// Both are token buckets, and where x/time/rate reckons without rounding the two are
// the same to the nanosecond. It does when the rate and all times are powers of two
// and their multiples: floating point holds those exactly. The scripts use nothing
// else, so that no tolerance is needed.
//
// Where they differ on purpose, each with a test below. The scripts stay clear of
// these and nothing else may differ.
//
//  1. Ours reads the clock itself and never goes back; there a stale timestamp mints
//     permits. (Defect 17, and its guard.)
//  2. Ours rounds a delay up to the first nanosecond at which the permits are there;
//     there it is cut off, and the permits may be short by a fraction.
//  3. A negative number of permits is refused; there it mints them.
//  4. Permits whose time has come count as used; there they can be given back while
//     the clock shows the very instant at which they came due.
//  5. A reservation is given back once; there as often as Cancel is called.
//  6. After one reservation was cancelled that others followed, the two differ in what
//     a second one gives back. (The scripts then forget all earlier reservations.)
//  7. A reservation that is not OK has no delay; there it is the longest there is.
//  8. A refusal for the deadline's sake is context.DeadlineExceeded; there it is
//     untyped. (Defect 16, and its guard.)
func FuzzRateAgainstTimeRate(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(randomScript(seed, 300))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > maxScript {
			return
		}
		synctest.Test(t, func(t *testing.T) { playLimiters(t, script) })
	})
}

// tick is 1/512 s, a whole number of nanoseconds and a power of two of a second.
const tick = time.Second / 512

type limiters struct {
	ours   *resilience.RateLimiter
	theirs *rate.Limiter
	booked []*booking // reservations that may be cancelled, oldest first

	waiters sync.WaitGroup
	waits   []*wait
}

type booking struct {
	ours   *resilience.Reservation
	theirs *rate.Reservation
}

// wait is one call of WaitN of both sides.
type wait struct {
	what         string
	ours, theirs waited
}

type waited struct {
	took time.Duration
	err  error
}

func playLimiters(t *testing.T, s script) {
	perSecond, burst := 1<<s.next(10), 1+s.next(9)
	l := &limiters{
		ours:   must(resilience.NewRateLimiter(resilience.RateConfig{Rate: perSecond, Burst: burst})),
		theirs: rate.NewLimiter(rate.Limit(perSecond), burst),
	}
	defer l.waiters.Wait()
	for step := 0; len(s) > 0; step++ {
		if did, same := l.step(&s, burst); !same {
			t.Fatalf("%d per second, burst %d: step %d: %s", perSecond, burst, step, did)
		}
	}
	l.waiters.Wait()
	for i, w := range l.waits {
		if w.ours.took != w.theirs.took || (w.ours.err == nil) != (w.theirs.err == nil) {
			t.Fatalf("%d per second, burst %d: wait %d: %s: ours %v, x/time %v", perSecond, burst, i, w.what, w.ours, w.theirs)
		}
	}
}

// step does one thing to both, says what, and reports whether they agree.
func (l *limiters) step(s *script, burst int) (did string, same bool) {
	n := s.next(burst + 2) // one more than there can be at once
	switch s.next(8) {
	case 0, 1:
		ours, theirs := l.ours.AllowN(context.Background(), n), l.theirs.AllowN(time.Now(), n)
		return fmt.Sprintf("allow %d: ours %v, x/time %v", n, ours, theirs), ours == theirs
	case 2, 3:
		return l.reserve(n)
	case 4:
		return l.cancel(s)
	case 5:
		l.wait(n, time.Duration(s.next(64))*tick+tick/2)
		return "", true
	default:
		time.Sleep(time.Duration(s.next(40)) * tick)
		return "", true
	}
}

func (l *limiters) reserve(n int) (string, bool) {
	b := &booking{ours: l.ours.Reserve(n), theirs: l.theirs.ReserveN(time.Now(), n)}
	if !b.ours.OK() || !b.theirs.OK() {
		return fmt.Sprintf("reserve %d: ours %v, x/time %v", n, b.ours.OK(), b.theirs.OK()), b.ours.OK() == b.theirs.OK()
	}
	if n > 0 {
		l.booked = append(l.booked, b)
	}
	ours, theirs := b.ours.Delay(), b.theirs.Delay()
	return fmt.Sprintf("reserve %d: ours waits %v, x/time %v", n, ours, theirs), ours == theirs
}

func (l *limiters) cancel(s *script) (string, bool) {
	for len(l.booked) > 0 && l.booked[0].ours.Delay() <= 0 { // difference 4
		l.booked = l.booked[1:]
	}
	if len(l.booked) == 0 {
		return "", true
	}
	i := s.next(len(l.booked))
	b := l.booked[i]
	ours, theirs := b.ours.Delay(), b.theirs.Delay()
	b.ours.Cancel()
	b.theirs.Cancel()
	if i == len(l.booked)-1 {
		l.booked = l.booked[:i]
	} else {
		l.booked = nil // difference 6
	}
	return fmt.Sprintf("cancel a reservation: ours waits %v, x/time %v", ours, theirs), ours == theirs
}

// wait lets both wait side by side while the script goes on. The deadline lies
// between two ticks, so that no permit comes due at the same instant.
func (l *limiters) wait(n int, limit time.Duration) {
	w := &wait{what: fmt.Sprintf("for %d within %v", n, limit)}
	l.waits = append(l.waits, w)
	l.booked = nil // what waits is booked behind them
	start := time.Now()
	run := func(result *waited, wait func(context.Context, int) error) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		result.err = wait(ctx, n)
		result.took = time.Since(start)
	}
	l.waiters.Go(func() { run(&w.ours, l.ours.WaitN) })
	l.waiters.Go(func() { run(&w.theirs, l.theirs.WaitN) })
	synctest.Wait() // until both are booked or turned away
}

// The differences.

func bothLimiters(perSecond, burst int) (*resilience.RateLimiter, *rate.Limiter) {
	return must(resilience.NewRateLimiter(resilience.RateConfig{Rate: perSecond, Burst: burst})),
		rate.NewLimiter(rate.Limit(perSecond), burst)
}

func TestRateDifference2Rounding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(3, 1)
		ours.Allow(t.Context())
		theirs.Allow()
		ourDelay, theirDelay := ours.Reserve(1).Delay(), theirs.Reserve().Delay()
		if ourDelay != 333_333_334 || theirDelay != 333_333_333 {
			t.Errorf("a third of a second is %v here and %v there", ourDelay, theirDelay)
		}
	})
}

func TestRateDifference3NegativeNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 2)
		ours.AllowN(t.Context(), 2)
		theirs.AllowN(time.Now(), 2)
		if ours.AllowN(t.Context(), -1) || ours.Reserve(-1).OK() || ours.Allow(t.Context()) {
			t.Error("ours takes a negative number")
		}
		if !theirs.AllowN(time.Now(), -1) || !theirs.Allow() {
			t.Error("x/time/rate no longer mints permits for a negative number: update the list")
		}
	})
}

func TestRateDifference4CancelWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 1)
		ours.Reserve(1).Cancel()
		theirs.Reserve().Cancel()
		if ours.Allow(t.Context()) || !theirs.Allow() {
			t.Error("want a permit that is due used here and given back there")
		}
	})
}

func TestRateDifference5CancelTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 2)
		ours.AllowN(t.Context(), 2)
		theirs.AllowN(time.Now(), 2)
		ours.Reserve(2)
		theirs.ReserveN(time.Now(), 2)
		ourLast, theirLast := ours.Reserve(1), theirs.Reserve()
		for range 2 {
			ourLast.Cancel()
			theirLast.Cancel()
		}
		if o, x := ours.Reserve(1).Delay(), theirs.Reserve().Delay(); o != 3*time.Second || x != time.Second {
			t.Errorf("the next waits %v here and %v there, want 3s and 1s", o, x)
		}
	})
}

func TestRateDifference6SecondCancelOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 3)
		ours.AllowN(t.Context(), 3)
		theirs.AllowN(time.Now(), 3)
		var ourBooked []*resilience.Reservation
		var theirBooked []*rate.Reservation
		for _, n := range []int{3, 3, 1} {
			ourBooked = append(ourBooked, ours.Reserve(n))
			theirBooked = append(theirBooked, theirs.ReserveN(time.Now(), n))
		}
		for _, i := range []int{1, 0} {
			ourBooked[i].Cancel()
			theirBooked[i].Cancel()
		}
		// Two permits of the second reservation come back in both, those after the first
		// are two fewer then, and only ours knows.
		if o, x := ours.Reserve(1).Delay(), theirs.Reserve().Delay(); o != 5*time.Second || x != 6*time.Second {
			t.Errorf("the next waits %v here and %v there, want 5s and 6s", o, x)
		}
	})
}

// What several cancelled reservations give back is never more than they booked.
func TestCancelMintsNoPermits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 3)
		ours.AllowN(t.Context(), 3)
		theirs.AllowN(time.Now(), 3)
		ours.Reserve(1)
		theirs.Reserve()
		ourMiddle, theirMiddle := ours.Reserve(3), theirs.ReserveN(time.Now(), 3)
		ourLast, theirLast := ours.Reserve(1), theirs.Reserve()
		ourMiddle.Cancel() // gives back 2 and leaves 1 to the last
		theirMiddle.Cancel()
		ourLast.Cancel()
		theirLast.Cancel()
		if o, x := ours.Reserve(1).Delay(), theirs.Reserve().Delay(); o != 3*time.Second || x != o {
			t.Errorf("the next waits %v here and %v there, want 3s", o, x)
		}
	})
}

func TestRateDifference7DelayOfNothing(t *testing.T) {
	t.Parallel()
	ours, theirs := bothLimiters(1, 1)
	o, x := ours.Reserve(2), theirs.ReserveN(time.Now(), 2)
	if o.OK() || x.OK() || o.Delay() != 0 || x.Delay() != rate.InfDuration {
		t.Errorf("ours waits %v, x/time %v; want 0 and for ever", o.Delay(), x.Delay())
	}
}

func TestRateDifference8TypedRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bothLimiters(1, 1)
		ours.Allow(t.Context())
		theirs.Allow()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := ours.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, resilience.ErrRateLimited) {
			t.Errorf("ours: %v", err)
		}
		if err := theirs.Wait(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("x/time: %v", err)
		}
	})
}
