package resilience

import (
	"sync/atomic"
	"testing"
	"time"
)

// A goroutine may use a clock that it read long before. However old, it must not
// bring permits back.
func TestRegressionStaleClockMintsNoPermits(t *testing.T) {
	t.Parallel()
	var grants atomic.Uint64
	b := &bucket{
		meter:  newMeter(RateLimit{Rate: 1_000_000, Per: time.Second, Burst: 3}, time.Unix(0, 0)),
		grants: &grants,
	}
	const now = time.Hour
	granted := 0
	for i := range 1000 {
		at := now
		if i%2 == 1 {
			at -= 3 * time.Microsecond
		}
		if ok, _ := b.allow(at, 1); ok {
			granted++
		}
	}
	if granted != 3 {
		t.Errorf("%d granted at one instant, want the burst of 3", granted)
	}
}
