package armature

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/logging"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/promresilience"
	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

// Service is one service of a process; a process may hold several, each with its
// own servers and its own metrics registry.
//
// Register handlers, workers, checks and hooks first, then call Run. Registering
// after Run has begun panics, as does registering a name twice: both are
// mistakes in the program. Everything else is safe for concurrent use.
type Service struct {
	Logger         *slog.Logger
	Metrics        *prometheus.Registry // Go and process collectors are in it
	Tracing        *tracing.Provider
	TracerProvider trace.TracerProvider // Tracing, as the OpenTelemetry interface
	HTTP           *httpx.Server        // nil without HTTPAddr
	GRPC           *grpcx.Server        // nil without GRPCAddr

	cfg      Config
	admin    *adminServer
	health   *health
	policies *promresilience.Collector
	level    *logging.Level        // nil where the program brought a logger of its own
	config   atomic.Pointer[shown] // what /config shows
	jobs     jobs

	state    atomic.Int32 // phase
	ready    chan struct{}
	quit     chan struct{} // closed by Close
	quitOnce sync.Once
	done     chan struct{} // closed when the drain is over
	failed   chan error    // what servers and workers report; sized so that nobody blocks

	servable sync.Mutex // orders what gRPC health is told
	failing  bool       // the checks, when last heeded; guarded by servable

	mu      sync.Mutex // guards what follows
	workers []*worker
	hooks   []hook
	conns   []*grpc.ClientConn
	regs    []*discovery.Registration
	serving sync.WaitGroup
}

type hook struct {
	name string
	fn   func(context.Context) error
}

// server is what the HTTP, the gRPC and the admin server have in common.
type server interface {
	Listen(ctx context.Context) error
	Addr() string
	Serve() error
	Drain()
	Shutdown(ctx context.Context) error
}

// New builds the service without binding an address. A service that is built and
// never run is released with [Service.Close].
func New(cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:   cfg,
		ready: make(chan struct{}),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	s.health = &health{timeout: cfg.CheckTimeout, interval: checkInterval, quit: make(chan struct{}), tell: s.heed}
	if err := s.build(); err != nil {
		return nil, fmt.Errorf("armature: build service %s: %w", cfg.Name, err)
	}
	return s, nil
}

func (s *Service) build() (err error) {
	cfg := s.cfg
	level := cfg.LogLevel
	switch l := level.(type) {
	case *logging.Level:
		s.level = l
	case nil:
		s.level = logging.NewLevel(slog.LevelInfo)
	case slog.Level:
		s.level = logging.NewLevel(l)
	}
	if s.level != nil {
		level = s.level
	}
	if s.Logger = cfg.Logger; s.Logger != nil {
		s.level, _ = cfg.LogLevel.(*logging.Level) // no other would reach that logger
	} else {
		s.Logger, err = logging.New(logging.Config{
			Service: cfg.Name, Environment: cfg.Environment, Version: cfg.Version,
			Level: level, Writer: cfg.LogWriter,
		})
		if err != nil {
			return err
		}
	}

	s.Metrics = prometheus.NewRegistry()
	s.Metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "armature_service_info",
			Help:        "Always 1; the labels name the service.",
			ConstLabels: prometheus.Labels{"service": cfg.Name, "version": cfg.Version, "environment": cfg.Environment},
		}, func() float64 { return 1 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "armature_service_ready",
			Help: "1 while the service takes requests, 0 while it starts and drains.",
		}, s.readyGauge),
	)

	if s.policies, err = promresilience.New(); err != nil {
		return err
	}
	s.Metrics.MustRegister(s.policies)

	s.Tracing, err = tracing.Setup(context.Background(), tracing.Config{
		Service: cfg.Name, Version: cfg.Version, Environment: cfg.Environment,
		Exporter: cfg.Exporter, SampleRatio: cfg.SampleRatio, Logger: s.Logger,
	})
	if err != nil {
		return err
	}
	s.TracerProvider = s.Tracing
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Tracing.Shutdown(context.Background()))
		}
	}()

	if cfg.HTTPAddr != "" {
		if s.HTTP, err = httpx.NewServer(s.httpConfig()); err != nil {
			return err
		}
	}
	if cfg.GRPCAddr != "" {
		if s.GRPC, err = grpcx.NewServer(s.grpcConfig()); err != nil {
			return err
		}
	}
	switch {
	case cfg.AdminAddr != "":
		s.admin = newAdminServer(cfg.AdminAddr, s.adminHandler())
	case s.HTTP != nil:
		for _, p := range s.pages(false) {
			s.HTTP.Mount(p.pattern, p.handler)
		}
	}
	return nil
}

