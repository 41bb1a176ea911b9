package resilience

import (
	"context"
	"errors"
	"sync/atomic"
)

// FallbackConfig describes a [Fallback].
type FallbackConfig struct {
	Name string // for events and Describe

	// Handle answers in place of a call that failed with err, for instance by
	// queueing the order for later. nil means that the call succeeded after all; an
	// error takes the place of err. It runs with the caller's ctx, which may be done
	// already, on the caller's goroutine. Required.
	Handle func(ctx context.Context, err error) error

	// When selects the errors to handle. Nil means all, unless the caller cancelled
	// ctx and nobody waits for an answer.
	When func(ctx context.Context, err error) bool

	// Observer, if not nil, is told when the fallback answered.
	Observer Observer
}

// FallbackStats counts what a [Fallback] did so far.
type FallbackStats struct {
	Answered uint64 // calls that Handle saved
	Failed   uint64 // calls for which Handle returned an error
}

// Fallback does something else when what is inside it fails. Safe for concurrent
// use if Handle and When are; a success costs nothing. A panic or Goexit of the
// operation passes through unhandled.
//
// Policies see no results, so after Handle returned nil a [Call] returns what the
// operation left, mostly the zero value. Where the answer is a value, use the
// option [OrElse] of Call instead: it is typed and stands outside every policy. A
// Fallback is for operations whose effect is what counts, and for a place between
// two policies: what it saved is a success for those further out.
type Fallback struct {
	cfg      FallbackConfig
	answered atomic.Uint64
	failed   atomic.Uint64
}

// NewFallback returns a fallback policy.
func NewFallback(cfg FallbackConfig) (*Fallback, error) {
	if cfg.Handle == nil {
		return nil, configError("fallback", cfg.Name, "Handle", "nil", "is required", "name what to do instead")
	}
	if cfg.When == nil {
		cfg.When = func(ctx context.Context, _ error) bool { return !errors.Is(ctx.Err(), context.Canceled) }
	}
	return &Fallback{cfg: cfg}, nil
}

// Run executes next and, if that fails with an error to handle, Handle.
func (f *Fallback) Run(ctx context.Context, next Next) error {
	err := next.Run(ctx)
	if err == nil || !f.cfg.When(ctx, err) {
		return err
	}
	if instead := f.cfg.Handle(ctx, err); instead != nil {
		f.failed.Add(1)
		return instead
	}
	f.answered.Add(1)
	if f.cfg.Observer != nil {
		f.cfg.Observer.On(ctx, Event{Kind: EventFallback, Policy: "fallback", Name: f.cfg.Name, Err: err})
	}
	return nil
}

// Name returns the name given in the configuration.
func (f *Fallback) Name() string { return f.cfg.Name }

// Stats returns the counters.
func (f *Fallback) Stats() FallbackStats {
	return FallbackStats{Answered: f.answered.Load(), Failed: f.failed.Load()}
}

// Describe reports the name.
func (f *Fallback) Describe() Description { return Description{Kind: "fallback", Name: f.cfg.Name} }
