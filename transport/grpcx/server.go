package grpcx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/resilience"
)

const (
	// scope names this package to tracer providers.
	scope = "github.com/armature-go/armature/transport/grpcx"

	defaultTimeout = 30 * time.Second

	maxMessage        = 4 << 20
	maxStreams        = 1000
	connectionTimeout = 20 * time.Second
	pingAllowed       = 10 * time.Second // as often as a client may ping
	pingAfter         = time.Minute      // silence before the server pings
	pingTimeout       = 20 * time.Second
	maxIdle           = 15 * time.Minute

	// abortWait is how long a Shutdown that ran out of time waits for handlers
	// whose connection was cut to notice.
	abortWait = time.Second
)

// Config is what a Server is made of. The zero value serves over a listener of
// one's own, without logs, traces and metrics.
type Config struct {
	Addr           string                // host:port for Listen; port 0 takes a free one
	Logger         *slog.Logger          // nil is silent
	TracerProvider trace.TracerProvider  // nil makes no spans; the trace still goes through
	Metrics        prometheus.Registerer // nil counts nothing

	// Middleware is go-kit's, around every unary method; the first is outermost.
	// Panics and errors in it are observed like those of the handler.
	Middleware []endpoint.Middleware

	// Policy sheds load from unary calls and streams before Middleware and handlers
	// cost anything; see UnaryServer. The health service does not count, as a busy
	// server is not a dead one. nil turns nobody away.
	Policy resilience.Policy

	// Timeout bounds a unary call whose caller sent no deadline. 0 means 30 s,
	// negative no bound.
	Timeout time.Duration

	// Reflection lets anyone who can connect list the services and their messages.
	Reflection bool

	// StreamWorkers is how many goroutines are kept for calls, so that their stacks
	// need not grow anew for each; as many as there are calls at a time, as a rule. A
	// call that finds none free gets a goroutine of its own. 0 keeps none. gRPC calls
	// the option behind it experimental.
	StreamWorkers uint32

	// Edge says that callers are strangers: of what they send, only correlation id,
	// idempotency key and trace context are believed, not who they are.
	Edge bool

	// Options come after the server's own and win against them. Interceptors among
	// them run inside the observation and inside Middleware.
	Options []grpc.ServerOption
}

// Server is a gRPC server for generated services. Its defaults: messages up to
// 4 MiB, 1000 calls at a time per connection, 20 s to complete a handshake, pings
// not more often than every 10 s, idle connections closed after 15 minutes.
//
// Services are registered before Listen or Serve. All other methods are safe for
// concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	tracer  trace.Tracer
	grpc    *grpc.Server
	health  *health.Server
	methods map[string]*method // complete before Serve, then only read
	stray   *method
	watches context.CancelFunc

	mu       sync.Mutex
	listener net.Listener // bound by Listen, not yet taken by Serve
	addr     string
	services []string
	closing  bool

	stopping sync.Once
	stopped  chan struct{}
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// NewServer returns a server with the health service registered and SERVING. It
// starts no goroutine. It fails when Metrics refuses the histogram.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = noop.NewTracerProvider()
	}
	handling, err := handlingSeconds(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		log:     orSilent(cfg.Logger),
		tracer:  cfg.TracerProvider.Tracer(scope),
		health:  health.NewServer(),
		methods: make(map[string]*method),
		stray:   newMethod("/"+unknown+"/"+unknown, handling),
		addr:    cfg.Addr,
		stopped: make(chan struct{}),
	}
	s.stray.handling = handling

	unary := []grpc.UnaryServerInterceptor{s.unary}
	stream := []grpc.StreamServerInterceptor{s.stream}
	if cfg.Policy != nil {
		unary = append(unary, unaryServer(cfg.Policy))
		stream = append(stream, StreamServer(cfg.Policy))
	}
	for _, mw := range cfg.Middleware {
		unary = append(unary, Interceptor(mw))
	}
	unary, stream = append(unary, executed), append(stream, executedStream)
	s.grpc = grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.NumStreamWorkers(cfg.StreamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAllowed, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout, MaxConnectionIdle: maxIdle}),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.UnknownServiceHandler(unimplemented),
	}, cfg.Options...)...)

	ctx, cancel := context.WithCancel(context.Background())
	s.watches = cancel
	s.RegisterService(&healthpb.Health_ServiceDesc, healthService{s.health, ctx})
	if cfg.Reflection {
		reflection.Register(s)
	}
	return s, nil
}

