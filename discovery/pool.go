package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A failed dial is tried again after a random part of a delay that doubles from
// the first to the second.
const (
	redialFirst = 100 * time.Millisecond
	redialMax   = 5 * time.Second
)

// errUnresolved is the cause given when the watch ended before it said anything.
var errUnresolved = errors.New("the resolver ended its watch without an answer")

// PoolConfig says what a Pool balances over. All fields are required.
type PoolConfig[T any] struct {
	Resolver Resolver // where instances come from
	Service  string   // which service

	// Dial connects to an instance. The pool calls it in a goroutine of its own
	// per instance, with a ctx that ends when the instance leaves or the pool is
	// closed, and again after a delay when it fails. The returned function closes
	// the connection; nil when there is nothing to close.
	Dial func(ctx context.Context, in Instance) (T, func() error, error)
}

// Pool keeps one connection per instance of a service and deals them out in turn
// (round robin over passing instances that are connected). It is safe for
// concurrent use. A pick with something ready takes no lock and allocates
// nothing.
type Pool[T any] struct {
	cfg    PoolConfig[T]
	cancel context.CancelFunc
	next   atomic.Uint64
	view   atomic.Pointer[view[T]]
	work   sync.WaitGroup // the watch, the dials and the open connections
	closed chan struct{}  // closed when everything of work has ended

	mu      sync.Mutex
	closing bool
	snap    Snapshot
	known   bool // a snapshot has arrived, or none ever will
	peers   map[string]*peer[T]
	errs    []error // what closing connections said since Close began
}

// view is what a pick needs, rebuilt with every change.
type view[T any] struct {
	ready   []*peer[T]
	waiting bool          // a first answer of the resolver or of a dial is due
	changed chan struct{} // closed when the next view is in place
	err     error         // why nothing is ready
}

// peer is one instance with its connection. refs counts the pool's own hold and
// every lease; whoever takes it to zero closes the connection.
type peer[T any] struct {
	pool   *Pool[T]
	refs   atomic.Int64
	cancel context.CancelFunc // ends the dialling

	// Written once before the peer becomes ready, read afterwards.
	value T
	close func() error

	in atomic.Pointer[Instance]

	// Guarded by the pool's mu.
	connected bool
	err       error // the last failure to dial
}

// NewPool starts to watch and to dial. Close ends it. The error names the missing
// field.
func NewPool[T any](cfg PoolConfig[T]) (*Pool[T], error) {
	switch {
	case cfg.Resolver == nil:
		return nil, errors.New("discovery: new pool: Resolver is nil: give one, such as a static.Registry")
	case cfg.Service == "":
		return nil, errors.New("discovery: new pool: Service is empty: name the service to watch")
	case cfg.Dial == nil:
		return nil, fmt.Errorf("discovery: new pool of %s: Dial is nil: give the function that connects to an instance", cfg.Service)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool[T]{
		cfg:    cfg,
		cancel: cancel,
		closed: make(chan struct{}),
		peers:  make(map[string]*peer[T]),
	}
	p.view.Store(&view[T]{waiting: true, changed: make(chan struct{})})
	p.work.Add(1)
	go p.watch(ctx)
	return p, nil
}

// PickOptions narrow a pick. The zero value takes the next instance in turn.
type PickOptions struct {
	// Exclude holds the instances to avoid; the picked one is added. It is a
	// preference: when nothing else is passing, an excluded instance is picked
	// again. When nil, the set of [WithExclude] in ctx is used.
	Exclude *ExcludeSet
}

// Lease is the use of one connection for one call. Done must be called exactly
// once; until then the connection stays open, even when its instance has left.
type Lease[T any] struct {
	peer *peer[T]
	in   *Instance
}

// Value returns the connection.
func (l Lease[T]) Value() T { return l.peer.value }

// Instance returns the instance as it was known at the pick.
func (l Lease[T]) Instance() Instance { return *l.in }

// Done gives the connection back. err is the outcome of the call, nil for
// success; round robin does not weigh it. A second Done of the same lease
// panics when the pool can tell, like a negative sync.WaitGroup.
func (l Lease[T]) Done(err error) {
	_ = err
	l.peer.release()
}

// Pick leases the next connection in turn. With none ready it waits, until ctx
// ends, for a first answer that is still due (the first snapshot, the first dial
// of an instance); otherwise it fails at once with a *NoInstanceError. After
// Close it returns [ErrClosed].
func (p *Pool[T]) Pick(ctx context.Context, o PickOptions) (Lease[T], error) {
	exclude := o.Exclude
	if exclude == nil {
		exclude = ExcludeFrom(ctx)
	}
	for {
		v := p.view.Load()
		if lease, ok := p.take(v, exclude); ok {
			exclude.Add(lease.in.ID)
			return lease, nil
		}
		if len(v.ready) > 0 {
			continue // all of them left meanwhile, after the next view was in place
		}
		if !v.waiting {
			return Lease[T]{}, v.err
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return Lease[T]{}, fmt.Errorf("discovery: pick %s: wait for an instance: %w", p.cfg.Service, ctx.Err())
		}
	}
}

// take walks once around from the next place: first past the excluded ones, then
// over anyone.
func (p *Pool[T]) take(v *view[T], exclude *ExcludeSet) (Lease[T], bool) {
	n := uint64(len(v.ready))
	if n == 0 {
		return Lease[T]{}, false
	}
	start := p.next.Add(1) - 1
	picky := exclude.Len() > 0
	for {
		for i := range n {
			pe := v.ready[(start+i)%n]
			if picky && exclude.Has(pe.in.Load().ID) {
				continue
			}
			if pe.acquire() {
				return Lease[T]{peer: pe, in: pe.in.Load()}, true
			}
		}
		if !picky {
			return Lease[T]{}, false
		}
		picky = false
	}
}

// Snapshot returns the last state of the service that arrived.
func (p *Pool[T]) Snapshot() Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snap
}

