package resilience

import (
	"context"
	"math"
	"sync"
	"time"
)

// AdaptiveAlgorithm is how an [Adaptive] limit follows what it measures.
type AdaptiveAlgorithm uint8

const (
	// Vegas estimates how many calls queue at the callee, limit*(1-minRTT/RTT), and
	// holds that number between 3 and 6 times log10(limit), as TCP Vegas does with
	// packets (Brakmo and Peterson, "TCP Vegas", 1995; the bounds are those of
	// Netflix's concurrency-limits). The unloaded time minRTT is measured anew from
	// time to time: after 1 s at first, then ever less often down to every 30 s, a
	// limit in use is quartered for one measurement. That keeps it close to the
	// capacity for good.
	Vegas AdaptiveAlgorithm = iota
	// Gradient2 compares the latest time with a long average and shrinks while it is
	// above 1.5 times that (the algorithm of this name in Netflix's
	// concurrency-limits). It takes no notice of short bursts and never throttles to
	// measure, but under lasting saturation the average follows the queue and the
	// limit creeps up: set MaxHealthyRTT.
	Gradient2
	// AIMD adds one while all is well and takes a tenth away otherwise (additive
	// increase, multiplicative decrease: Chiu and Jain, 1989). It sees overload only
	// in failures and in MaxHealthyRTT.
	AIMD
)

// String returns "vegas", "gradient2" or "aimd".
func (a AdaptiveAlgorithm) String() string {
	switch a {
	case Vegas:
		return "vegas"
	case Gradient2:
		return "gradient2"
	case AIMD:
		return "aimd"
	default:
		return "invalid"
	}
}

// AdaptiveConfig describes an [Adaptive]. The zero value moves between 1 and 1000
// calls at once, beginning with 20.
type AdaptiveConfig struct {
	Name string // for errors, events and Describe

	// Min, Max and Initial bound the limit and are where it begins. 0 means 1, 1000
	// and 20, or the bound nearest to 20.
	Min, Max, Initial int

	// Algorithm moves the limit. The zero value is Vegas.
	Algorithm AdaptiveAlgorithm

	// MaxHealthyRTT is the guard rail: while calls take longer on average, the limit
	// shrinks by a tenth per measurement, whatever the algorithm believes. 0 means
	// no guard.
	MaxHealthyRTT time.Duration

	// Queue and MaxWait are those of a [Bulkhead]: 0 rejects a call without a place
	// at once. Time spent waiting is not part of what is measured.
	Queue   int
	MaxWait time.Duration

	// Classify judges errors: Failures are a sign of overload, Neutral calls are
	// not measured. Nil means the function Classify. If it panics, the call counts
	// as a failure.
	Classify Classifier

	// Observer, if not nil, is told about rejections and changes of the limit.
	Observer Observer
}

// AdaptiveStats is a moment's view of an [Adaptive].
type AdaptiveStats struct {
	Limit    int           // calls that may run at once
	Running  int           // calls running now; above Limit for a while after it shrank
	Waiting  int           // calls waiting now
	Rejected uint64        // calls turned away so far
	RTT      time.Duration // average of the latest measurement
	MinRTT   time.Duration // what RTT is compared with: unloaded for Vegas, the long average for Gradient2
}

// Adaptive is a bulkhead that finds its size itself: it lets more calls run at
// once while their time stays near that of an unloaded callee and fewer when they
// slow down or fail. A call without a place gets a *[FullError].
//
// A measurement spans at least 100 ms and 10 calls, two for each that ran at once,
// all of which began within it, so that each limit is judged by what it caused. It shrinks the limit by a tenth when a
// tenth of its calls failed, and does not grow it when not even half of it was
// used. The times of failed calls are left out, since refusing is quick.
//
// Safe for concurrent use. A call costs two clock reads, one short lock and the
// atomic operations of a [Bulkhead], and does not allocate.
type Adaptive struct {
	cfg  AdaptiveConfig
	gate *Bulkhead
	base time.Time

	mu       sync.Mutex
	limit    float64
	measured measurement
	windows  int     // measurements so far
	rtt      float64 // of the latest measurement; this and minRTT in nanoseconds
	minRTT   float64

	probing    bool
	held       float64 // the limit to return to after probing
	probeAt    time.Duration
	probeEvery time.Duration
}

// measurement sums up the calls that began since it did.
type measurement struct {
	begun  time.Duration
	good   int
	failed int
	took   float64 // by good calls, nanoseconds
	peak   int64   // most calls seen running at once
}

