package resilience

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// FullError reports that a [Bulkhead] or an [Adaptive] limit had no place. The
// operation did not run.
type FullError struct {
	Name   string
	Policy string        // "adaptive"; empty or "bulkhead" for a bulkhead
	Waited time.Duration // time spent in the queue, 0 when it was full too
	After  time.Duration // time until minimum spacing lets a call start, 0 if that was not the reason
	Err    error         // the context's error, if that ended the wait
}

// Error names the policy and how the wait ended.
func (e *FullError) Error() string {
	policy := e.Policy
	if policy == "" {
		policy = "bulkhead"
	}
	s := fmt.Sprintf("resilience: enter %s %q: full", policy, e.Name)
	if e.Waited > 0 {
		s += fmt.Sprintf(" for %v", e.Waited)
	}
	if e.After > 0 {
		s += fmt.Sprintf(", next start in %v", e.After)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is matches ErrFull and ErrRejected.
func (e *FullError) Is(target error) bool { return target == ErrFull || target == ErrRejected }

// Unwrap returns the context's error, if that ended the wait.
func (e *FullError) Unwrap() error { return e.Err }

// NotExecuted reports true.
func (e *FullError) NotExecuted() bool { return true }

// Retryable reports true unless the context ended the wait.
func (e *FullError) Retryable() bool { return e.Err == nil }

// RetryAfter reports After, if minimum spacing was the reason. When a place gets
// free is not known.
func (e *FullError) RetryAfter() (time.Duration, bool) { return e.After, e.After > 0 }

// BulkheadConfig describes a [Bulkhead].
type BulkheadConfig struct {
	Name string // for errors, events and Describe

	// Max is the number of calls that may run at once. Required.
	Max int

	// Queue is the number of calls that may wait for a place. 0 means that a call
	// without a place is rejected at once.
	Queue int

	// MaxWait bounds the wait. 0 means as long as the context lives.
	MaxWait time.Duration

	// MinSpacing is the least time between the starts of two calls. Who comes too
	// early waits in the same queue as who finds no place, so that no call overtakes
	// another; without a Queue it is rejected. A caller that gives up waiting does
	// not use up its turn. 0 means that calls may start at the same time.
	MinSpacing time.Duration

	// Order is the order in which the queue is served. The zero value is FIFO.
	Order Order

	// Overflow says who is rejected when the queue is full. The zero value is
	// RejectNew.
	Overflow Overflow

	// Observer, if not nil, is told about rejections.
	Observer Observer
}

func (c *BulkheadConfig) check() error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("bulkhead", c.Name, field, value, rule, fix)
	}
	switch {
	case c.Max <= 0:
		return bad("Max", c.Max, "must be positive", "name how many calls may run at once")
	case c.Max > math.MaxInt32:
		return bad("Max", c.Max, "must fit into 32 bits", "leave the bulkhead out for no limit")
	case c.Queue < 0:
		return bad("Queue", c.Queue, "must not be negative", "use 0 for no queue")
	case c.MaxWait < 0:
		return bad("MaxWait", c.MaxWait, "must not be negative", "use 0 to wait as long as the context lives")
	case c.MinSpacing < 0:
		return bad("MinSpacing", c.MinSpacing, "must not be negative", "use 0 for no spacing")
	case c.Order > ByPriority:
		return bad("Order", c.Order, "is unknown", "use FIFO, LIFO or ByPriority")
	case c.Overflow > DropOldest:
		return bad("Overflow", c.Overflow, "is unknown", "use RejectNew or DropOldest")
	default:
		return nil
	}
}

// BulkheadStats is a moment's view of a [Bulkhead].
type BulkheadStats struct {
	Max      int           // calls that may run at once
	Running  int           // calls running now; above Max for a while after Update lowered it
	Waiting  int           // calls waiting now
	Queued   uint64        // calls that had to wait so far
	Rejected uint64        // calls turned away so far, those that gave up waiting included
	WaitTime time.Duration // total time of all waits that have ended
}