// Close stops the watch, refuses new picks, and waits until every lease is done
// and every connection is closed. It returns what closing them said. Further
// calls wait for the same and return the same.
func (p *Pool[T]) Close() error {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	var retired []*peer[T]
	if first {
		retired = p.retireAll()
		p.rebuild()
	}
	p.mu.Unlock()
	if first {
		p.cancel()
		for _, pe := range retired {
			pe.release()
		}
		p.work.Wait()
		close(p.closed)
	}
	<-p.closed
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.errs...)
}

func (p *Pool[T]) watch(ctx context.Context) {
	defer p.work.Done()
	for snap := range p.cfg.Resolver.Watch(ctx, p.cfg.Service) {
		p.apply(ctx, snap)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known && !p.closing {
		p.known, p.snap.Err = true, errUnresolved
		p.rebuild()
	}
}

// apply brings the peers in line with a snapshot: those with the same ID and
// target stay as they are, the others come and go.
func (p *Pool[T]) apply(ctx context.Context, snap Snapshot) {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return
	}
	p.snap, p.known = snap, true
	var retired []*peer[T]
	listed := make(map[string]bool, len(snap.Instances))
	for i := range snap.Instances {
		in := &snap.Instances[i]
		listed[in.ID] = true
		pe := p.peers[in.ID]
		if pe != nil && pe.in.Load().sameTarget(*in) {
			pe.in.Store(in)
			continue
		}
		if pe != nil {
			retired = append(retired, pe)
			delete(p.peers, in.ID)
		}
		if in.Health == Passing {
			p.peers[in.ID] = p.start(ctx, in)
		}
	}
	for id, pe := range p.peers {
		if !listed[id] {
			retired = append(retired, pe)
			delete(p.peers, id)
		}
	}
	p.rebuild()
	p.mu.Unlock()
	for _, pe := range retired {
		pe.cancel()
		pe.release()
	}
}

// start creates the peer of an instance and dials it; the caller holds mu.
func (p *Pool[T]) start(ctx context.Context, in *Instance) *peer[T] {
	ctx, cancel := context.WithCancel(ctx)
	pe := &peer[T]{pool: p, cancel: cancel}
	pe.in.Store(in)
	pe.refs.Store(2) // the pool's and the dial's
	p.work.Add(2)    // the dial, and the peer until it is closed
	go p.dial(ctx, pe)
	return pe
}

func (p *Pool[T]) dial(ctx context.Context, pe *peer[T]) {
	defer p.work.Done()
	defer pe.release()
	for delay := redialFirst; ctx.Err() == nil; delay = min(2*delay, redialMax) {
		value, closer, err := p.cfg.Dial(ctx, *pe.in.Load())
		if err == nil {
			p.mu.Lock()
			pe.value, pe.close, pe.connected, pe.err = value, closer, true, nil
			p.rebuild()
			p.mu.Unlock()
			return
		}
		p.mu.Lock()
		pe.err = err
		p.rebuild()
		p.mu.Unlock()
		pause(ctx, delay/2+rand.N(delay/2))
	}
}

// rebuild publishes what can be picked; the caller holds mu.
func (p *Pool[T]) rebuild() {
	v := &view[T]{changed: make(chan struct{}), waiting: !p.known}
	lastErr := p.snap.Err
	for _, in := range p.snap.Instances {
		pe := p.peers[in.ID]
		if pe == nil || in.Health != Passing {
			continue
		}
		switch {
		case pe.connected:
			v.ready = append(v.ready, pe)
		case pe.err != nil:
			lastErr = pe.err
		default:
			v.waiting = true
		}
	}
	v.err = &NoInstanceError{Service: p.cfg.Service, Known: len(p.snap.Instances), Err: lastErr}
	if p.closing {
		v.ready, v.waiting, v.err = nil, false, fmt.Errorf("discovery: pick %s: %w", p.cfg.Service, ErrClosed)
	}
	old := p.view.Swap(v)
	close(old.changed)
}

// retireAll takes every peer out and stops its dialling; the caller holds mu and
// releases them afterwards.
func (p *Pool[T]) retireAll() []*peer[T] {
	var retired []*peer[T]
	for id, pe := range p.peers {
		pe.cancel()
		retired = append(retired, pe)
		delete(p.peers, id)
	}
	return retired
}

// acquire takes a hold unless the connection is already being closed.
func (pe *peer[T]) acquire() bool {
	for {
		n := pe.refs.Load()
		if n <= 0 {
			return false
		}
		if pe.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (pe *peer[T]) release() {
	n := pe.refs.Add(-1)
	if n < 0 {
		panic("discovery: a lease of " + pe.in.Load().ID + " was done twice")
	}
	if n > 0 {
		return
	}
	defer pe.pool.work.Done()
	pe.cancel()
	if pe.close == nil {
		return
	}
	if err := pe.close(); err != nil {
		pe.pool.closeFailed(pe.in.Load().ID, err)
	}
}

func (p *Pool[T]) closeFailed(id string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		p.errs = append(p.errs, fmt.Errorf("discovery: close connection to %s: %w", id, err))
	}
}