func orSilent(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func unimplemented(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	return status.Errorf(codes.Unimplemented, "no method %s", name)
}

// RegisterService adds a service, for the Register functions of generated code.
// It must not be called once the server serves.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	add := func(name string) {
		m := newMethod("/"+desc.ServiceName+"/"+name, s.stray.handling)
		m.quiet = desc.ServiceName == healthpb.Health_ServiceDesc.ServiceName
		s.methods[m.full] = m
	}
	for _, m := range desc.Methods {
		add(m.MethodName)
	}
	for _, st := range desc.Streams {
		add(st.StreamName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = append(s.services, desc.ServiceName)
	s.health.SetServingStatus(desc.ServiceName, healthpb.HealthCheckResponse_SERVING)
}

// GetServiceInfo lists the registered services, for reflection.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }

func (s *Server) method(full string) *method {
	if m := s.methods[full]; m != nil {
		return m
	}
	return s.stray
}

// Listen binds Config.Addr; ctx bounds the look-up of its host. From then on Addr
// is the real address, and callers that connect wait for Serve.
func (s *Server) Listen(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen(ctx)
}

func (s *Server) listen(ctx context.Context) error {
	switch {
	case s.cfg.Addr == "":
		return errors.New("grpcx: listen: Addr is empty: give host:port, such as \"127.0.0.1:9001\", or use ServeListener")
	case s.listener != nil:
		return fmt.Errorf("grpcx: listen on %s: already listening on %s", s.cfg.Addr, s.addr)
	case s.closing:
		return fmt.Errorf("grpcx: listen on %s: %w", s.cfg.Addr, grpc.ErrServerStopped)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("grpcx: listen on %s: %w", s.cfg.Addr, err)
	}
	s.listener, s.addr = l, l.Addr().String()
	return nil
}

// Addr returns the address that was bound, or Config.Addr before that.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Serve answers calls until Shutdown, then returns nil. Without a Listen before
// it, it listens itself.
func (s *Server) Serve() error {
	l, err := s.takeListener()
	if err != nil || l == nil {
		return err
	}
	return s.ServeListener(l)
}

// takeListener returns nil after Shutdown.
func (s *Server) takeListener() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, nil
	}
	if s.listener == nil {
		if err := s.listen(context.Background()); err != nil {
			return nil, err
		}
	}
	l := s.listener
	s.listener = nil
	return l, nil
}

// ServeListener is Serve on a listener of one's own, which it closes.
func (s *Server) ServeListener(l net.Listener) error {
	s.mu.Lock()
	s.addr = l.Addr().String()
	s.mu.Unlock()
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("grpcx: serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// SetServing sets what the health service says about the server and about each
// of its services. It does not keep calls from being served. After Drain it does
// nothing.
func (s *Server) SetServing(ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range append([]string{""}, s.services...) {
		s.health.SetServingStatus(name, servingStatus(ok))
	}
}

// Drain makes the health service say NOT_SERVING for good. Calls are served as
// before until Shutdown.
func (s *Server) Drain() { s.health.Shutdown() }

// Shutdown drains, stops listening, tells connected clients to go elsewhere, and
// waits until every accepted call has been answered. When ctx ends first, it cuts
// the connections and returns an error that wraps the context's; a handler that
// does not heed its own context for another second is left behind. Further calls
// wait for the same end.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Do(func() {
		s.Drain()
		s.watches()
		s.mu.Lock()
		idle := s.listener
		s.listener, s.closing = nil, true
		s.mu.Unlock()
		if idle != nil {
			_ = idle.Close() // bound and never served: there is nothing to lose
		}
		go func() {
			defer close(s.stopped)
			s.grpc.GracefulStop()
		}()
	})
	select {
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		select {
		case <-s.stopped: // both are true: nothing was cut off
			return nil
		default:
		}
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		s.grpc.Stop()
	}()
	t := time.NewTimer(abortWait)
	defer t.Stop()
	select {
	case <-s.stopped:
		<-cut
		return fmt.Errorf("grpcx: shut down %s: calls in progress were cut off: %w", s.Addr(), ctx.Err())
	case <-t.C:
		return fmt.Errorf("grpcx: shut down %s: handlers are still running: %w", s.Addr(), ctx.Err())
	}
}
