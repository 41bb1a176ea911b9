package armature

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/otelresilience"
	"github.com/armature-go/armature/transport/grpcx"
)

// Defaults of [StandardPolicy].
const (
	DefaultCallTimeout    = 30 * time.Second // over all attempts and the waits between them
	DefaultAttemptTimeout = 15 * time.Second
	DefaultAttempts       = 3
	DefaultInFlight       = 256 // calls at once to one service, and as many that wait a second for their turn
)

// How long the breaker of a dialled service stays open, at first and at most. A
// neighbour that is started again is back within a moment, so the first pause is
// short; one that stays away is asked ever less often.
const (
	breakerFirst = 250 * time.Millisecond
	breakerLast  = 5 * time.Second
)

// DialOption adjusts one [Service.Dial].
type DialOption func(*dialing)

type dialing struct {
	standard  StandardConfig
	policy    resilience.Policy
	custom    bool
	options   []grpc.DialOption
	intercept []grpc.UnaryClientInterceptor
}

// WithStandard changes the numbers of the standard policy.
func WithStandard(cfg StandardConfig) DialOption {
	return func(d *dialing) { d.standard = cfg }
}

// WithPolicy replaces the standard policy; nil means one attempt, unprotected. It is
// shown on /metrics by [Service.ShowPolicies] only.
func WithPolicy(p resilience.Policy) DialOption {
	return func(d *dialing) { d.policy, d.custom = p, true }
}

// WithIntercept adds interceptors that see each attempt as it goes out, innermost.
func WithIntercept(interceptors ...grpc.UnaryClientInterceptor) DialOption {
	return func(d *dialing) { d.intercept = append(d.intercept, interceptors...) }
}

// WithDialOptions passes options on to gRPC, credentials for instance.
func WithDialOptions(options ...grpc.DialOption) DialOption {
	return func(d *dialing) { d.options = append(d.options, options...) }
}

// Dial returns a connection to another service: its name, looked up with
// Config.Resolver, or host:port. It does not wait for the other side; the first
// call connects. Calls are protected by the [StandardPolicy], deal themselves out
// to all instances, and carry trace, correlation and deadline. The connection is
// closed when the service stops; do not close it earlier. Each name is dialled
// once: a second Dial of it is an error, because two connections would be two
// breakers.
func (s *Service) Dial(name string, opts ...DialOption) (*grpc.ClientConn, error) {
	d := dialing{}
	for _, opt := range opts {
		opt(&d)
	}
	cc, err := s.dial(name, d)
	if err != nil {
		return nil, fmt.Errorf("armature: dial %s from %s: %w", name, s.cfg.Name, err)
	}
	return cc, nil
}

func (s *Service) dial(name string, d dialing) (*grpc.ClientConn, error) {
	target := name
	if !strings.Contains(name, ":") {
		if s.cfg.Resolver == nil {
			return nil, errors.New("Config.Resolver is nil: set one to find services by name, or dial host:port")
		}
		target = grpcx.Scheme + ":///" + name
	}
	policy := d.policy
	if !d.custom {
		d.standard.Name = name
		d.standard.Logger = s.Logger
		var err error
		if policy, err = StandardPolicy(d.standard); err == nil {
			err = s.ShowPolicies(policy)
		}
		if err != nil {
			return nil, err
		}
	}
	cc, err := grpcx.NewClient(grpcx.ClientConfig{
		Target: target, Resolver: s.cfg.Resolver, Policy: policy,
		TracerProvider: s.TracerProvider, Logger: s.Logger,
		Options: d.options, Intercept: d.intercept,
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase() >= phaseDraining {
		return nil, errors.Join(fmt.Errorf("the service is %s", s.phase()), cc.Close())
	}
	s.conns = append(s.conns, cc)
	return cc, nil
}

// StandardConfig describes a [StandardPolicy]. Only Name is required.
type StandardConfig struct {
	Name     string        // of the callee, for errors, logs and metrics
	Timeout  time.Duration // over everything; default 30 s
	Attempt  time.Duration // of one attempt; default 15 s
	Attempts int           // the first included; default 3
	InFlight int           // calls at once; default 256

	// Repeatable says that every call through the policy may be made twice, as
	// reads may. Without it a call is repeated only when the callee certainly did
	// not see it, or can tell a repetition by the idempotency key it carries.
	Repeatable bool

	Logger *slog.Logger // told when the breaker changes state and when retries give up; nil is silent
}

// StandardPolicy is what a call to another service needs by default, from the
// outside in: a timeout over everything, retries within a budget of one for five
// calls and ten a second beside, a circuit breaker that opens when half of at least
// 20 calls within 10 s failed, a bulkhead so that one slow callee does not take all of
// the process, and a timeout for each attempt. What they do becomes events of the span
// in the context. [Service.ShowPolicies] puts them on /metrics.
func StandardPolicy(cfg StandardConfig) (resilience.Policy, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultCallTimeout
	}
	if cfg.Attempt == 0 {
		cfg.Attempt = min(DefaultAttemptTimeout, cfg.Timeout)
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.InFlight == 0 {
		cfg.InFlight = DefaultInFlight
	}
	observer := resilience.Observers(resilience.LogEvents(cfg.Logger), otelresilience.SpanEvents())
	total, err := resilience.NewTimeout(cfg.Timeout)
	if err != nil {
		return nil, err
	}
	attempt, err := resilience.NewTimeout(cfg.Attempt)
	if err != nil {
		return nil, err
	}
	budget, err := resilience.NewBudget(resilience.BudgetConfig{Name: cfg.Name})
	if err != nil {
		return nil, err
	}
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name: cfg.Name, MaxAttempts: cfg.Attempts, Budget: budget, Observer: observer,
		Retryable: func(ctx context.Context, err error) bool {
			return resilience.Retryable(ctx, err) && (cfg.Repeatable || harmless(ctx, err))
		},
	})
	if err != nil {
		return nil, err
	}
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
		Name: cfg.Name, Observer: observer, OpenFor: resilience.OpenBackoff(breakerFirst, breakerLast),
	})
	if err != nil {
		return nil, err
	}
	bulkhead, err := resilience.NewBulkhead(resilience.BulkheadConfig{
		Name: cfg.Name, Max: cfg.InFlight, Queue: cfg.InFlight, MaxWait: time.Second, Observer: observer,
	})
	if err != nil {
		return nil, err
	}
	return resilience.Chain(total.With(cfg.Name, observer), retry, breaker, bulkhead, attempt.With(cfg.Name+" attempt", observer)), nil
}

// harmless reports whether repeating a failed call cannot double its effect.
func harmless(ctx context.Context, err error) bool {
	var e interface{ NotExecuted() bool }
	if errors.As(err, &e) && e.NotExecuted() {
		return true
	}
	return flow.OutgoingIdempotencyKey(ctx) != ""
}
