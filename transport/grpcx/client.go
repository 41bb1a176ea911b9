package grpcx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-kit/kit/endpoint"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/resilience"
)

// reconnect is for neighbours in one network, which are started again within a
// moment: gRPC's own default waits a second at first and two minutes at most.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// ClientConfig is what a connection is made of. Target is required, Resolver is
// for targets of the scheme "armature"; the rest has useful zero values.
type ClientConfig struct {
	Target   string             // "armature:///order", or "host:port", or any gRPC target
	Resolver discovery.Resolver // where the instances of armature:///... are

	// Policy is run around every unary call: retries, breaker, bulkhead, hedges, each
	// of which has a reply of its own. nil makes one attempt. Streams that it is to
	// protect get it by a StreamClient among Options. gRPC's own retries of a service config are off, so that nothing
	// multiplies them.
	Policy resilience.Policy

	// Middleware is go-kit's, around Policy; the first is outermost. The response
	// it sees is the message the caller has passed in.
	Middleware []endpoint.Middleware

	// Timeout bounds each attempt of a unary call made without a deadline. 0 means
	// 30 s, negative no bound.
	Timeout time.Duration

	TracerProvider trace.TracerProvider // nil makes no spans; the trace still goes through
	Logger         *slog.Logger         // told of instances that come and go; nil is silent

	// Options come after the client's own and win against them. Without transport
	// credentials among them the connection is not encrypted.
	Options []grpc.DialOption

	// Intercept sees each attempt of a unary call as it goes out, innermost.
	Intercept []grpc.UnaryClientInterceptor
}

// NewClient returns a connection that deals calls out in turn to all instances of
// its target. It connects with the first call; the caller closes it. Errors of
// calls are *transport.Error; those of the policy are their cause.
func NewClient(cfg ClientConfig) (*grpc.ClientConn, error) {
	follow, err := cfg.follower()
	if err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = noop.NewTracerProvider()
	}
	c := &client{
		policy:     cfg.Policy,
		middleware: cfg.Middleware,
		timeout:    cfg.Timeout,
		tracer:     cfg.TracerProvider.Tracer(scope),
		follow:     follow,
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(reconnect),
		grpc.WithChainUnaryInterceptor(append([]grpc.UnaryClientInterceptor{c.unary, c.attempt}, cfg.Intercept...)...),
		grpc.WithChainStreamInterceptor(c.stream),
	}
	if follow != nil {
		options = append(options, grpc.WithResolvers(follow))
	}
	cc, err := grpc.NewClient(cfg.Target, append(options, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("grpcx: new client of %s: %w", cfg.Target, err)
	}
	return cc, nil
}

// follower returns nil for targets of other schemes.
func (cfg ClientConfig) follower() (*follower, error) {
	if cfg.Target == "" {
		return nil, errors.New("grpcx: new client: Target is empty: give \"host:port\" or \"armature:///service\"")
	}
	service, ours := strings.CutPrefix(cfg.Target, Scheme+":")
	if !ours {
		return nil, nil
	}
	service, ok := strings.CutPrefix(service, "///")
	if !ok || service == "" || strings.ContainsAny(service, "/?#") {
		return nil, fmt.Errorf("grpcx: new client: Target %q must be %s:///service", cfg.Target, Scheme)
	}
	if cfg.Resolver == nil {
		return nil, fmt.Errorf("grpcx: new client: Resolver is nil: Target %q needs a discovery.Resolver", cfg.Target)
	}
	return &follower{discovery: cfg.Resolver, service: service, log: orSilent(cfg.Logger)}, nil
}

// client is what the interceptors of one connection share.
type client struct {
	policy     resilience.Policy
	middleware []endpoint.Middleware
	timeout    time.Duration
	tracer     trace.Tracer
	follow     *follower // nil when gRPC resolves the target
	methods    methods
}

// unary is the outer half, once per call: span, middleware, policy.
func (c *client) unary(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	m := c.methods.get(name)
	ctx, span := c.tracer.Start(ctx, m.span, trace.WithSpanKind(trace.SpanKindClient), m.attrs)
	next := func(ctx context.Context, req any) (any, error) {
		return reply, protect(ctx, c.policy, attempt{name: name, req: req, reply: reply, cc: cc, invoke: invoke, opts: opts})
	}
	for i := len(c.middleware) - 1; i >= 0; i-- {
		next = c.middleware[i](next)
	}
	_, err := next(discovery.WithExclude(ctx), req)
	err = verdict(err)
	finishClient(span, err)
	return err
}

// attempt is the inner half, once per attempt: deadline, metadata, errors.
func (c *client) attempt(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok && c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var callee peer.Peer // filled in once the call has a connection
	err := invoke(inject(ctx), name, req, reply, cc, append(opts[:len(opts):len(opts)], grpc.Peer(&callee))...)
	return c.translate(ctx, err, callee.Addr != nil)
}
