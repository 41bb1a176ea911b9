package resilience

import (
	"context"
	"time"
)

// notice is an event on its way. It keeps the observer it was meant for, which
// Update may have replaced meanwhile.
type notice struct {
	ctx      context.Context
	observer Observer
	event    Event
}

// rejected counts and tells of a call turned away, or of one that MetricsOnly lets
// run.
func (b *Breaker) rejected(ctx context.Context, v *view, err *OpenError) {
	shadow := v.mode == MetricsOnly
	if shadow {
		b.totals.add(totalShadow)
	} else {
		b.totals.add(totalRejected)
	}
	if v.cfg.Observer != nil {
		b.queue(ctx, v.cfg.Observer, Event{Kind: EventRejected, Err: err, Shadow: shadow})
		b.deliver()
	}
}

// queue takes an event for the next delivery.
func (b *Breaker) queue(ctx context.Context, o Observer, e Event) {
	b.mu.Lock()
	b.enqueue(ctx, o, e)
	b.mu.Unlock()
}

// announce queues a change of the machine's state, which nobody sees while another
// state is forced. Called with mu held.
func (b *Breaker) announce(ctx context.Context, v *view, to State, d time.Duration, cause error) {
	if v.mode.forced() {
		return
	}
	from := b.told
	b.told = to
	if v.cfg.Observer != nil && !(from == Closed && to == Closed) {
		b.enqueue(ctx, v.cfg.Observer, Event{Kind: EventStateChanged, From: from, To: to, Duration: d, Err: cause})
	}
}

// announceForced queues a change that comes with a mode. Called with mu held.
func (b *Breaker) announceForced(ctx context.Context, v *view, to State) {
	e := Event{Kind: EventStateChanged, From: b.told, To: to}
	if to == Open && v.mode != ForcedOpen {
		e.Duration, e.Err = v.period.episode.left(), v.period.episode.open.Cause
	}
	b.told = to
	if v.cfg.Observer != nil {
		b.enqueue(ctx, v.cfg.Observer, e)
	}
}

// maxQueued bounds what an observer that has fallen behind can cost in memory.
const maxQueued = 1024

// enqueue is called with mu held.
func (b *Breaker) enqueue(ctx context.Context, o Observer, e Event) {
	if len(b.events)-b.delivered >= maxQueued && e.Kind != EventStateChanged {
		return
	}
	e.Policy, e.Name = "breaker", b.name
	b.events = append(b.events, notice{ctx, o, e})
}

// deliver hands queued events to their observers without holding mu. One goroutine
// delivers at a time, which keeps the order; an observer that causes further events
// queues them behind. The lock is left on every way out, and if an observer panics
// or exits, the rest is delivered before that goes on.
func (b *Breaker) deliver() {
	b.mu.Lock()
	if b.delivering || len(b.events) == 0 {
		b.mu.Unlock()
		return
	}
	b.delivering = true
	returned := false
	defer func() {
		b.delivering = false
		b.mu.Unlock()
		if !returned {
			b.deliver()
		}
	}()
	for len(b.events) > 0 {
		b.deliverOne()
	}
	returned = true
}

// deliverOne is called with mu held, and lets go of it meanwhile.
func (b *Breaker) deliverOne() {
	n := b.events[b.delivered]
	b.events[b.delivered] = notice{} // the queue must not keep a call's context alive
	if b.delivered++; b.delivered == len(b.events) {
		b.events, b.delivered = b.events[:0], 0
	}
	b.mu.Unlock()
	defer b.mu.Lock()
	n.observer.On(n.ctx, n.event)
}
