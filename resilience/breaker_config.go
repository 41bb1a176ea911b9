package resilience

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Bounds that keep a slip of the pen from asking for all memory.
const (
	maxWindowCalls   = 1_000_000
	maxWindowBuckets = 100_000
	maxProbes        = 10_000
)

// BreakerConfig describes a [Breaker]. The zero value opens when half of at least
// 20 calls within 10 s failed, stays open for 5 s at first, and closes after three
// successful probes. Any rule that holds opens the breaker; the rules are looked at
// after each result that counts.
type BreakerConfig struct {
	// Name appears in errors, events and Describe.
	Name string

	// Window is what the rules below look at. The zero value is
	// Time(10*time.Second, 10).
	Window Window

	// MinCalls is the number of calls in the window below which rates are not
	// looked at. 0 means 20, or the whole window if Count is smaller. MinCalls and
	// the rates do not go with Consecutive.
	MinCalls int

	// FailureRate opens the breaker when that share of the calls in the window
	// failed, above 0 up to 1. 0 means 0.5, or no such rule if Failures or
	// ReadyToTrip is set.
	FailureRate float64

	// Failures opens the breaker at that number of failures in the window, in a row
	// for Consecutive. 0 means no such rule, but 5 for Consecutive without
	// ReadyToTrip.
	Failures int

	// SlowCall is the time from which on a call counts as slow, be it a success or a
	// failure. 0 means never. SlowRate opens the breaker when that share of the calls
	// was slow; 0 means 0.5. For Consecutive, Failures slow calls in a row open it
	// instead. A probe that is slow counts as failed. SlowCall costs a second look at
	// the clock per call.
	SlowCall time.Duration
	SlowRate float64

	// ReadyToTrip is a rule of one's own beside the others, in force in any window. It
	// is asked after each result that counts and that opened nothing by another rule,
	// outside locks, possibly concurrently, with what Stats would say, the result
	// included. If it panics, the result has been counted and the panic goes on. The
	// stats make a call several times dearer.
	ReadyToTrip func(BreakerStats) bool

	// OpenFor returns how long the breaker stays open. episode counts from 1 and
	// grows while probes fail; cause is the error that opened the breaker, nil when
	// slow calls or Trip did. It is called outside locks; if it is nil, panics or
	// returns nothing positive, the default applies:
	// OpenBackoff(5*time.Second, time.Minute).
	OpenFor func(episode int, cause error) time.Duration

	// Probes is the number of calls admitted half-open, at most 10000. 0 means 3.
	Probes int

	// ProbeSuccess is the share of Probes that must succeed to close the breaker,
	// above 0 up to 1. The breaker closes or opens as soon as the probes to come
	// cannot change the verdict. 0 means all, so that one failure opens it again.
	ProbeSuccess float64

	// ProbeTimeout is the time after which a probe without a result counts as
	// failed, so that a hanging call cannot keep the breaker half-open. 0 means 30 s.
	// It does not end the call.
	ProbeTimeout time.Duration

	// Mode is what the breaker begins with; see SetMode.
	Mode Mode

	// Classify judges errors. Nil means the function Classify. If it panics, the
	// call counts as a failure and the panic goes on.
	Classify Classifier

	// Observer, if not nil, is told about every change of state, rejection and slow
	// call, one at a time and in order. It runs on the goroutine of the call that
	// caused the event, or on another one that is just delivering. While 1024 events
	// wait for a slow observer, it misses further rejections and slow calls, though no
	// change of state. Its panic goes on to the caller there, once everything else has
	// been settled and told; on the goroutine of the probe timeout, where nobody could
	// catch it, it ends.
	Observer Observer
}

// complete fills in the defaults, or says what cannot be.
func (c *BreakerConfig) complete() error {
	if c.Window.kind == windowDefault {
		c.Window = Time(10*time.Second, 10)
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.Window.kind == windowConsecutive {
		if c.Failures == 0 && c.ReadyToTrip == nil {
			c.Failures = 5
		}
	} else {
		if c.MinCalls == 0 {
			c.MinCalls = 20
			if c.Window.kind == windowCount {
				c.MinCalls = min(20, c.Window.size)
			}
		}
		if c.FailureRate == 0 && c.Failures == 0 && c.ReadyToTrip == nil {
			c.FailureRate = 0.5
		}
		if c.SlowCall > 0 && c.SlowRate == 0 {
			c.SlowRate = 0.5
		}
	}
	if c.Probes == 0 {
		c.Probes = 3
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = 30 * time.Second
	}
	return nil
}

func (c *BreakerConfig) check() error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("breaker", c.Name, field, value, rule, fix)
	}
	switch w := c.Window; {
	case w.kind == windowCount && w.size <= 0:
		return bad("Window", w, "must hold at least one call", "use Count(100)")
	case w.kind == windowTime && (w.size <= 0 || w.covered < time.Duration(w.size)):
		return bad("Window", w, "must have buckets of at least 1ns", "use Time(10*time.Second, 10)")
	case w.kind == windowCount && w.size > maxWindowCalls:
		return bad("Window", w, fmt.Sprintf("must hold at most %d calls", maxWindowCalls), "use a time window")
	case w.kind == windowTime && w.size > maxWindowBuckets:
		return bad("Window", w, fmt.Sprintf("must have at most %d buckets", maxWindowBuckets), "use larger buckets")
	case c.MinCalls < 0:
		return bad("MinCalls", c.MinCalls, "must not be negative", "use 0 for the default of 20")
	case w.kind == windowCount && c.MinCalls > w.size:
		return bad("MinCalls", c.MinCalls, "must fit into "+w.String(), "make the window larger")
	case c.Failures < 0:
		return bad("Failures", c.Failures, "must not be negative", "use 0 for no such rule")
	case w.kind == windowCount && c.Failures > w.size:
		return bad("Failures", c.Failures, "must fit into "+w.String(), "make the window larger")
	case w.kind == windowConsecutive && c.MinCalls > 0:
		return bad("MinCalls", c.MinCalls, "does not apply to Consecutive()", "set Failures")
	case w.kind == windowConsecutive && c.FailureRate > 0:
		return bad("FailureRate", c.FailureRate, "does not apply to Consecutive()", "set Failures")
	case w.kind == windowConsecutive && c.SlowRate > 0:
		return bad("SlowRate", c.SlowRate, "does not apply to Consecutive()", "set Failures")
	}
	return c.checkRules()
}

