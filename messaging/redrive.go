package messaging

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// Header names of a message that was redriven.
const (
	HeaderRedriveGroup = "redrivegroup" // the group it is for; other groups of the topic acknowledge it unseen
	HeaderRedriveOf    = "redriveof"    // HeaderDeadLast of the dead letter; brokers tell it from the first publication by it
)

const (
	redriveGroup = "armature-redrive"
	redriveIdle  = time.Second
)

// Redrive publishes the dead letters of a group to their topic again, oldest first and with their IDs, for that group
// alone. It returns how many when limit is reached (0 is no limit) or none was left for a second. Calls continue where
// the one before ended. A crash in between may redrive a dead letter twice.
func (b *Broker) Redrive(ctx context.Context, topic, group string, limit int) (n int, err error) {
	if err := checkNames(topic, group); err != nil {
		return 0, fmt.Errorf("messaging: redrive: %w", err)
	}
	type turn struct {
		d    *Delivery
		done chan error
	}
	turns := make(chan turn)
	over := make(chan struct{})
	s, err := b.Subscribe(ctx, DeadLetterTopic(topic, group), redriveGroup, func(_ context.Context, d *Delivery) error {
		t := turn{d, make(chan error, 1)}
		select {
		case turns <- t:
			return <-t.done
		case <-over:
			return Release
		}
	}, Concurrency(1), MaxInFlight(1), MaxAttempts(0))
	if err != nil {
		return 0, err
	}
	defer func() {
		close(over)
		if drainErr := s.Drain(ctx); err == nil {
			err = drainErr
		}
	}()
	for limit == 0 || n < limit {
		idle := time.NewTimer(redriveIdle)
		select {
		case t := <-turns:
			err := b.Publish(ctx, topic, revive(t.d.Message, group))
			t.done <- err
			if err != nil {
				return n, err
			}
			n++
		case <-idle.C:
			return n, nil
		case <-ctx.Done():
			return n, fmt.Errorf("messaging: redrive: %w", ctx.Err())
		}
		idle.Stop()
	}
	return n, nil
}

func revive(m *Message, group string) *Message {
	m = m.Clone()
	of := m.Header[HeaderDeadLast]
	stripDead(m.Header)
	m.Header[HeaderRedriveGroup] = group
	m.Header[HeaderRedriveOf] = of
	return m
}

// stripDead removes what dead letters and redrives add.
func stripDead(h Header) {
	maps.DeleteFunc(h, func(k, _ string) bool {
		switch k {
		case HeaderDeadTopic, HeaderDeadGroup, HeaderDeadAttempts, HeaderDeadErrors, HeaderDeadFirst, HeaderDeadLast, HeaderDeadHost, HeaderDeadStack,
			HeaderRedriveGroup, HeaderRedriveOf:
			return true
		}
		return false
	})
}
