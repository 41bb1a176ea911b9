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
	s.logs = &lines{w: o.logs}
	if s.data == "" {
		if s.data, err = os.MkdirTemp("", "shop-"); err != nil {
			return nil, fmt.Errorf("shop: make data folder: %w", err)
		}
	}
	if s.data, err = filepath.Abs(s.data); err != nil {
		return nil, fmt.Errorf("shop: data folder: %w", err)
	}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return nil, fmt.Errorf("shop: make data folder: %w", err)
	}
	if s.database == nil {
		s.database = func(ctx context.Context, service string) (string, error) {
			return platform.DatabaseURL(ctx, s.db, s.data, service)
		}
	}
	// The broker comes first: it refuses a folder that another shop uses.
	if err := s.openBroker(ctx); err != nil {
		return nil, err
	}
	log, err := s.logger("outside")
	if err != nil {
		return nil, err
	}
	if s.outside, err = sim.New(sim.Config{Dir: s.ledgers(), Logger: log, Faults: s.faults}); err != nil {
		return nil, err
	}
	if err := s.openServices(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *shop) ledgers() string { return filepath.Join(s.data, "outside") }

func (s *shop) logger(name string) (*slog.Logger, error) {
	return logging.New(logging.Config{Service: name, Environment: "shop", Level: s.level, Writer: s.logs})
}

func (s *shop) openBroker(ctx context.Context) error {
	log, err := s.logger("broker")
	if err != nil {
		return err
	}
	switch s.options.broker {
	case "memory:":
		b, err := memory.New(memory.Config{Logger: log})
		if err != nil {
			return err
		}
		s.broker, s.close = b, b.Close
	case "", "nats+embedded:":
		server, err := natsembed.Open(ctx, natsembed.Config{StoreDir: filepath.Join(s.data, "broker"), Logger: log})
		if err != nil {
			return err
		}
		s.broker, s.close = server.Broker(), server.Close
	default:
		return fmt.Errorf("shop: broker %q is neither nats+embedded: nor memory:", s.options.broker)
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
	for _, service := range []struct {
		name string
		open func(context.Context, platform.Config) (*armature.Service, error)
	}{
		{"user", user.New},
		{"product", product.New},
		{"inventory", inventory.New},
		{"payment", payment.New},
		{"shipping", shipping.New},
		{"order", order.New},
		{"notification", notification.New},
	} {
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
	return s.add("gateway")(gateway.New(ctx, gateway.Config{Config: edge, Data: s.data}))
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
	url := "http://" + s.gateway().HTTPAddr()
	fmt.Fprintf(out, "The shop is open (%s).\n\n", took.Round(time.Millisecond))
	fmt.Fprintf(out, "  gateway       %s/api/products\n  data          %s\n", url, s.data)
	fmt.Fprintf(out, "\n  /metrics, /ready and /health of\n")
	for i, name := range s.names {
		fmt.Fprintf(out, "  %-13s http://%s/metrics\n", name, s.services[i].AdminAddr())
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
