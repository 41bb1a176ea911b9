package static

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/armature-go/armature/discovery"
)

// ErrRegistered says that the service already has an instance with that ID.
var ErrRegistered = errors.New("static: instance is already registered")

// Config is how a Registry starts. The zero value is an empty registry.
type Config struct {
	Instances []discovery.Instance // known from the start and for good
}

// Registry keeps the instances of this process. It is a [discovery.Registrar]
// and a [discovery.Resolver], safe for concurrent use. A change costs a copy of
// the service's instances; a watcher costs a goroutine of its own only if it
// brings one.
type Registry struct {
	mu       sync.Mutex
	services map[string]*service
}

var (
	_ discovery.Registrar = (*Registry)(nil)
	_ discovery.Resolver  = (*Registry)(nil)
)

// service is the state of one name. changed is closed and replaced with every
// new snapshot.
type service struct {
	snap    discovery.Snapshot
	changed chan struct{}
}

// New returns a Registry that knows cfg.Instances. It fails when one of them is
// not valid or when two have the same service and ID.
func New(cfg Config) (*Registry, error) {
	r := &Registry{services: make(map[string]*service)}
	for i, in := range cfg.Instances {
		in, err := in.Normalize()
		if err == nil {
			err = r.add(in)
		}
		if err != nil {
			return nil, fmt.Errorf("static: read Config.Instances[%d]: %w", i, err)
		}
	}
	return r, nil
}

// Register adds an instance. It fails with [ErrRegistered] when its service has
// one with the same ID; the earlier one has to be drained first.
func (r *Registry) Register(ctx context.Context, in discovery.Instance) (*discovery.Registration, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("static: register %s: %w", in.Service, context.Cause(ctx))
	}
	in, err := in.Normalize()
	if err != nil {
		return nil, fmt.Errorf("static: register %s: %w", in.Service, err)
	}
	if err := r.add(in); err != nil {
		return nil, err
	}
	return discovery.NewRegistration(in, &entry{registry: r, service: in.Service, id: in.ID}), nil
}

// Watch yields the instances of a service now and after every change, until ctx
// ends.
func (r *Registry) Watch(ctx context.Context, name string) iter.Seq[discovery.Snapshot] {
	return func(yield func(discovery.Snapshot) bool) {
		for ctx.Err() == nil {
			snap, changed := r.look(name)
			if !yield(snap) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// Services returns the current snapshot of every name that was ever registered
// or watched, including those without instances.
func (r *Registry) Services() map[string]discovery.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]discovery.Snapshot, len(r.services))
	for name, s := range r.services {
		all[name] = s.snap
	}
	return all
}

func (r *Registry) look(name string) (discovery.Snapshot, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(name)
	return s.snap, s.changed
}

// service returns the state of a name; the caller holds mu.
func (r *Registry) service(name string) *service {
	s := r.services[name]
	if s == nil {
		s = &service{snap: discovery.NewSnapshot(1), changed: make(chan struct{})}
		r.services[name] = s
	}
	return s
}

func (r *Registry) add(in discovery.Instance) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.service(in.Service)
	for _, other := range s.snap.Instances {
		if other.ID == in.ID {
			return fmt.Errorf("static: register %s of %s: %w: drain it first or choose another ID", in.ID, in.Service, ErrRegistered)
		}
	}
	s.publish(append(s.others(in.ID), in))
	return nil
}

// others returns a fresh slice of all instances but one.
func (s *service) others(id string) []discovery.Instance {
	rest := make([]discovery.Instance, 0, len(s.snap.Instances)+1)
	for _, in := range s.snap.Instances {
		if in.ID != id {
			rest = append(rest, in)
		}
	}
	return rest
}

// publish wakes the watchers when something is different.
func (s *service) publish(instances []discovery.Instance) {
	next := discovery.NewSnapshot(s.snap.Rev+1, instances...)
	if next.Equal(s.snap) {
		return
	}
	s.snap = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// entry is one registration's row.
type entry struct {
	registry    *Registry
	service, id string
}

// Put replaces the row.
func (e *entry) Put(_ context.Context, in discovery.Instance) error {
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	s := e.registry.service(e.service)
	s.publish(append(s.others(e.id), in))
	return nil
}

// Remove deletes the row.
func (e *entry) Remove(context.Context) error {
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	s := e.registry.service(e.service)
	s.publish(s.others(e.id))
	return nil
}