func (s *Service) httpConfig() httpx.Config {
	c := s.cfg.HTTP
	c.Addr = s.cfg.HTTPAddr
	s.observe(&c.Logger, &c.TracerProvider, &c.Metrics)
	return c
}

func (s *Service) grpcConfig() grpcx.Config {
	c := s.cfg.GRPC
	c.Addr = s.cfg.GRPCAddr
	s.observe(&c.Logger, &c.TracerProvider, &c.Metrics)
	return c
}

// observe fills in the service's own where a server's configuration names nothing.
func (s *Service) observe(logger **slog.Logger, tracers *trace.TracerProvider, metrics *prometheus.Registerer) {
	if *logger == nil {
		*logger = s.Logger
	}
	if *tracers == nil {
		*tracers = s.TracerProvider
	}
	if *metrics == nil {
		*metrics = s.Metrics
	}
}

// Name returns the name the service was configured with.
func (s *Service) Name() string { return s.cfg.Name }

// Worker registers a loop that runs while the service does: a consumer, a relay,
// a saga coordinator. Its context ends after the servers have stopped, and the
// workers registered later have ended. An error it returns before that stops the
// service; nil means that its work is done.
func (s *Service) Worker(name string, run func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustRegister("worker", name, run, slices.ContainsFunc(s.workers, func(w *worker) bool { return w.name == name }))
	s.workers = append(s.workers, &worker{name: name, run: run, done: make(chan struct{})})
}

// Check registers a condition of readiness, such as a database ping. It must
// honour its context, which ends after Config.CheckTimeout.
func (s *Service) Check(name string, fn func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustRegister("check", name, fn, slices.ContainsFunc(s.health.checks, func(c *check) bool { return c.name == name }))
	s.health.checks = append(s.health.checks, &check{name: name, fn: fn})
}

// OnStop registers what to release after the workers have ended, such as a
// database. It runs whether the service stopped, failed to start or was closed
// without having run. Its context ends after Config.ShutdownTimeout.
func (s *Service) OnStop(name string, fn func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustRegister("hook", name, fn, slices.ContainsFunc(s.hooks, func(h hook) bool { return h.name == name }))
	s.hooks = append(s.hooks, hook{name, fn})
}

// mustRegister is called with mu held.
func (s *Service) mustRegister(kind, name string, fn func(context.Context) error, taken bool) {
	switch {
	case name == "":
		panic(fmt.Sprintf("armature: register %s of %s: the name is empty", kind, s.cfg.Name))
	case fn == nil:
		panic(fmt.Sprintf("armature: register %s %s of %s: the function is nil", kind, name, s.cfg.Name))
	case taken:
		panic(fmt.Sprintf("armature: register %s %s of %s: the name is taken", kind, name, s.cfg.Name))
	case s.phase() != phaseNew:
		panic(fmt.Sprintf("armature: register %s %s of %s: the service is %s; register before Run", kind, name, s.cfg.Name, s.phase()))
	}
}

// ShowPolicies puts policies, and those inside them, on /metrics: the state of
// breakers, places and queues of bulkheads, retries, rejections. Each needs a name of
// its own among those of its kind. Policies made by [Service.Dial] are there already.
func (s *Service) ShowPolicies(policies ...resilience.Policy) error {
	if err := s.policies.Add(policies...); err != nil {
		return fmt.Errorf("armature: show policies of %s: %w", s.cfg.Name, err)
	}
	return nil
}

// Ready is closed once the service takes requests and is registered. It stays
// open when the service fails to start.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// HTTPAddr returns the bound address of the HTTP server once Ready is closed, ""
// without one.
func (s *Service) HTTPAddr() string {
	if s.HTTP == nil {
		return ""
	}
	return s.HTTP.Addr()
}

// GRPCAddr is HTTPAddr for the gRPC server.
func (s *Service) GRPCAddr() string {
	if s.GRPC == nil {
		return ""
	}
	return s.GRPC.Addr()
}

// AdminAddr is HTTPAddr for the admin server.
func (s *Service) AdminAddr() string {
	if s.admin == nil {
		return ""
	}
	return s.admin.Addr()
}

func (s *Service) phase() phase { return phase(s.state.Load()) }

func (s *Service) readyGauge() float64 {
	if s.phase() == phaseReady {
		return 1
	}
	return 0
}