// Bulkhead limits how many calls run at once, so that one slow callee cannot take
// every goroutine and connection of the process, and how closely they follow one
// another. Safe for concurrent use; no place is lost to a panic, to Goexit or to a
// caller that gives up.
//
// While there is room, no queue and no MinSpacing, a call costs two atomic
// operations and no allocation; otherwise a short lock, and a wait two small
// allocations. It starts no goroutine; under MinSpacing a timer runs while calls
// wait for their turn.
type Bulkhead struct {
	kind string // of events and errors: an Adaptive is a bulkhead inside
	cfg  atomic.Pointer[BulkheadConfig]

	// places is the number of running calls, plus contended while newcomers must
	// take the lock: somebody waits, or starts are spaced. Calls leave at any time;
	// while contended is set only the holder of mu lets calls in.
	places   atomic.Int64
	rejected atomic.Uint64

	mu       sync.Mutex
	queue    queue
	last     time.Time   // the latest start, under MinSpacing
	timer    *time.Timer // admits who waits for its turn, nil when nobody does
	queued   uint64
	waitTime time.Duration
}

// contended is above every Max, so that one comparison keeps newcomers out.
const contended = 1 << 62

// NewBulkhead returns a bulkhead with all places free.
func NewBulkhead(cfg BulkheadConfig) (*Bulkhead, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return newBulkhead("bulkhead", cfg), nil
}

func newBulkhead(kind string, cfg BulkheadConfig) *Bulkhead {
	b := &Bulkhead{kind: kind, queue: queue{order: cfg.Order}}
	b.cfg.Store(&cfg)
	if cfg.MinSpacing > 0 {
		b.places.Store(contended)
	}
	return b
}

// Run executes next once there is a place, or returns a *[FullError]. A context
// that ends while the call waits ends the wait.
func (b *Bulkhead) Run(ctx context.Context, next Next) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	return next.Run(ctx)
}

// Name returns the name given in the configuration.
func (b *Bulkhead) Name() string { return b.cfg.Load().Name }

// Update changes the settings while calls run and wait. Name and Order must stay.
// A lower Max lets the calls under way end; a smaller Queue keeps those already
// waiting; a new MaxWait holds for calls that begin to wait afterwards.
func (b *Bulkhead) Update(cfg BulkheadConfig) error {
	if err := cfg.check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch old := b.cfg.Load(); {
	case cfg.Name != old.Name:
		return configError(b.kind, old.Name, "Name", cfg.Name, "cannot change", "make another "+b.kind)
	case cfg.Order != old.Order:
		return configError(b.kind, old.Name, "Order", cfg.Order, "cannot change", "make another "+b.kind)
	}
	b.adopt(&cfg)
	return nil
}

// adopt makes cfg the configuration. Called with mu held.
func (b *Bulkhead) adopt(cfg *BulkheadConfig) {
	b.places.Or(contended)
	b.cfg.Store(cfg)
	b.admit()
}

// resize changes Max alone.
func (b *Bulkhead) resize(most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	cfg := *b.cfg.Load()
	cfg.Max = most
	b.adopt(&cfg)
}

// enter takes a place, waiting for it if need be.
func (b *Bulkhead) enter(ctx context.Context) error {
	most := int64(b.cfg.Load().Max)
	for n := b.places.Load(); n < most; n = b.places.Load() {
		if b.places.CompareAndSwap(n, n+1) {
			return nil
		}
	}
	return b.enterSlow(ctx)
}

func (b *Bulkhead) leave() {
	if b.places.Add(-1) >= contended {
		b.mu.Lock()
		b.admit()
		b.mu.Unlock()
	}
}

func (b *Bulkhead) enterSlow(ctx context.Context) error {
	priority := 0
	if b.queue.order == ByPriority {
		priority = PriorityFromContext(ctx)
	}
	b.mu.Lock()
	b.admit() // who left may not have come to it yet
	b.places.Or(contended)
	cfg := b.cfg.Load()
	if b.queue.length == 0 && b.free(cfg) && b.turn(cfg) <= 0 {
		b.begin(cfg)
		b.admit()
		b.mu.Unlock()
		return nil
	}
	if b.queue.length >= cfg.Queue {
		if cfg.Queue == 0 || cfg.Overflow == RejectNew || b.queue.victim().priority > priority {
			full := &FullError{}
			if b.queue.length == 0 && b.free(cfg) {
				full.After = b.turn(cfg)
			}
			b.admit()
			b.mu.Unlock()
			return b.reject(ctx, full)
		}
		victim := b.queue.victim()
		b.queue.remove(victim)
		close(victim.ended)
	}
	w := &waiter{priority: priority, ended: make(chan struct{})}
	b.queue.push(w)
	b.queued++
	b.admit()
	b.mu.Unlock()
	return b.wait(ctx, w, cfg.MaxWait)
}

