package resilience

import (
	"context"
	"slices"
	"time"
)

// Order is the order in which those who wait are served.
type Order uint8

const (
	// FIFO serves who waits longest.
	FIFO Order = iota
	// LIFO serves who came last: under overload some callers get a quick answer
	// instead of all of them a late one.
	LIFO
	// ByPriority serves the highest priority, given by [WithPriority], and among
	// equals who waits longest. It is meant for a handful of different priorities.
	ByPriority
)

// String returns "fifo", "lifo" or "by-priority".
func (o Order) String() string {
	switch o {
	case FIFO:
		return "fifo"
	case LIFO:
		return "lifo"
	case ByPriority:
		return "by-priority"
	default:
		return "invalid"
	}
}

// Overflow says who is turned away when a queue is full.
type Overflow uint8

const (
	// RejectNew turns the newcomer away, whatever its priority.
	RejectNew Overflow = iota
	// DropOldest turns away who waits longest, because that answer is the least
	// likely to be wanted still. With ByPriority it is the lowest priority that
	// goes, among equals the oldest; that may be the newcomer.
	DropOldest
)

// String returns "reject-new" or "drop-oldest".
func (o Overflow) String() string {
	switch o {
	case RejectNew:
		return "reject-new"
	case DropOldest:
		return "drop-oldest"
	default:
		return "invalid"
	}
}

type priorityKey struct{}

// WithPriority gives the calls made with the context a priority in queues that are
// served [ByPriority]. Higher is served first; without one it is 0.
func WithPriority(ctx context.Context, priority int) context.Context {
	return context.WithValue(ctx, priorityKey{}, priority)
}

// PriorityFromContext returns the priority set by [WithPriority], 0 without one.
func PriorityFromContext(ctx context.Context) int {
	priority, _ := ctx.Value(priorityKey{}).(int)
	return priority
}

// waiter is a call in a queue. Its fields other than ended belong to whoever holds
// the lock of the queue's owner.
type waiter struct {
	prev, next *waiter
	priority   int
	queued     bool

	ended    chan struct{} // closed when the wait is over: admitted or dropped
	admitted bool
	start    time.Time // when it was admitted, under minimum spacing
	before   time.Time // the start before that one
}

// queue keeps waiters in levels of equal priority, lowest first, each in order of
// arrival. Orders other than ByPriority have one level. All operations take
// constant time but for finding the level.
type queue struct {
	order  Order
	levels []level
	length int
}

type level struct {
	priority    int
	first, last *waiter // oldest, newest
}

// push adds w as the newest of its priority.
func (q *queue) push(w *waiter) {
	i, found := q.find(w.priority)
	if !found {
		q.levels = slices.Insert(q.levels, i, level{priority: w.priority})
	}
	l := &q.levels[i]
	if w.prev = l.last; w.prev != nil {
		w.prev.next = w
	} else {
		l.first = w
	}
	l.last = w
	w.queued = true
	q.length++
}

// remove takes w out, if it is in.
func (q *queue) remove(w *waiter) {
	if !w.queued {
		return
	}
	i, _ := q.find(w.priority)
	l := &q.levels[i]
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	if l.first == nil {
		q.levels = slices.Delete(q.levels, i, i+1)
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.length--
}

// front returns who is served next. The queue must not be empty.
func (q *queue) front() *waiter {
	top := &q.levels[len(q.levels)-1]
	if q.order == LIFO {
		return top.last
	}
	return top.first
}

// victim returns who goes first when there are too many. The queue must not be empty.
func (q *queue) victim() *waiter { return q.levels[0].first }

func (q *queue) find(priority int) (int, bool) {
	return slices.BinarySearchFunc(q.levels, priority, func(l level, p int) int {
		switch {
		case l.priority < p:
			return -1
		case l.priority > p:
			return 1
		default:
			return 0
		}
	})
}
