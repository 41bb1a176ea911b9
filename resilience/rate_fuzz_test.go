package resilience_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/armature-go/armature/resilience"
)

// FuzzGCRAAgainstTimeRate runs the same requests at the same instants through a
// GCRA limiter and one of golang.org/x/time/rate. The intended differences, all of
// them:
//
//  1. Rounding. The peer counts tokens in float64 and cuts delays to nanoseconds, so
//     that it grants up to 1 ns early. A request within 2 ns and 1e-4 of a token of
//     the border may be decided differently, and a delay may differ by 2 ns plus a
//     millionth of it. (TestRateLimiterIsExactOverAnHour,
//     TestRetryAfterIsExact)
//  2. Clocks that go back: the peer can mint tokens, a bucket here cannot.
//     (TestRateLimiterNeverExceedsBurstAtOneInstant; no input here has one)
//  3. Nothing asked for: n = 0 is a look and n < 0 is refused, where the peer grants
//     both. (TestTakeTellsWhatIsLeft; n >= 1 here)
//  4. Cancelled reservations out of order: the peer goes by the last reservation's
//     time, not by the permits behind it.
//     (TestReservationsAreGivenBackAsFarAsLaterOnesAllow; none is cancelled here)
//  5. An infinite limit, or none at all, is a configuration error here.
//     (TestRateConfigErrors; both are finite here)
func FuzzGCRAAgainstTimeRate(f *testing.F) {
	f.Add(uint32(100), uint8(10), []byte("0a1b2c9z"))
	f.Add(uint32(3), uint8(1), []byte{1, 0, 1, 255, 129, 3, 1, 77})
	f.Add(uint32(999_983), uint8(200), []byte{200, 0, 100, 50, 228, 9, 255, 255})
	f.Fuzz(func(t *testing.T, perSecond uint32, burst uint8, script []byte) {
		perSecond, burst = perSecond%1_000_000+1, max(1, burst)
		synctest.Test(t, func(t *testing.T) {
			ours := must(resilience.NewRateLimiter(resilience.RateConfig{Rate: int(perSecond), Burst: int(burst)}))
			peer := rate.NewLimiter(rate.Limit(perSecond), int(burst))
			interval := time.Second / time.Duration(perSecond)
			for step := 0; len(script) >= 2; step++ {
				request, pause := script[0], script[1]
				script = script[2:]
				time.Sleep(interval * time.Duration(pause) / 16)
				n := int(request&127)%(int(burst)+2) + 1
				border := 1e-4 + 2e-9*float64(perSecond)
				if math.Abs(peer.Tokens()-float64(n)) < border {
					return // difference 1; from here on they may go apart
				}
				if request < 128 {
					if got, want := ours.AllowN(context.Background(), n), peer.AllowN(time.Now(), n); got != want {
						t.Fatalf("step %d: AllowN(%d) = %v, want %v", step, n, got, want)
					}
					continue
				}
				got, want := ours.Reserve(n), peer.ReserveN(time.Now(), n)
				if got.OK() != want.OK() {
					t.Fatalf("step %d: Reserve(%d) OK = %v, want %v", step, n, got.OK(), want.OK())
				}
				if !got.OK() {
					continue
				}
				if d := (got.Delay() - want.Delay()).Abs(); d > 2+want.Delay()/1_000_000 {
					t.Fatalf("step %d: Reserve(%d) delay %v, want %v", step, n, got.Delay(), want.Delay())
				}
			}
		})
	})
}
