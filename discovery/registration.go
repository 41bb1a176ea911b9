package discovery

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// deregisterWait bounds the farewell of a Drain whose own context has ended: the
// entry must still leave the registry, or callers would go on knocking.
const deregisterWait = 5 * time.Second

// State is where a Registration is in its life.
type State uint8

// The states of a Registration, in order.
const (
	Active   State = iota // known to the registry
	Leaving               // marked as draining, still known
	Departed              // no longer known
)

// String returns "active", "leaving" or "departed".
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Leaving:
		return "leaving"
	case Departed:
		return "departed"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Entry is the side of a [Registration] that a registry implements: one row that
// it can rewrite and remove. Calls come one at a time. Remove of an entry that is
// gone succeeds.
type Entry interface {
	Put(ctx context.Context, in Instance) error
	Remove(ctx context.Context) error
}

// Registration is one instance's presence in a registry. It is safe for
// concurrent use.
type Registration struct {
	turn  chan struct{} // one token: who holds it talks to the registry
	drain chan struct{} // the same for Drain, so that a grace blocks no Update
	done  chan struct{}
	entry Entry

	mu    sync.Mutex
	in    Instance
	state State
}

// NewRegistration wraps an entry that the registry has already accepted. It is
// meant for writers of a [Registrar]; in must be normal (see
// [Instance.Normalize]).
func NewRegistration(in Instance, entry Entry) *Registration {
	r := &Registration{
		turn:  make(chan struct{}, 1),
		drain: make(chan struct{}, 1),
		done:  make(chan struct{}),
		entry: entry,
		in:    in,
	}
	r.turn <- struct{}{}
	r.drain <- struct{}{}
	return r
}

// Instance returns what is registered now.
func (r *Registration) Instance() Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in
}

// State returns where the registration is in its life.
func (r *Registration) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Done is closed when the instance has left the registry.
func (r *Registration) Done() <-chan struct{} { return r.done }

// Update replaces everything about the instance except ID and Service, which
// stay (empty ones in the argument are fine, different ones are an error). A
// draining instance stays draining whatever Health says. After the instance has
// left it returns [ErrDeregistered].
func (r *Registration) Update(ctx context.Context, in Instance) error {
	if err := acquire(ctx, r.turn); err != nil {
		return fmt.Errorf("discovery: update %s: %w", r.Instance().ID, err)
	}
	defer release(r.turn)
	r.mu.Lock()
	was, state := r.in, r.state
	r.mu.Unlock()
	if state == Departed {
		return fmt.Errorf("discovery: update %s: %w", was.ID, ErrDeregistered)
	}
	if in.ID == "" {
		in.ID = was.ID
	}
	if in.Service == "" {
		in.Service = was.Service
	}
	if in.ID != was.ID || in.Service != was.Service {
		return fmt.Errorf("discovery: update %s of %s: ID %q and Service %q cannot change: register another instance", was.ID, was.Service, in.ID, in.Service)
	}
	in, err := in.Normalize()
	if err != nil {
		return err
	}
	if state == Leaving {
		in.Health = Draining
	}
	if err := r.entry.Put(ctx, in); err != nil {
		return fmt.Errorf("discovery: update %s: %w", in.ID, err)
	}
	r.mu.Lock()
	r.in = in
	r.mu.Unlock()
	return nil
}

// Drain takes the instance out of service: it marks it as Draining, waits for
// grace so that callers can hear of it, and deregisters it. A grace of zero or
// less does not wait. When ctx ends, the rest of the grace is skipped and the
// instance is deregistered all the same, which may take 5 seconds more.
//
// It returns nil when the instance has left, at once when it had left before. A
// call during another Drain waits for it. After an error the registration is
// still Leaving and Drain may be called again.
func (r *Registration) Drain(ctx context.Context, grace time.Duration) error {
	if r.State() == Departed {
		return nil
	}
	if err := acquire(ctx, r.drain); err != nil {
		return fmt.Errorf("discovery: drain %s: %w", r.Instance().ID, err)
	}
	defer release(r.drain)
	if r.State() == Departed {
		return nil
	}
	markErr := r.mark(ctx)
	pause(ctx, grace)
	if err := r.remove(ctx); err != nil {
		return errors.Join(err, markErr)
	}
	return nil
}

// mark moves the registration to Leaving even when the registry does not hear of
// it: the removal that follows is what counts.
func (r *Registration) mark(ctx context.Context) error {
	ctx, cancel := lastWord(ctx)
	defer cancel()
	if err := acquire(ctx, r.turn); err != nil {
		return fmt.Errorf("discovery: mark %s as draining: %w", r.Instance().ID, err)
	}
	defer release(r.turn)
	r.mu.Lock()
	in := r.in
	in.Health = Draining
	r.in, r.state = in, Leaving
	r.mu.Unlock()
	if err := r.entry.Put(ctx, in); err != nil {
		return fmt.Errorf("discovery: mark %s as draining: %w", in.ID, err)
	}
	return nil
}

func (r *Registration) remove(ctx context.Context) error {
	ctx, cancel := lastWord(ctx)
	defer cancel()
	id := r.Instance().ID
	if err := acquire(ctx, r.turn); err != nil {
		return fmt.Errorf("discovery: deregister %s: %w", id, err)
	}
	defer release(r.turn)
	if err := r.entry.Remove(ctx); err != nil {
		return fmt.Errorf("discovery: deregister %s: %w", id, err)
	}
	r.mu.Lock()
	r.state = Departed
	r.mu.Unlock()
	close(r.done)
	return nil
}

// lastWord gives a finished context a little more time and leaves a live one as
// it is.
func lastWord(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), deregisterWait)
}

// acquire prefers a free token to an ended context: a Drain whose time is over
// must still deregister.
func acquire(ctx context.Context, token chan struct{}) error {
	select {
	case <-token:
		return nil
	default:
	}
	select {
	case <-token:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func release(token chan struct{}) { token <- struct{}{} }

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