const (
	// A measurement.
	measureTime  = 100 * time.Millisecond
	measureCalls = 10
	shrink       = 0.9 // by an overload, for all algorithms

	// Vegas: bounds of what may queue, in units of log10(limit), and probes of the
	// unloaded time.
	vegasAlpha   = 3
	vegasBeta    = 6
	probeShare   = 4
	firstProbe   = time.Second
	probeAtLeast = 30 * time.Second

	// Gradient2, with the values of its source.
	longWindows    = 600
	warmUpWindows  = 10
	tolerance      = 1.5
	queueAllowed   = 4
	gradientWeight = 0.2
)

// NewAdaptive returns an adaptive limit at cfg.Initial.
func NewAdaptive(cfg AdaptiveConfig) (*Adaptive, error) {
	bad := func(field string, value any, rule, fix string) (*Adaptive, error) {
		return nil, configError("adaptive", cfg.Name, field, value, rule, fix)
	}
	switch {
	case cfg.Min < 0:
		return bad("Min", cfg.Min, "must not be negative", "use 0 for the default of 1")
	case cfg.Max < 0 || cfg.Max > math.MaxInt32:
		return bad("Max", cfg.Max, "must be within 0 and 32 bits", "use 0 for the default of 1000")
	case cfg.Initial < 0:
		return bad("Initial", cfg.Initial, "must not be negative", "use 0 for the default of 20")
	case cfg.Algorithm > AIMD:
		return bad("Algorithm", cfg.Algorithm, "is unknown", "use Vegas, Gradient2 or AIMD")
	case cfg.MaxHealthyRTT < 0:
		return bad("MaxHealthyRTT", cfg.MaxHealthyRTT, "must not be negative", "use 0 for no guard")
	case cfg.Queue < 0:
		return bad("Queue", cfg.Queue, "must not be negative", "use 0 for no queue")
	case cfg.MaxWait < 0:
		return bad("MaxWait", cfg.MaxWait, "must not be negative", "use 0 to wait as long as the context lives")
	}
	if cfg.Min == 0 {
		cfg.Min = 1
	}
	if cfg.Max == 0 {
		cfg.Max = max(1000, cfg.Min)
	}
	if cfg.Initial == 0 {
		cfg.Initial = min(max(20, cfg.Min), cfg.Max)
	}
	switch {
	case cfg.Min > cfg.Max:
		return bad("Min", cfg.Min, "must not be above Max", "lower it or raise Max")
	case cfg.Initial < cfg.Min || cfg.Initial > cfg.Max:
		return bad("Initial", cfg.Initial, "must lie between Min and Max", "use 0 for the default")
	}
	if cfg.Classify == nil {
		cfg.Classify = Classify
	}
	return &Adaptive{
		cfg: cfg, base: time.Now(),
		gate: newBulkhead("adaptive", BulkheadConfig{
			Name: cfg.Name, Max: cfg.Initial, Queue: cfg.Queue, MaxWait: cfg.MaxWait, Observer: cfg.Observer,
		}),
		limit: float64(cfg.Initial), probeAt: firstProbe, probeEvery: firstProbe,
	}, nil
}

// Run executes next once there is a place, or returns a *[FullError].
func (a *Adaptive) Run(ctx context.Context, next Next) error {
	if err := a.gate.enter(ctx); err != nil {
		return err
	}
	defer a.gate.leave()
	start := a.elapsed()
	judged := false
	defer func() {
		if !judged { // a panic or Goexit, of the operation or of the classifier
			a.measure(ctx, start, Failure)
		}
	}()
	err := next.Run(ctx)
	outcome := Success
	if err != nil {
		outcome = a.cfg.Classify(ctx, err)
	}
	judged = true
	a.measure(ctx, start, outcome)
	return err
}

// measure adds a call that is still counted as running and, when that completes a
// measurement, moves the limit.
func (a *Adaptive) measure(ctx context.Context, start time.Duration, outcome Outcome) {
	now, running := a.elapsed(), a.gate.running()
	a.mu.Lock()
	m := &a.measured
	if start < m.begun || outcome == Neutral { // begun under another limit, or says nothing
		a.mu.Unlock()
		return
	}
	m.peak = max(m.peak, running)
	if outcome == Success {
		m.good++
		m.took += float64(now - start)
	} else {
		m.failed++
	}
	// Calls that are quick end first: two for each that ran at once keep the
	// measurement from seeing only those.
	if n := m.good + m.failed; n < measureCalls || int64(n) < 2*m.peak || now-m.begun < measureTime {
		a.mu.Unlock()
		return
	}
	before := int(a.limit)
	a.limit = min(max(a.next(now), float64(a.cfg.Min)), float64(a.cfg.Max))
	after := int(a.limit)
	*m = measurement{begun: now}
	if after != before {
		a.gate.resize(after)
	}
	a.mu.Unlock()
	if after != before && a.cfg.Observer != nil {
		a.cfg.Observer.On(ctx, Event{Kind: EventLimitChanged, Policy: "adaptive", Name: a.cfg.Name, Limit: after})
	}
}

