package resilience

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// FullError reports that a bulkhead had no place. The operation did not run.
type FullError struct {
	Name   string
	Waited time.Duration // time spent in the queue, 0 when it was full too
	Err    error         // the context's error, if that ended the wait
}

// Error names the bulkhead and how the wait ended.
func (e *FullError) Error() string {
	s := fmt.Sprintf("resilience: enter bulkhead %q: full", e.Name)
	if e.Waited > 0 {
		s += fmt.Sprintf(" for %v", e.Waited)
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

// RetryAfter reports that no delay is known.
func (e *FullError) RetryAfter() (time.Duration, bool) { return 0, false }

// BulkheadConfig describes a [Bulkhead].
type BulkheadConfig struct {
	Name string // for errors and Describe

	// Max is the number of calls that may run at once. Required.
	Max int

	// Queue is the number of calls that may wait for a place, first come, first
	// served. 0 means that a call without a place is rejected at once.
	Queue int

	// MaxWait bounds the wait. 0 means as long as the context lives.
	MaxWait time.Duration
}

// BulkheadStats is a moment's view of a [Bulkhead].
type BulkheadStats struct {
	Running  int    // calls running now
	Waiting  int    // calls waiting now
	Rejected uint64 // calls turned away so far, those that gave up waiting included
}

// Bulkhead limits how many calls run at once, so that one slow callee cannot take
// every goroutine and connection of the process. Safe for concurrent use; no
// place is lost to a panic, to Goexit or to a caller that gives up.
type Bulkhead struct {
	cfg BulkheadConfig

	mu       sync.Mutex
	running  int
	queue    list.List // of chan struct{}: closing one hands the place over
	rejected uint64
}

// NewBulkhead returns a bulkhead with all places free.
func NewBulkhead(cfg BulkheadConfig) (*Bulkhead, error) {
	switch {
	case cfg.Max <= 0:
		return nil, configError("bulkhead", cfg.Name, "Max", cfg.Max, "must be positive", "name how many calls may run at once")
	case cfg.Queue < 0:
		return nil, configError("bulkhead", cfg.Name, "Queue", cfg.Queue, "must not be negative", "use 0 for no queue")
	case cfg.MaxWait < 0:
		return nil, configError("bulkhead", cfg.Name, "MaxWait", cfg.MaxWait, "must not be negative", "use 0 to wait as long as the context lives")
	}
	return &Bulkhead{cfg: cfg}, nil
}

// Run executes next once there is a place, or returns a *[FullError].
func (b *Bulkhead) Run(ctx context.Context, next Next) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.leave()
	return next.Run(ctx)
}

func (b *Bulkhead) enter(ctx context.Context) error {
	b.mu.Lock()
	if b.running < b.cfg.Max {
		b.running++
		b.mu.Unlock()
		return nil
	}
	if b.queue.Len() >= b.cfg.Queue {
		b.rejected++
		b.mu.Unlock()
		return &FullError{Name: b.cfg.Name}
	}
	place := make(chan struct{})
	ticket := b.queue.PushBack(place)
	b.mu.Unlock()

	start := time.Now()
	var expired <-chan time.Time
	if b.cfg.MaxWait > 0 {
		timer := time.NewTimer(b.cfg.MaxWait)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-place:
	case <-expired:
	case <-ctx.Done():
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	handed := false
	select {
	case <-place: // may have come together with the end of the wait
		handed = true
	default:
		b.queue.Remove(ticket)
	}
	if handed && ctx.Err() == nil {
		return nil
	}
	if handed {
		b.pass()
	}
	b.rejected++
	return &FullError{Name: b.cfg.Name, Waited: time.Since(start), Err: ctx.Err()}
}

func (b *Bulkhead) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pass()
}

// pass hands one place to whoever waits longest, or frees it. Called with mu held.
func (b *Bulkhead) pass() {
	if first := b.queue.Front(); first != nil {
		close(b.queue.Remove(first).(chan struct{}))
		return
	}
	b.running--
}

// Stats returns a consistent view of the moment.
func (b *Bulkhead) Stats() BulkheadStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BulkheadStats{Running: b.running, Waiting: b.queue.Len(), Rejected: b.rejected}
}

// Describe reports the settings.
func (b *Bulkhead) Describe() Description {
	d := Description{Kind: "bulkhead", Name: b.cfg.Name, Settings: []Setting{
		setting("max", b.cfg.Max), setting("queue", b.cfg.Queue)}}
	if b.cfg.MaxWait > 0 {
		d.Settings = append(d.Settings, setting("max-wait", b.cfg.MaxWait))
	}
	return d
}
