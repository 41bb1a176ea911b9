package resilience

import (
	"context"
	"runtime/debug"
	"sync"
)

// SingleFlight runs a function once for all callers that ask for the same key at
// the same time. Safe for concurrent use.
//
// The result is shared: all callers get the same T, so what it points to must not
// be modified.
//
// The function runs on a goroutine of its own, because no caller is bound to stay:
// one whose context ends leaves with the context's error and the others go on.
// When the last one leaves, the function's context is cancelled and the next caller
// starts afresh. That context carries the values of the first caller's, but neither
// its deadline nor its cancellation.
type SingleFlight[K comparable, T any] struct {
	fn func(context.Context, K) (T, error)

	mu      sync.Mutex
	flights map[K]*flight[T]
	stats   SingleFlightStats
}

// SingleFlightStats is a moment's view of a [SingleFlight].
type SingleFlightStats struct {
	Running   int    // executions under way that somebody waits for
	Started   uint64 // executions started so far
	Shared    uint64 // callers that joined an execution under way
	Abandoned uint64 // executions cancelled because everybody had left
}

type flight[T any] struct {
	cancel  context.CancelFunc
	waiting int // under the lock of the SingleFlight

	// The outcome belongs to the execution until done is closed.
	done   chan struct{}
	result T
	err    error
	panic  *PanicError
}

// NewSingleFlight returns a decorator of fn, which must not be nil. fn should
// return soon after its context ends.
func NewSingleFlight[K comparable, T any](fn func(context.Context, K) (T, error)) (*SingleFlight[K, T], error) {
	if fn == nil {
		return nil, configError("single-flight", "", "fn", "nil", "is required", "name the function to run")
	}
	return &SingleFlight[K, T]{fn: fn, flights: map[K]*flight[T]{}}, nil
}

// Do runs the function for key, or waits for the execution under way, and returns
// its result. Once ctx is done it starts and joins nothing. A panic of the function
// is raised again in every caller, as a *[PanicError], and dropped if all have
// left; [runtime.Goexit] in it is an error to them.
func (s *SingleFlight[K, T]) Do(ctx context.Context, key K) (T, error) {
	if err := ctx.Err(); err != nil {
		var zero T
		return zero, err
	}
	s.mu.Lock()
	f, joined := s.flights[key]
	if joined {
		s.stats.Shared++
	} else {
		f = &flight[T]{done: make(chan struct{}), err: errNoReturn}
		s.flights[key] = f
		s.stats.Started++
		var flightCtx context.Context
		flightCtx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go s.fly(flightCtx, key, f)
	}
	f.waiting++
	s.mu.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
		if s.left(key, f) {
			var zero T
			return zero, ctx.Err()
		}
	}
	if f.panic != nil {
		panic(f.panic)
	}
	return f.result, f.err
}

// Bind returns Do for one key, in the shape that [Wrap] and [Call] take.
func (s *SingleFlight[K, T]) Bind(key K) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) { return s.Do(ctx, key) }
}

// Forget makes the next caller start afresh, even while an execution is under way;
// those who wait for that one still get its result.
func (s *SingleFlight[K, T]) Forget(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, key)
}

// Stats returns a view of the moment.
func (s *SingleFlight[K, T]) Stats() SingleFlightStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Running = len(s.flights)
	return stats
}

func (s *SingleFlight[K, T]) fly(ctx context.Context, key K, f *flight[T]) {
	returned := false
	defer func() {
		if !returned {
			// recover returns nil for Goexit alone: a panic(nil) has a value since Go 1.21.
			if v := recover(); v != nil {
				f.panic = &PanicError{Value: v, Stack: debug.Stack()}
			}
		}
		s.land(key, f)
		f.cancel()
	}()
	f.result, f.err = s.fn(ctx, key)
	returned = true
}

// land publishes the outcome. Whoever comes later starts afresh.
func (s *SingleFlight[K, T]) land(key K, f *flight[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[key] == f {
		delete(s.flights, key)
	}
	close(f.done)
}

// left takes out a caller whose context has ended, and with the last one the
// execution. It reports false if the outcome is there after all.
func (s *SingleFlight[K, T]) left(key K, f *flight[T]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-f.done:
		return false
	default:
	}
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		s.stats.Abandoned++
		if s.flights[key] == f {
			delete(s.flights, key)
		}
	}
	return true
}
