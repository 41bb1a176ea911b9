package memory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/armature-go/armature/messaging"
)

type consumer struct {
	d    *driver
	g    *group
	held map[*entry]struct{} // under d.mu, like everything of g
}

var errNotHeld = errors.New("memory: message is not held by this subscription any more")

func (c *consumer) Receive(ctx context.Context, limit int) ([]*messaging.Received, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.d.mu.Lock()
		if c.d.closed {
			c.d.mu.Unlock()
			return nil, messaging.ErrClosed
		}
		rs, next := c.take(limit)
		wake := c.g.wake
		c.d.mu.Unlock()
		if len(rs) > 0 {
			return rs, nil
		}
		wait(ctx, wake, next)
	}
}

// wait returns when the queue changed, the next delayed message is due, or ctx ends.
func wait(ctx context.Context, wake <-chan struct{}, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-wake:
	case <-due:
	case <-ctx.Done():
	}
}

// take removes up to limit messages from the queue, in order. It passes over keys that another consumer is at work on and
// keys whose first message is delayed; next is when the first delay ends.
func (c *consumer) take(limit int) (rs []*messaging.Received, next time.Time) {
	var (
		now     = time.Now()
		blocked map[string]bool
		passed  []*entry
		i       int
	)
	for i = 0; i < len(c.g.queue) && len(rs) < limit; i++ {
		e := c.g.queue[i]
		key := e.msg.Key
		late := !e.due.IsZero() && e.due.After(now)
		if late && (next.IsZero() || e.due.Before(next)) {
			next = e.due
		}
		if o := c.g.owners[key]; late || key != "" && (blocked[key] || o != nil && o.c != c) {
			if key != "" {
				if blocked == nil {
					blocked = map[string]bool{}
				}
				blocked[key] = true
			}
			passed = append(passed, e)
			continue
		}
		e.delivered++
		e.due = time.Time{}
		c.hold(e)
		c.g.queue[i] = nil
		m := e.msg.Clone()
		m.Data = slices.Clone(m.Data)
		rs = append(rs, &messaging.Received{Message: m, Delivered: e.delivered, Seq: e.seq, Token: e})
	}
	if len(rs) > 0 {
		if len(passed) == 0 {
			c.g.queue = c.g.queue[i:]
		} else {
			c.g.queue = append(passed, c.g.queue[i:]...)
		}
	}
	return rs, next
}

func (c *consumer) hold(e *entry) {
	c.held[e] = struct{}{}
	if e.msg.Key == "" {
		return
	}
	o := c.g.owners[e.msg.Key]
	if o == nil {
		o = &owner{c: c}
		c.g.owners[e.msg.Key] = o
	}
	o.n++
}

func (c *consumer) unhold(e *entry) {
	delete(c.held, e)
	o := c.g.owners[e.msg.Key]
	if o == nil {
		return
	}
	if o.n--; o.n == 0 {
		delete(c.g.owners, e.msg.Key)
		c.g.changed() // another consumer may go on with the key
	}
}

func (c *consumer) requeue(e *entry) {
	i, _ := slices.BinarySearchFunc(c.g.queue, e.seq, func(q *entry, seq uint64) int {
		if q.seq < seq {
			return -1
		}
		return 1
	})
	c.g.queue = slices.Insert(c.g.queue, i, e)
	c.g.changed()
}

func (c *consumer) Settle(_ context.Context, r *messaging.Received, s messaging.Settlement) error {
	e, _ := r.Token.(*entry)
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if _, ok := c.held[e]; !ok {
		return errNotHeld
	}
	switch s.Verdict {
	case messaging.Nack, messaging.Return:
		if s.Verdict == messaging.Return {
			e.delivered--
		}
		if s.Delay > 0 {
			e.due = time.Now().Add(s.Delay)
		}
		c.requeue(e)
	}
	c.unhold(e)
	return nil
}

func (c *consumer) Extend(context.Context, []*messaging.Received) error { return nil }

func (c *consumer) Lease() time.Duration { return 0 }

func (c *consumer) Stop(context.Context) ([]*messaging.Received, error) { return nil, nil }

// Close gives back what was not settled: its handlers did not return in time.
func (c *consumer) Close(context.Context) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	for e := range c.held {
		c.requeue(e)
		c.unhold(e)
	}
	return nil
}
