package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/gateway"
	"github.com/armature-go/armature/examples/shop/inventory"
	"github.com/armature-go/armature/examples/shop/notification"
	"github.com/armature-go/armature/examples/shop/order"
	"github.com/armature-go/armature/examples/shop/payment"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/product"
	"github.com/armature-go/armature/examples/shop/shipping"
	"github.com/armature-go/armature/examples/shop/sim"
	"github.com/armature-go/armature/examples/shop/user"
	"github.com/armature-go/armature/logging"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/nats/natsembed"
	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/tracing/otlpgrpc"
	"github.com/armature-go/armature/tracing/otlphttp"
)

// options is what a shop is opened with.
type options struct {
	addr, data, db, broker      string
	drainDelay, shutdownTimeout time.Duration

	logs  io.Writer
	level slog.Leveler

	// database names the URL of a service's database; nil asks db.
	database  func(ctx context.Context, service string) (string, error)
	faults    sim.Faults
	intercept []grpc.UnaryClientInterceptor
}

// shop is the services in the order of their dependencies, and what they stand on.
type shop struct {
	options
	outside  *sim.Sim
	broker   *messaging.Broker
	close    func(context.Context) error // of the broker
	books    audit.Config                // where the audit finds everything
	names    []string
	services []*armature.Service
}

// open builds the shop from the ground up without serving anybody. What it began is released when it fails.
func open(ctx context.Context, o options) (_ *shop, err error) {
	s := &shop{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release(context.WithoutCancel(ctx)))
		}
	}()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	// The broker comes first: it refuses a folder that another shop uses.
	if err := s.openBroker(ctx); err != nil {
		return nil, err
	}
	if s.outside, err = s.openOutside(); err != nil {
		return nil, err
	}
	if err := s.openServices(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare fills in what the options leave open.
func (o *options) prepare() (err error) {
	o.logs = &lines{w: o.logs}
	if o.data == "" {
		if o.data, err = os.MkdirTemp("", "shop-"); err != nil {
			return fmt.Errorf("shop: make data folder: %w", err)
		}
	}
	if o.data, err = filepath.Abs(o.data); err != nil {
		return fmt.Errorf("shop: data folder: %w", err)
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return fmt.Errorf("shop: make data folder: %w", err)
	}
	if o.database == nil {
		o.database = func(ctx context.Context, service string) (string, error) {
			return platform.DatabaseURL(ctx, o.db, o.data, service)
		}
	}
	return nil
}

func (o *options) ledgers() string { return filepath.Join(o.data, "outside") }

func (o *options) logger(name string) (*slog.Logger, error) {
	return logging.New(logging.Config{Service: name, Environment: "shop", Level: o.level, Writer: o.logs})
}

// embedded opens the broker that the shop brings along. listen is where other processes find it, empty for none.
func (o *options) embedded(ctx context.Context, listen string) (*natsembed.Server, error) {
	log, err := o.logger("broker")
	if err != nil {
		return nil, err
	}
	return natsembed.Open(ctx, natsembed.Config{StoreDir: filepath.Join(o.data, "broker"), Listen: listen, Logger: log})
}

// openOutside opens the companies outside the shop.
func (o *options) openOutside() (*sim.Sim, error) {
	log, err := o.logger("outside")
	if err != nil {
		return nil, err
	}
	return sim.New(sim.Config{Dir: o.ledgers(), Logger: log, Faults: o.faults})
}

func (s *shop) openBroker(ctx context.Context) error {
	switch s.options.broker {
	case "memory:":
		log, err := s.logger("broker")
		if err != nil {
			return err
		}
		b, err := memory.New(memory.Config{Logger: log})
		if err != nil {
			return err
		}
		s.broker, s.close = b, b.Close
	case "", "nats+embedded:":
		server, err := s.embedded(ctx, "")
		if err != nil {
			return err
		}
		s.broker, s.close = server.Broker(), server.Close
	default:
		return fmt.Errorf(`shop: broker %q is neither "nats+embedded:" nor "memory:"`, s.options.broker)
	}
	return nil
}

// openServices builds every service after those it calls.
func (s *shop) openServices(ctx context.Context) error {
	registry, err := static.New(static.Config{})
	if err != nil {
		return err
	}
	s.books = audit.Config{Databases: map[string]string{}, Ledgers: s.ledgers()}
	urls := s.outside.URLs()
	common := platform.Config{
		Addr: "127.0.0.1:0", Broker: s.broker, Registry: registry,
		LogWriter: s.logs, LogLevel: s.level, Exporter: exporter(), ShutdownTimeout: s.shutdownTimeout,
		CardURL: urls.Card, CarrierURL: urls.Carrier, MailURL: urls.Mail, Intercept: s.intercept,
	}
	for _, service := range behindTheEdge() {
		cfg := common
		if cfg.DB, err = s.database(ctx, service.name); err != nil {
			return err
		}
		s.books.Databases[service.name] = cfg.DB
		if err := s.add(service.name)(service.open(ctx, cfg)); err != nil {
			return err
		}
	}
	// The first to stop is the one that gives its clients time to notice.
	edge := common
	edge.Addr, edge.DrainDelay = s.addr, s.drainDelay
	return s.add(gatewayName)(openGateway(s.data)(ctx, edge))
}

// service is one of the shop's services and how it is built.
type service struct {
	name string
	open func(context.Context, platform.Config) (*armature.Service, error)
}

const gatewayName = "gateway"

// behindTheEdge lists the services but the gateway, each after those it calls.
func behindTheEdge() []service {
	return []service{
		{"user", user.New},
		{"product", product.New},
		{"inventory", inventory.New},
		{"payment", payment.New},
		{"shipping", shipping.New},
		{"order", order.New},
		{"notification", notification.New},
	}
}

func openGateway(data string) func(context.Context, platform.Config) (*armature.Service, error) {
	return func(ctx context.Context, cfg platform.Config) (*armature.Service, error) {
		return gateway.New(ctx, gateway.Config{Config: cfg, Data: data})
	}
}

func (s *shop) add(name string) func(*armature.Service, error) error {
	return func(svc *armature.Service, err error) error {
		if err != nil {
			return fmt.Errorf("shop: open %s: %w", name, err)
		}
		s.names, s.services = append(s.names, name), append(s.services, svc)
		return nil
	}
}

// exporter sends spans where the variables of OpenTelemetry say, if they say.
func exporter() tracing.ExporterFunc {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil
	}
	if strings.HasPrefix(os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/") {
		return otlphttp.FromEnv
	}
	return otlpgrpc.FromEnv
}