func (c *BreakerConfig) checkRules() error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("breaker", c.Name, field, value, rule, fix)
	}
	switch {
	case !(c.FailureRate >= 0 && c.FailureRate <= 1):
		return bad("FailureRate", c.FailureRate, "must be within 0 and 1", "use 0.5 for half of the calls")
	case !(c.SlowRate >= 0 && c.SlowRate <= 1):
		return bad("SlowRate", c.SlowRate, "must be within 0 and 1", "use 0.5 for half of the calls")
	case c.SlowCall < 0:
		return bad("SlowCall", c.SlowCall, "must not be negative", "use 0 for no such rule")
	case c.SlowRate > 0 && c.SlowCall == 0:
		return bad("SlowCall", c.SlowCall, "is needed by SlowRate", "name the time from which on a call is slow")
	case c.Probes < 0:
		return bad("Probes", c.Probes, "must not be negative", "use 0 for the default of 3")
	case c.Probes > maxProbes:
		return bad("Probes", c.Probes, fmt.Sprintf("must be at most %d", maxProbes), "use fewer")
	case !(c.ProbeSuccess >= 0 && c.ProbeSuccess <= 1):
		return bad("ProbeSuccess", c.ProbeSuccess, "must be within 0 and 1", "use 0.5 for half of the probes, 0 for all")
	case c.ProbeTimeout < 0:
		return bad("ProbeTimeout", c.ProbeTimeout, "must not be negative", "use 0 for the default of 30s")
	case c.Mode > MetricsOnly:
		return bad("Mode", uint8(c.Mode), "must be a mode", "use Auto, ForcedOpen, ForcedClosed or MetricsOnly")
	}
	return nil
}

// tripped reports whether a rule holds. Shares are compared as quotients, which for
// counts are exact where products like 0.55*100 are not.
func (c *BreakerConfig) tripped(t tally) bool {
	if t.failures == 0 && t.slow == 0 {
		return false
	}
	if c.Failures > 0 && (t.failures >= c.Failures || c.Window.kind == windowConsecutive && t.slow >= c.Failures) {
		return true
	}
	if t.calls < c.MinCalls {
		return false
	}
	calls := float64(t.calls)
	return c.FailureRate > 0 && float64(t.failures)/calls >= c.FailureRate ||
		c.SlowRate > 0 && float64(t.slow)/calls >= c.SlowRate
}

// OpenFixed keeps a breaker open for d each time.
func OpenFixed(d time.Duration) func(int, error) time.Duration {
	return func(int, error) time.Duration { return d }
}

// OpenBackoff keeps a breaker open for first, then twice as long each time probes
// fail, up to most, plus up to a tenth so that callers do not all probe at once. A
// callee that names a longer time with RetryAfter gets it, within the same most.
func OpenBackoff(first, most time.Duration) func(int, error) time.Duration {
	return OpenBackoffRand(first, most, nil)
}

// OpenBackoffRand is OpenBackoff with a source of jitter of one's own: random
// returns numbers from 0 up to 1 and must be safe for concurrent use; nil means
// math/rand/v2. Any other number means no jitter.
func OpenBackoffRand(first, most time.Duration, random func() float64) func(int, error) time.Duration {
	if random == nil {
		random = rand.Float64
	}
	return func(episode int, cause error) time.Duration {
		d := first
		for i := 1; i < episode && 0 < d && d < most; i++ {
			if d > most/2 {
				d = most
			} else {
				d *= 2
			}
		}
		if wish, ok := retryAfter(cause); ok {
			d = max(d, wish)
		}
		d = min(d, most)
		if r := random(); r >= 0 && r <= 1 {
			d += min(time.Duration(r*float64(d)/10), math.MaxInt64-d)
		}
		return d
	}
}

// Describe reports the effective settings.
func (b *Breaker) Describe() Description {
	v := b.now.Load()
	c := v.cfg
	d := Description{Kind: "breaker", Name: b.name, Settings: []Setting{setting("window", c.Window)}}
	add := func(name string, value any, set bool) {
		if set {
			d.Settings = append(d.Settings, setting(name, value))
		}
	}
	add("min-calls", c.MinCalls, c.MinCalls > 0)
	add("failure-rate", c.FailureRate, c.FailureRate > 0)
	add("failures", c.Failures, c.Failures > 0)
	add("slow-call", c.SlowCall, c.SlowCall > 0)
	add("slow-rate", c.SlowRate, c.SlowRate > 0)
	add("ready-to-trip", "custom", c.ReadyToTrip != nil)
	add("probes", c.Probes, true)
	add("probe-success", c.ProbeSuccess, c.ProbeSuccess > 0)
	add("probe-timeout", c.ProbeTimeout, true)
	add("mode", v.mode, v.mode != Auto)
	return d
}
