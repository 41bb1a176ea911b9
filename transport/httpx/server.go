package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config configures a [Server]. The zero value is usable and safe: every limit
// has a default.
type Config struct {
	Addr           string                // to listen on; ":0" picks a port. Default ":8080"
	Logger         *slog.Logger          // one line per request; nil is silent
	TracerProvider trace.TracerProvider  // nil makes no spans; the caller's trace is passed on all the same
	Metrics        prometheus.Registerer // nil records nothing; servers may share one
	Middleware     []endpoint.Middleware // around every function of Handle; the first is outermost
	Timeout        time.Duration         // of a function, body included. Default 30s
	MaxBody        int64                 // bytes of a request body of Handle. Default 1 MiB

	ReadHeaderTimeout time.Duration // Default 5s
	ReadTimeout       time.Duration // of a whole request. Default 60s
	IdleTimeout       time.Duration // of a connection between requests. Default 2m
	MaxHeaderBytes    int           // Default 64 KiB

	// TrustHeaders believes what requests say of identity, cause and saga. Leave
	// it false where strangers can connect: then they count for nothing beyond a
	// correlation id and an idempotency key.
	TrustHeaders bool
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field    string
		value    *time.Duration
		fallback time.Duration
	}{
		{"Timeout", &c.Timeout, 30 * time.Second},
		{"ReadHeaderTimeout", &c.ReadHeaderTimeout, 5 * time.Second},
		{"ReadTimeout", &c.ReadTimeout, time.Minute},
		{"IdleTimeout", &c.IdleTimeout, 2 * time.Minute},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("httpx: configure server: %s is %v: must not be negative; leave it 0 for %v", d.field, *d.value, d.fallback)
		}
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if c.MaxBody < 0 {
		return c, fmt.Errorf("httpx: configure server: MaxBody is %d: must not be negative; leave it 0 for 1 MiB", c.MaxBody)
	}
	if c.MaxHeaderBytes < 0 {
		return c, fmt.Errorf("httpx: configure server: MaxHeaderBytes is %d: must not be negative; leave it 0 for 64 KiB", c.MaxHeaderBytes)
	}
	for i, mw := range c.Middleware {
		if mw == nil {
			return c, fmt.Errorf("httpx: configure server: Middleware[%d] is nil: must be a function; leave it out", i)
		}
	}
	if c.MaxBody == 0 {
		c.MaxBody = 1 << 20
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = 64 << 10
	}
	if c.Addr == "" {
		c.Addr = ":8080"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.TracerProvider == nil {
		c.TracerProvider = noop.NewTracerProvider()
	}
	return c, nil
}

// Server is an HTTP server and its routes. All methods are safe for concurrent
// use; routes may be added while it serves. It is a plain http.Handler as well,
// for tests and for other servers.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	tracer  trace.Tracer
	metrics *metrics
	http    *http.Server
	conns   *conns

	outcomes outcomes

	mu        sync.Mutex
	described []described
	listener  net.Listener
	accepted  chan struct{} // closed when Serve accepts no more; nil before Serve
	stop      sync.Once
	stopping  chan struct{} // closed when Shutdown starts
	stopped   chan struct{} // closed when Shutdown is done

	draining context.Context // ends when Drain is called
	drain    context.CancelFunc
}

// NewServer returns a server without routes that is not listening yet.
func NewServer(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	draining, drain := context.WithCancel(context.Background())
	s := &Server{
		draining: draining,
		drain:    drain,
		cfg:      cfg,
		mux:      http.NewServeMux(),
		tracer:   cfg.TracerProvider.Tracer(instrumentation),
		metrics:  m,
		conns:    newConns(cfg.ReadHeaderTimeout),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	s.outcomes.metrics = m
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		ReadTimeout:       cfg.ReadTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		ConnState:         s.conns.state,
	}
	return s, nil
}

func (s *Server) describe(d described) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.described = append(s.described, d)
}