func (s *shop) gateway() *armature.Service { return s.services[len(s.services)-1] }

// run serves until ctx ends, calling ready once everything answers, and stops in order.
func (s *shop) run(ctx context.Context, ready func()) (err error) {
	defer func() { err = errors.Join(err, s.release(context.WithoutCancel(ctx))) }()
	if err := audit.WriteConfig(filepath.Join(s.data, audit.FileName), s.books); err != nil {
		return err
	}
	done := make(chan struct{})
	var announce sync.WaitGroup
	announce.Go(func() {
		select {
		case <-s.gateway().Ready():
			ready()
		case <-done:
		}
	})
	err = armature.RunAll(ctx, s.services...)
	close(done)
	announce.Wait()
	return err
}

// release closes what stands below the services, and services that never ran.
func (s *shop) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, armature.DefaultShutdownTimeout)
	defer cancel()
	var errs []error
	for i := len(s.services) - 1; i >= 0; i-- {
		errs = append(errs, s.services[i].Close(ctx))
	}
	if s.close != nil {
		errs = append(errs, s.close(ctx))
	}
	if s.outside != nil {
		errs = append(errs, s.outside.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// describe tells a person what there is to do.
func (s *shop) describe(out io.Writer, took time.Duration) {
	admins := make([]string, len(s.services))
	for i, svc := range s.services {
		admins[i] = svc.AdminAddr()
	}
	printGuide(out, took, s.data, s.gateway().HTTPAddr(), s.names, admins)
}

func printGuide(out io.Writer, took time.Duration, data, edge string, names, admins []string) {
	url := "http://" + edge
	fmt.Fprintf(out, "The shop is open (%s).\n\n", took.Round(time.Millisecond))
	fmt.Fprintf(out, "  gateway       %s/api/products\n  data          %s\n", url, data)
	fmt.Fprintf(out, "\n  /metrics, /ready and /health of\n")
	for i, name := range names {
		fmt.Fprintf(out, "  %-13s http://%s/metrics\n", name, admins[i])
	}
	fmt.Fprintf(out, `
Place an order:

  curl -i %s/api/orders -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '{
    "customer_id": "cust-01", "items": [{"product_id": "sku-tea", "quantity": 2}], "card": "tok_visa",
    "address": {"name": "Ada", "line1": "1 Main Street", "city": "Berlin", "postcode": "10115", "country": "DE"}}'

Send a few hundred and audit the books:

  go run ./examples/shop play -addr %s

Ctrl-C stops it.
`, url, url)
}

// lines makes the services' loggers take turns, a line at a time.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
