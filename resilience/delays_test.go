package resilience_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/armature-go/armature/resilience"
)

func TestExponential(t *testing.T) {
	t.Parallel()
	exact := []time.Duration{100, 200, 400, 500, 500}
	for _, tt := range []struct {
		name   string
		jitter resilience.Jitter
		low    func(time.Duration) time.Duration
	}{
		{"none", resilience.NoJitter, func(d time.Duration) time.Duration { return d }},
		{"equal", resilience.EqualJitter, func(d time.Duration) time.Duration { return d / 2 }},
		{"full", resilience.FullJitter, func(time.Duration) time.Duration { return 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			spread := map[time.Duration]bool{}
			for range 200 {
				delays := resilience.Exponential(100, 500, tt.jitter)()
				for i, d := range exact {
					got := delays.NextBackOff()
					if got < tt.low(d) || got > d {
						t.Fatalf("delay %d = %d, want within %d and %d", i, got, tt.low(d), d)
					}
					spread[got] = true
				}
				delays.Reset()
				if got := delays.NextBackOff(); got > 100 {
					t.Fatalf("after Reset: %d", got)
				}
			}
			if wide := len(spread) > 10; wide != (tt.jitter != resilience.NoJitter) {
				t.Errorf("%d different delays", len(spread))
			}
		})
	}
}

func take(n int, delays backoff.BackOff) []time.Duration {
	var d []time.Duration
	for range n {
		d = append(d, delays.NextBackOff())
	}
	return d
}

func TestDelaysFollowTheirRand(t *testing.T) {
	t.Parallel()
	type delays = resilience.Delays
	one := func() float64 { return 1 }
	low, high := func() float64 { return 0 }, func() float64 { return math.Nextafter(1, 0) }
	for _, tt := range []struct {
		name   string
		delays delays
		want   []time.Duration
	}{
		{"full, low", delays{Base: 100, Max: 500, Rand: low}, []time.Duration{0, 0, 0, 0}},
		{"full, high", delays{Base: 100, Max: 500, Rand: high}, []time.Duration{100, 200, 400, 500}},
		{"equal, low", delays{Base: 100, Max: 500, Jitter: resilience.EqualJitter, Rand: low}, []time.Duration{50, 100, 200, 250}},
		{"equal, high", delays{Base: 100, Max: 500, Jitter: resilience.EqualJitter, Rand: high}, []time.Duration{100, 200, 400, 500}},
		{"none", delays{Base: 100, Max: 500, Jitter: resilience.NoJitter, Rand: high}, []time.Duration{100, 200, 400, 500}},
		{"none, times three", delays{Base: 100, Max: 1000, Jitter: resilience.NoJitter, Multiplier: 3}, []time.Duration{100, 300, 900, 1000}},
		{"decorrelated, low", delays{Base: 100, Max: 500, Jitter: resilience.DecorrelatedJitter, Rand: low}, []time.Duration{100, 100, 100, 100}},
		{"decorrelated, high", delays{Base: 100, Max: 2000, Jitter: resilience.DecorrelatedJitter, Rand: high}, []time.Duration{300, 900, 2000, 2000}},
		{"defaults", delays{Jitter: resilience.NoJitter}, []time.Duration{1e8, 2e8, 4e8, 8e8}},
		{"base above max", delays{Base: 700, Max: 500, Jitter: resilience.NoJitter}, []time.Duration{500, 500, 500, 500}},
		{"nonsense", delays{Base: 100, Max: 500, Multiplier: math.NaN(), Rand: math.NaN}, []time.Duration{0, 0, 0, 0}},
		{"rand out of range", delays{Base: 100, Max: 500, Rand: one}, []time.Duration{100, 200, 400, 500}},
		{"as long as can be", delays{Base: math.MaxInt64, Max: math.MaxInt64, Rand: one}, []time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}},
		{"decorrelated, as long as can be", delays{Base: math.MaxInt64 / 2, Max: math.MaxInt64, Jitter: resilience.DecorrelatedJitter, Rand: one}, []time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}},
	} {
		b := tt.delays.BackOff()
		for range 2 {
			if got := take(4, b); !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
			b.Reset()
		}
	}
}

func TestFixed(t *testing.T) {
	t.Parallel()
	if got := take(2, resilience.Fixed(time.Second)()); !slices.Equal(got, []time.Duration{time.Second, time.Second}) {
		t.Error(got)
	}
	if got := take(1, resilience.Fixed(-1)()); got[0] != 0 {
		t.Errorf("negative: %v, want none rather than backoff.Stop", got)
	}
}
