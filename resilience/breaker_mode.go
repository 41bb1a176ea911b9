package resilience

import "context"

// Mode says how far a [Breaker] decides by itself.
type Mode uint8

const (
	// Auto: the rules decide.
	Auto Mode = iota
	// ForcedOpen: every call is rejected, and no time is known when that ends.
	ForcedOpen
	// ForcedClosed: every call passes.
	ForcedClosed
	// MetricsOnly: everything happens as with Auto, changes of state and events
	// included, but a call that should be rejected runs all the same. It is told
	// about with Event.Shadow set and counted in BreakerStats.ShadowRejected.
	MetricsOnly
)

// String returns "auto", "forced-open", "forced-closed" or "metrics-only".
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case ForcedOpen:
		return "forced-open"
	case ForcedClosed:
		return "forced-closed"
	case MetricsOnly:
		return "metrics-only"
	default:
		return "invalid"
	}
}

func (m Mode) forced() bool { return m == ForcedOpen || m == ForcedClosed }

// Mode returns the mode in force.
func (b *Breaker) Mode() Mode { return b.now.Load().mode }

// SetMode changes the mode at once; an unknown mode is ignored. The forced modes
// set the state machine aside: results of calls count in the totals only, State
// answers what is forced, and afterwards the machine goes on where it was, with an
// open time that has been running on. Probes under way report to it in any mode.
func (b *Breaker) SetMode(m Mode) {
	if m > MetricsOnly {
		return
	}
	b.mu.Lock()
	v := *b.now.Load()
	v.mode = m
	b.install(v)
	if to := v.announced(); to != b.told {
		b.announceForced(context.Background(), &v, to)
	}
	b.mu.Unlock()
	b.deliver()
}

// announced is the state that listeners ought to know of.
func (v *view) announced() State {
	switch e := v.period.episode; {
	case v.mode == ForcedOpen:
		return Open
	case v.mode == ForcedClosed || e == nil:
		return Closed
	case e.probing:
		return HalfOpen
	default:
		return Open
	}
}

// Update replaces the settings at once, or changes nothing and returns an error.
// Calls under way still count. What the window holds stays unless Window itself
// changes, and the new rules look at it with the next result. An open episode goes on
// to its own end: OpenFor, Probes, ProbeSuccess and ProbeTimeout apply from the next.
// Name must stay, because errors, events and metrics go by it, and Mode is left to
// SetMode.
func (b *Breaker) Update(cfg BreakerConfig) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	if cfg.Name != b.name {
		return configError("breaker", b.name, "Name", cfg.Name, "must not change", "make another breaker")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := *b.now.Load()
	if cfg.Window != v.cfg.Window {
		v.period.streak.reset()
		b.sensor.install(v.period, cfg.Window)
	}
	v.cfg = &cfg
	b.install(v)
	return nil
}
