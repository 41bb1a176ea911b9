package platform

import (
	"cmp"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/tracing"
)

// Config is what a service of the shop is given by whoever starts it. A service sees its own database only.
type Config struct {
	// Addr is the listen address: gRPC, or HTTP for the gateway. "127.0.0.1:0" picks a free port.
	Addr string
	// AdminAddr is where /metrics, /health and /ready are; empty picks a free loopback port.
	AdminAddr string
	// Node tells this copy of the service from others that share its database. It stays the same over restarts, so that
	// a copy takes up at once what it left unfinished. Empty is the name of the service: there is one copy.
	Node string
	// DB is the URL of this service's own database, see DatabaseURL.
	DB string
	// Broker carries the events.
	Broker *messaging.Broker
	// Registry is where services announce themselves and find one another.
	Registry *static.Registry

	// LogWriter takes the JSON log lines; nil is silent.
	LogWriter io.Writer
	// LogLevel is info when nil.
	LogLevel slog.Leveler
	// Exporter takes the spans; nil exports none, ids are made all the same.
	Exporter tracing.ExporterFunc

	// DrainDelay is how long a stopping service still answers while it is unready.
	DrainDelay time.Duration
	// ShutdownTimeout bounds the stop of the servers.
	ShutdownTimeout time.Duration

	// CardURL, CarrierURL and MailURL are the outside world's base URLs.
	CardURL, CarrierURL, MailURL string

	// Intercept is innermost on every gRPC client of the service; tests plant faults here.
	Intercept []grpc.UnaryClientInterceptor
}

// NewService is a service that listens for gRPC on cfg.Addr, with its admin server on a free loopback port.
func NewService(name string, cfg Config) (*armature.Service, error) {
	c := serviceConfig(name, cfg)
	c.GRPCAddr = cfg.Addr
	return armature.New(c)
}

// NewEdge is a service that listens for HTTP on cfg.Addr: the gateway.
func NewEdge(name string, cfg Config) (*armature.Service, error) {
	c := serviceConfig(name, cfg)
	c.HTTPAddr = cfg.Addr
	return armature.New(c)
}

func serviceConfig(name string, cfg Config) armature.Config {
	c := armature.Config{
		Name:            name,
		Environment:     "shop",
		AdminAddr:       cmp.Or(cfg.AdminAddr, "127.0.0.1:0"),
		LogWriter:       cfg.LogWriter,
		LogLevel:        cfg.LogLevel,
		Exporter:        cfg.Exporter,
		DrainDelay:      cfg.DrainDelay,
		ShutdownTimeout: cfg.ShutdownTimeout,
	}
	if cfg.LogWriter == nil {
		c.LogWriter = io.Discard
	}
	if cfg.Registry != nil {
		c.Registrar, c.Resolver = cfg.Registry, cfg.Registry
	}
	return c
}
