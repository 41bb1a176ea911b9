package armature

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

// Defaults of [Config].
const (
	DefaultStartTimeout    = 30 * time.Second
	DefaultShutdownTimeout = 10 * time.Second
	DefaultCheckTimeout    = 2 * time.Second
)

// Config describes a service. Only Name is required; an address that is empty
// leaves that server out.
type Config struct {
	Name        string // what others call it: lower-case letters, digits and dashes
	Version     string // default "dev"
	Environment string // default "development"

	HTTPAddr  string // "host:port" of Service.HTTP; port 0 picks a free one
	GRPCAddr  string // "host:port" of Service.GRPC
	AdminAddr string // "host:port" of the operator's pages, listed on /; empty mounts /health, /ready and /metrics on HTTP

	// HTTP and GRPC carry what the servers can be told beyond their address;
	// Addr, Logger, TracerProvider and Metrics are filled in when unset.
	HTTP httpx.Config
	GRPC grpcx.Config

	// DrainDelay is how long everything is still served after readiness went
	// off, so that load balancers hear of it. Default 0. Under Kubernetes use
	// 5 s: endpoints are removed while SIGTERM is delivered, not before.
	DrainDelay time.Duration
	// ShutdownTimeout bounds each of: finishing requests, ending workers, hooks.
	// Default 10 s. One that uses up the time of its kind leaves a second to each
	// of those after it. A process manager should wait DrainDelay plus three times
	// this before it kills.
	ShutdownTimeout time.Duration
	// StartTimeout bounds the wait for the checks to pass for the first time.
	// Default 30 s.
	StartTimeout time.Duration
	// CheckTimeout bounds one check. Default 2 s.
	CheckTimeout time.Duration

	Logger *slog.Logger // replaces the one built from LogLevel and LogWriter
	// LogLevel is the lowest level logged, slog.LevelInfo by default. The admin
	// server's /loglevel changes it while the service runs, unless it is a Leveler
	// of the program's own; beside a Logger it must be the *logging.Level of that.
	LogLevel  slog.Leveler
	LogWriter io.Writer // default os.Stderr

	// Exporter sends the spans somewhere, for instance otlpgrpc.FromEnv. Without
	// one nothing is sent, and trace ids are made all the same.
	Exporter    tracing.ExporterFunc
	SampleRatio *float64 // share of new traces that are recorded; nil records all

	// Registrar is told about the servers' addresses while the service is ready.
	// The gRPC server registers under Name; so does the HTTP server, or under
	// Name + "-http" where there are both.
	Registrar discovery.Registrar
	// Resolver finds the services that Dial names.
	Resolver discovery.Resolver
	// AdvertiseHost is the host others reach this one by, where a server is
	// bound to every interface. Default: the host name.
	AdvertiseHost string
}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (c Config) withDefaults() Config {
	c.Version = cmp.Or(c.Version, "dev")
	c.Environment = cmp.Or(c.Environment, "development")
	c.HTTPAddr = cmp.Or(c.HTTPAddr, c.HTTP.Addr)
	c.GRPCAddr = cmp.Or(c.GRPCAddr, c.GRPC.Addr)
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, DefaultShutdownTimeout)
	c.StartTimeout = cmp.Or(c.StartTimeout, DefaultStartTimeout)
	c.CheckTimeout = cmp.Or(c.CheckTimeout, DefaultCheckTimeout)
	return c
}

func (c Config) validate() error {
	if !namePattern.MatchString(c.Name) {
		return configError(c.Name, "Name", c.Name, "must be lower-case letters, digits and dashes, begin with a letter and have at most 63 characters", `use a name such as "order"`)
	}
	addrs := []struct{ field, addr string }{
		{"HTTPAddr", c.HTTPAddr}, {"GRPCAddr", c.GRPCAddr}, {"AdminAddr", c.AdminAddr},
	}
	taken := map[string]string{}
	for _, a := range addrs {
		if a.addr == "" {
			continue
		}
		if err := checkAddr(a.addr); err != nil {
			return configError(c.Name, a.field, a.addr, "must be host:port ("+err.Error()+")", `use for instance "127.0.0.1:8080", or ":0" for any free port`)
		}
		_, port, _ := net.SplitHostPort(a.addr)
		if other, ok := taken[a.addr]; ok && port != "0" {
			return configError(c.Name, a.field, a.addr, "is the address of "+other+" too", "give each server its own port, or leave AdminAddr empty to mount it on HTTP")
		}
		taken[a.addr] = a.field
	}
	durations := []struct {
		field string
		d     time.Duration
	}{
		{"DrainDelay", c.DrainDelay}, {"ShutdownTimeout", c.ShutdownTimeout},
		{"StartTimeout", c.StartTimeout}, {"CheckTimeout", c.CheckTimeout},
	}
	for _, d := range durations {
		if d.d < 0 {
			return configError(c.Name, d.field, d.d.String(), "must not be negative", "leave it out for the default")
		}
	}
	return nil
}

func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number up to 65535", port)
	}
	return nil
}

func configError(name, field, value, rule, fix string) error {
	return fmt.Errorf("armature: configure service %q: %s = %q: %s; %s", name, field, value, rule, fix)
}
