package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/armature-go/armature/resilience"
)

// counts is what became of calls.
type counts struct {
	calls, ok, failed, open, full, limited int
	slowest                                time.Duration
}

func (c *counts) add(err error, took time.Duration) {
	c.calls++
	c.slowest = max(c.slowest, took)
	switch {
	case err == nil:
		c.ok++
	case errors.Is(err, resilience.ErrRateLimited):
		c.limited++
	case errors.Is(err, resilience.ErrOpen):
		c.open++
	case errors.Is(err, resilience.ErrFull):
		c.full++
	default:
		c.failed++
	}
}

// load calls the client at a steady pace.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	counts counts
}

func startLoad(ctx context.Context, c *client, every time.Duration) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	l.wg.Go(func() {
		pace := time.NewTicker(every)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
			l.wg.Go(func() {
				start := time.Now()
				_, err := c.price(ctx)
				if ctx.Err() != nil {
					return // the demonstration is over
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				l.counts.add(err, time.Since(start))
			})
		}
	})
	return l
}

// take returns the counts since it was called last.
func (l *load) take() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	l.counts = counts{}
	return c
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}