// next returns the limit that follows from the measurement. Called with mu held.
func (a *Adaptive) next(now time.Duration) float64 {
	m := &a.measured
	if m.good > 0 {
		a.rtt = m.took / float64(m.good)
	}
	limit := a.limit
	probed := a.probing
	if probed {
		limit, a.probing = a.held, false
		a.probeEvery = min(2*a.probeEvery, probeAtLeast)
		a.probeAt = now + a.probeEvery
	}
	switch {
	case 10*m.failed >= m.good+m.failed,
		a.cfg.MaxHealthyRTT > 0 && a.rtt > float64(a.cfg.MaxHealthyRTT) && m.good > 0:
		return limit * shrink
	case probed:
		a.minRTT = a.rtt
		return limit
	}
	used := 2*float64(m.peak) >= limit
	if used && a.cfg.Algorithm == Vegas && now >= a.probeAt {
		a.probing, a.held = true, limit
		return limit / probeShare
	}
	var wish float64
	switch a.cfg.Algorithm {
	case Gradient2:
		wish = a.gradient2(limit)
	case AIMD:
		wish = limit + 1
	default:
		wish = a.vegas(limit)
	}
	if !used {
		return min(wish, limit)
	}
	return wish
}

func (a *Adaptive) vegas(limit float64) float64 {
	switch {
	case a.minRTT == 0:
		a.minRTT = a.rtt
	case a.rtt < a.minRTT: // slowly, since averages of few calls scatter
		a.minRTT += (a.rtt - a.minRTT) / 10
	}
	queued := 0.0
	if a.rtt > a.minRTT {
		queued = min(limit, float64(a.measured.peak)) * (1 - a.minRTT/a.rtt)
	}
	switch step := max(1, math.Log10(limit)); {
	case queued <= step:
		return limit + vegasBeta*step
	case queued < vegasAlpha*step:
		return limit + step
	case queued > vegasBeta*step:
		return limit - step
	default:
		return limit
	}
}

func (a *Adaptive) gradient2(limit float64) float64 {
	a.windows++
	if a.windows <= warmUpWindows {
		a.minRTT += (a.rtt - a.minRTT) / float64(a.windows)
	} else {
		a.minRTT += (a.rtt - a.minRTT) * 2 / (longWindows + 1)
	}
	if a.minRTT > 2*a.rtt { // the end of an overload: forget it sooner
		a.minRTT *= 0.95
	}
	gradient := 1.0
	if a.rtt > 0 {
		gradient = max(0.5, min(1, tolerance*a.minRTT/a.rtt))
	}
	return limit*(1-gradientWeight) + (limit*gradient+queueAllowed)*gradientWeight
}

func (a *Adaptive) elapsed() time.Duration { return max(0, time.Since(a.base)) }

// Name returns the name given in the configuration.
func (a *Adaptive) Name() string { return a.cfg.Name }

// Stats returns a view of the moment.
func (a *Adaptive) Stats() AdaptiveStats {
	gate := a.gate.Stats()
	a.mu.Lock()
	defer a.mu.Unlock()
	return AdaptiveStats{
		Limit: gate.Max, Running: gate.Running, Waiting: gate.Waiting, Rejected: gate.Rejected,
		RTT: time.Duration(a.rtt), MinRTT: time.Duration(a.minRTT),
	}
}

// Describe reports the effective settings.
func (a *Adaptive) Describe() Description {
	c := &a.cfg
	d := Description{Kind: "adaptive", Name: c.Name, Settings: []Setting{
		setting("algorithm", c.Algorithm), setting("min", c.Min), setting("max", c.Max), setting("initial", c.Initial),
	}}
	add := func(name string, value any, set bool) {
		if set {
			d.Settings = append(d.Settings, setting(name, value))
		}
	}
	add("max-healthy-rtt", c.MaxHealthyRTT, c.MaxHealthyRTT > 0)
	add("queue", c.Queue, c.Queue > 0)
	add("max-wait", c.MaxWait, c.MaxWait > 0)
	return d
}