// wait ends when w is admitted or dropped, or the caller has no more time.
func (b *Bulkhead) wait(ctx context.Context, w *waiter, most time.Duration) error {
	start := time.Now()
	var expired <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-w.ended: // may come together with the end of the wait
	case <-expired:
	case <-ctx.Done():
	}
	full := &FullError{Waited: time.Since(start), Err: ctx.Err()}

	b.mu.Lock()
	b.waitTime += full.Waited
	if w.admitted && full.Err == nil {
		b.mu.Unlock()
		return nil
	}
	if w.admitted {
		b.giveBack(w)
	}
	b.queue.remove(w)
	b.admit()
	b.mu.Unlock()
	return b.reject(ctx, full)
}

// reject completes the error of a call that was turned away and tells of it.
func (b *Bulkhead) reject(ctx context.Context, full *FullError) error {
	b.rejected.Add(1)
	cfg := b.cfg.Load()
	full.Policy, full.Name = b.kind, cfg.Name
	if cfg.Observer != nil {
		cfg.Observer.On(ctx, Event{Kind: EventRejected, Policy: b.kind, Name: cfg.Name, Duration: full.Waited, Err: full})
	}
	return full
}

// The methods below are called with mu held.

// admit lets in whom it can and, once nobody waits, opens the fast path again.
func (b *Bulkhead) admit() {
	cfg := b.cfg.Load()
	for b.queue.length > 0 && b.free(cfg) {
		if d := b.turn(cfg); d > 0 {
			b.wake(d)
			return
		}
		w := b.queue.front()
		b.queue.remove(w)
		w.before = b.last
		b.begin(cfg)
		w.start, w.admitted = b.last, true
		close(w.ended)
	}
	if b.queue.length > 0 {
		return
	}
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if cfg.MinSpacing == 0 {
		b.places.And(^contended)
	}
}

func (b *Bulkhead) free(cfg *BulkheadConfig) bool { return b.running() < int64(cfg.Max) }

// turn returns the time until the next call may start.
func (b *Bulkhead) turn(cfg *BulkheadConfig) time.Duration {
	if cfg.MinSpacing == 0 || b.last.IsZero() {
		return 0
	}
	since := time.Since(b.last)
	if since < 0 { // the last start was on another clock, outside a test's bubble
		return 0
	}
	return cfg.MinSpacing - since
}

func (b *Bulkhead) begin(cfg *BulkheadConfig) {
	b.places.Add(1)
	if cfg.MinSpacing > 0 {
		b.last = time.Now()
	}
}

// giveBack undoes the start of a caller that was gone by then, its turn included.
func (b *Bulkhead) giveBack(w *waiter) {
	b.places.Add(-1)
	if b.last.Equal(w.start) {
		b.last = w.before
	}
}

// wake calls admit after d.
func (b *Bulkhead) wake(d time.Duration) {
	if b.timer != nil {
		b.timer.Reset(d)
		return
	}
	b.timer = time.AfterFunc(d, func() {
		b.mu.Lock()
		b.admit()
		b.mu.Unlock()
	})
}

func (b *Bulkhead) running() int64 { return b.places.Load() &^ contended }

// Stats returns a view of the moment.
func (b *Bulkhead) Stats() BulkheadStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BulkheadStats{
		Max:      b.cfg.Load().Max,
		Running:  int(b.running()),
		Waiting:  b.queue.length,
		Queued:   b.queued,
		Rejected: b.rejected.Load(),
		WaitTime: b.waitTime,
	}
}

// Describe reports the settings.
func (b *Bulkhead) Describe() Description {
	cfg := b.cfg.Load()
	d := Description{Kind: "bulkhead", Name: cfg.Name, Settings: []Setting{
		setting("max", cfg.Max), setting("queue", cfg.Queue)}}
	add := func(name string, value any, set bool) {
		if set {
			d.Settings = append(d.Settings, setting(name, value))
		}
	}
	add("max-wait", cfg.MaxWait, cfg.MaxWait > 0)
	add("min-spacing", cfg.MinSpacing, cfg.MinSpacing > 0)
	add("order", cfg.Order, cfg.Order != FIFO)
	add("overflow", cfg.Overflow, cfg.Overflow != RejectNew)
	return d
}
