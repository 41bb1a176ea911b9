package grpcx

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/resolver"

	"github.com/armature-go/armature/discovery"
)

// Scheme is that of targets which a discovery.Resolver looks up:
// "armature:///order".
const Scheme = "armature"

var errNoAnswer = errors.New("the resolver ended its watch without an answer")

// follower feeds one connection with the instances of its service. It is the
// builder of its connection alone, so nothing is registered globally.
type follower struct {
	discovery discovery.Resolver
	service   string
	log       *slog.Logger
	missing   atomic.Pointer[discovery.NoInstanceError] // nil while there is an instance
}

// Scheme returns "armature".
func (f *follower) Scheme() string { return Scheme }

// Build starts to follow; gRPC calls it again when a connection wakes from
// idleness.
func (f *follower) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &following{cancel: cancel}
	w.done.Go(func() { f.follow(ctx, cc) })
	return w, nil
}

func (f *follower) follow(ctx context.Context, cc resolver.ClientConn) {
	heard := false
	for snap := range f.discovery.Watch(ctx, f.service) {
		heard = true
		f.update(ctx, cc, snap)
	}
	if !heard && ctx.Err() == nil {
		missing := &discovery.NoInstanceError{Service: f.service, Err: errNoAnswer}
		f.missing.Store(missing)
		cc.ReportError(missing)
	}
}

func (f *follower) update(ctx context.Context, cc resolver.ClientConn, snap discovery.Snapshot) {
	var state resolver.State
	for _, in := range snap.Instances {
		if in.Health == discovery.Passing {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: in.Addr}}})
		}
	}
	var missing *discovery.NoInstanceError
	if len(state.Endpoints) == 0 {
		missing = &discovery.NoInstanceError{Service: f.service, Known: len(snap.Instances), Err: snap.Err}
	}
	f.missing.Store(missing)
	f.log.LogAttrs(ctx, slog.LevelInfo, "grpc instances", slog.String("target", f.service),
		slog.Int("passing", len(state.Endpoints)), slog.Int("known", len(snap.Instances)), slog.Bool("stale", snap.Stale))
	// The error says that a state without endpoints is bad and asks for another
	// look. Absence is a state here, and the watch looks anyway.
	_ = cc.UpdateState(state)
}

// following is one watch in progress.
type following struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// ResolveNow does nothing: the watch tells of every change by itself.
func (*following) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch and waits for it.
func (w *following) Close() {
	w.cancel()
	w.done.Wait()
}
