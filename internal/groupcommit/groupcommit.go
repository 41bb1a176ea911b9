// Package groupcommit lets concurrent writers share one durable commit. There
// is no timer: a lone writer commits at once, and whoever arrives while a
// commit is under way goes into the next one together.
//
//	c := groupcommit.New(256, func(ctx context.Context, batch []entry) []error { … })
//	err := c.Do(ctx, e) // returns after the batch that holds e
//
// It starts no goroutine: the first writer that finds nobody flushing leads,
// and hands the lead to the next one in the queue when its own batch is done.
package groupcommit

import (
	"context"
	"fmt"
	"sync"
)

// Committer gathers items into batches. It is safe for concurrent use.
type Committer[T any] struct {
	flush func(ctx context.Context, batch []T) []error
	limit int

	mu      sync.Mutex
	leading bool
	queue   []*pending[T]
}

type pending[T any] struct {
	item T
	done chan error
	lead chan struct{}
}

// New returns a committer whose batches hold at most limit items. flush gets
// one batch at a time and answers one error per item, or a slice of one error
// for all of them, or nil when all are well.
func New[T any](limit int, flush func(ctx context.Context, batch []T) []error) *Committer[T] {
	return &Committer[T]{flush: flush, limit: max(limit, 1)}
}

// Do returns when the batch that holds item is flushed, with the error of that
// item. When ctx ends first, Do returns its error, and whether the item was
// written is unknown unless nothing had been flushed yet.
func (c *Committer[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &pending[T]{item: item, done: make(chan error, 1), lead: make(chan struct{}, 1)}
	c.mu.Lock()
	c.queue = append(c.queue, p)
	if !c.leading {
		c.leading = true
		p.lead <- struct{}{}
	}
	c.mu.Unlock()

	select {
	case err := <-p.done:
		return err
	case <-p.lead:
		c.lead(ctx)
		return <-p.done
	case <-ctx.Done():
		return c.leave(ctx, p)
	}
}

// lead flushes the head of the queue, which holds the leader's own item, and
// passes the lead on. The batch is written for others too, so the leader's own
// cancellation does not stop it.
func (c *Committer[T]) lead(ctx context.Context) {
	c.mu.Lock()
	n := min(len(c.queue), c.limit)
	batch := c.queue[:n:n]
	c.queue = c.queue[n:]
	c.mu.Unlock()
	defer c.handOver()

	items := make([]T, n)
	for i, p := range batch {
		items[i] = p.item
	}
	errs := c.safeFlush(context.WithoutCancel(ctx), items)
	for i, p := range batch {
		switch {
		case len(errs) == 0:
			p.done <- nil
		case len(errs) == n:
			p.done <- errs[i]
		default:
			p.done <- errs[0]
		}
	}
}

func (c *Committer[T]) safeFlush(ctx context.Context, items []T) (errs []error) {
	defer func() {
		if r := recover(); r != nil {
			errs = []error{fmt.Errorf("groupcommit: flush panicked: %v", r)}
		}
	}()
	return c.flush(ctx, items)
}

func (c *Committer[T]) handOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.leading = false
		return
	}
	c.queue[0].lead <- struct{}{}
}

// leave takes a cancelled writer out of the queue. The one who was just made
// leader leads all the same: the others wait for it.
func (c *Committer[T]) leave(ctx context.Context, p *pending[T]) error {
	c.mu.Lock()
	select {
	case <-p.lead:
		c.mu.Unlock()
		c.lead(ctx)
		return <-p.done
	default:
	}
	for i, q := range c.queue {
		if q == p {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	return ctx.Err()
}
