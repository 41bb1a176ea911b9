package resilience

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ErrInjected matches every [InjectedError].
var ErrInjected error = staticError("resilience: injected fault")

// InjectedError is a failure that [Chaos] made up. The operation did not run.
// Unlike a rejection it is a failure in the eyes of breakers and throttles, unless
// Err says otherwise.
type InjectedError struct {
	Name string
	Err  error // ChaosConfig.Err, or the context's error when it ended an injected delay; may be nil
}

// Error names the chaos policy and Err.
func (e *InjectedError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("resilience: pass chaos %q: injected fault", e.Name)
	}
	return fmt.Sprintf("resilience: pass chaos %q: injected fault: %v", e.Name, e.Err)
}

// Is matches ErrInjected.
func (e *InjectedError) Is(target error) bool { return target == ErrInjected }

// Unwrap returns Err.
func (e *InjectedError) Unwrap() error { return e.Err }

// NotExecuted reports true.
func (e *InjectedError) NotExecuted() bool { return true }

// Retryable reports what Err says; true if it says nothing. Not after the context
// ended.
func (e *InjectedError) Retryable() bool {
	return retryable(e.Err) && !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded)
}

// RetryAfter reports what Err says.
func (e *InjectedError) RetryAfter() (time.Duration, bool) { return retryAfter(e.Err) }

// ChaosConfig describes a [Chaos]. At least one of the faults must be possible.
type ChaosConfig struct {
	Name string // for errors, events and Describe

	// Rate is the share of calls, within 0 and 1, that each fault strikes whose own
	// rate is 0.
	Rate float64

	// Latency delays calls. 0 means never. LatencyRate is the share delayed.
	Latency     time.Duration
	LatencyRate float64

	// Err is returned, inside an *[InjectedError], in place of running the call. If
	// it is nil, calls fail only when ErrRate is set. ErrRate is the share that fails.
	Err     error
	ErrRate float64

	// Panic is what calls panic with. nil means never. PanicRate is the share that
	// panics.
	Panic     any
	PanicRate float64

	// Enabled is asked at each call whether faults may strike it: for instance only
	// requests that carry a mark, or only while an experiment runs. Nil means all.
	Enabled func(ctx context.Context) bool

	// Rand returns numbers in [0, 1), one for each fault that is set up. Nil means
	// rand.Float64 of math/rand/v2.
	Rand func() float64

	// Observer, if not nil, is told about each fault.
	Observer Observer
}

// ChaosStats counts the faults a [Chaos] injected so far.
type ChaosStats struct {
	Delayed, Failed, Panicked uint64
}

// Chaos makes calls slow, fail or panic by chance, to show that what surrounds it
// copes. Its place is innermost, where the faults of the callee come from. The
// faults are drawn independently, in the order delay, panic, error. Safe for
// concurrent use; it allocates only for the errors and timers it injects.
type Chaos struct {
	cfg                       ChaosConfig
	delayed, failed, panicked atomic.Uint64
}

// NewChaos returns a chaos policy.
func NewChaos(cfg ChaosConfig) (*Chaos, error) {
	bad := func(field string, value any, rule, fix string) (*Chaos, error) {
		return nil, configError("chaos", cfg.Name, field, value, rule, fix)
	}
	for _, r := range []struct {
		field string
		rate  *float64
		set   bool
	}{
		{"Rate", &cfg.Rate, true},
		{"LatencyRate", &cfg.LatencyRate, cfg.Latency > 0},
		{"ErrRate", &cfg.ErrRate, cfg.Err != nil || cfg.ErrRate > 0},
		{"PanicRate", &cfg.PanicRate, cfg.Panic != nil},
	} {
		switch {
		case !(*r.rate >= 0 && *r.rate <= 1):
			return bad(r.field, *r.rate, "must be within 0 and 1", "use 0.1 for one call in ten")
		case *r.rate > 0 && !r.set:
			return bad(r.field, *r.rate, "has no fault to inject", "set "+r.field[:len(r.field)-len("Rate")]+" too")
		case *r.rate == 0 && r.set:
			*r.rate = cfg.Rate
		}
	}
	switch {
	case cfg.Latency < 0:
		return bad("Latency", cfg.Latency, "must not be negative", "use 0 for no delay")
	case cfg.LatencyRate == 0 && cfg.ErrRate == 0 && cfg.PanicRate == 0:
		return bad("Rate", cfg.Rate, "leaves no fault to inject", "set a rate and one of Latency, Err and Panic")
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	return &Chaos{cfg: cfg}, nil
}

// Run executes next, late or not at all if a fault strikes. A delay ends with ctx.
func (c *Chaos) Run(ctx context.Context, next Next) error {
	if c.cfg.Enabled != nil && !c.cfg.Enabled(ctx) {
		return next.Run(ctx)
	}
	if c.strikes(c.cfg.LatencyRate) {
		c.delayed.Add(1)
		c.tell(ctx, Event{Duration: c.cfg.Latency})
		if !sleep(ctx, c.cfg.Latency) {
			return &InjectedError{Name: c.cfg.Name, Err: ctx.Err()}
		}
	}
	if c.strikes(c.cfg.PanicRate) {
		c.panicked.Add(1)
		c.tell(ctx, Event{Err: fmt.Errorf("resilience: pass chaos %q: panic: %v", c.cfg.Name, c.cfg.Panic)})
		panic(c.cfg.Panic)
	}
	if c.strikes(c.cfg.ErrRate) {
		c.failed.Add(1)
		err := &InjectedError{Name: c.cfg.Name, Err: c.cfg.Err}
		c.tell(ctx, Event{Err: err})
		return err
	}
	return next.Run(ctx)
}

func (c *Chaos) strikes(rate float64) bool { return rate > 0 && c.cfg.Rand() < rate }

func (c *Chaos) tell(ctx context.Context, e Event) {
	if c.cfg.Observer != nil {
		e.Kind, e.Policy, e.Name = EventInjected, "chaos", c.cfg.Name
		c.cfg.Observer.On(ctx, e)
	}
}

// Name returns the name given in the configuration.
func (c *Chaos) Name() string { return c.cfg.Name }

// Stats returns the counters.
func (c *Chaos) Stats() ChaosStats {
	return ChaosStats{Delayed: c.delayed.Load(), Failed: c.failed.Load(), Panicked: c.panicked.Load()}
}

// Describe reports the faults that can strike.
func (c *Chaos) Describe() Description {
	d := Description{Kind: "chaos", Name: c.cfg.Name}
	add := func(name string, value any, rate float64) {
		if rate > 0 {
			d.Settings = append(d.Settings, setting(name, value), setting(name+"-rate", rate))
		}
	}
	add("latency", c.cfg.Latency, c.cfg.LatencyRate)
	add("panic", c.cfg.Panic, c.cfg.PanicRate)
	add("err", c.cfg.Err, c.cfg.ErrRate)
	return d
}