// Mount serves pattern, in the syntax of http.ServeMux, with a plain handler. It
// is observed like a route, yet has neither timeout nor body limit, so that it
// may stream. It panics on a pattern that is malformed or taken.
func (s *Server) Mount(pattern string, h http.Handler) {
	if h == nil {
		panic("httpx: mount " + pattern + ": the handler is nil")
	}
	s.mux.Handle(pattern, routed{parsePattern(pattern).path, h})
}

// Listen binds the address, so that Addr is true and connections queue up until
// [Server.Serve]. ctx bounds the binding alone.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("httpx: listen on %s: %w", s.cfg.Addr, err)
	}
	if err := s.adopt(l); err != nil {
		l.Close()
		return err
	}
	return nil
}

func (s *Server) adopt(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopping:
		return errors.New("httpx: listen: the server was shut down; make a new one")
	default:
	}
	if s.listener != nil {
		return fmt.Errorf("httpx: listen: already listening on %s", s.listener.Addr())
	}
	s.listener = &listener{Listener: l, conns: s.conns}
	return nil
}

// Addr returns the address the server is bound to, and the configured one before
// [Server.Listen].
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return s.cfg.Addr
	}
	return s.listener.Addr().String()
}

// Serve accepts connections until [Server.Shutdown] and returns nil when that is
// done. It fails when [Server.Listen] was not called.
func (s *Server) Serve() error {
	l, accepted, err := s.serving()
	if err != nil {
		return err
	}
	if l != nil {
		err = s.http.Serve(l)
		close(accepted)
	}
	select {
	case <-s.stopping:
		<-s.stopped
		return nil
	default:
		return fmt.Errorf("httpx: serve on %s: %w", l.Addr(), err)
	}
}

// serving returns no listener when Shutdown came first.
func (s *Server) serving() (net.Listener, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopping:
		return nil, nil, nil
	default:
	}
	switch {
	case s.listener == nil:
		return nil, nil, errors.New("httpx: serve: the server does not listen; call Listen before Serve")
	case s.accepted != nil:
		return nil, nil, errors.New("httpx: serve: the server is serving already")
	}
	s.accepted = make(chan struct{})
	return s.listener, s.accepted, nil
}

// ServeListener is Listen and Serve on a listener of the caller's, which it
// closes.
func (s *Server) ServeListener(l net.Listener) error {
	if err := s.adopt(l); err != nil {
		l.Close()
		return err
	}
	return s.Serve()
}

// Drain asks clients to leave: from now on every answer says Connection: close, and
// streams end. The server goes on to accept and to answer, for the time it takes
// until nobody sends it new requests.
func (s *Server) Drain() { s.drain() }

// Shutdown stops accepting, closes connections that carry no request, lets every
// request of which a byte was read have its complete answer, and returns when the
// last connection is gone. When ctx ends first it cuts off what is left and
// returns an error that wraps ctx.Err(). Later calls wait for the first one.
// Connections taken over by a handler (WebSocket) are not waited for.
func (s *Server) Shutdown(ctx context.Context) error {
	var err error
	first := false
	s.stop.Do(func() {
		first = true
		defer close(s.stopped)
		if left := s.shutdown(ctx); left > 0 {
			err = fmt.Errorf("httpx: shut down: %d connections cut off: %w", left, ctx.Err())
		}
	})
	if first {
		return err
	}
	select {
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("httpx: shut down: %w", ctx.Err())
	}
}

// shutdown returns how many connections it had to cut off.
func (s *Server) shutdown(ctx context.Context) (left int) {
	s.Drain()
	s.mu.Lock()
	close(s.stopping)
	accepted := s.accepted
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Unlock()
	defer s.http.Close()
	if accepted != nil {
		select {
		case <-accepted:
		case <-ctx.Done():
		}
	}
	select {
	case <-s.conns.drain():
	case <-ctx.Done():
		left = s.conns.force()
	}
	return left
}
