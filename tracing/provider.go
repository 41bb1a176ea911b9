package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// ExporterFunc opens an exporter. It is called once, by Setup.
type ExporterFunc func(context.Context) (sdktrace.SpanExporter, error)

// Config describes a service's tracing.
type Config struct {
	// Service, Version and Environment become the resource attributes service.name,
	// service.version and deployment.environment.name. Service is required; it wins
	// over OTEL_SERVICE_NAME so that logs and spans agree.
	Service     string
	Version     string
	Environment string

	// Exporter opens what spans are sent to. Nil means no export; spans still have
	// real, sampled ids.
	Exporter ExporterFunc

	// SampleRatio is the share of new traces that are sampled, 0 to 1. The decision
	// of a caller that sent its trace context is always followed. Nil means what
	// OTEL_TRACES_SAMPLER says, and everything if it says nothing.
	SampleRatio *float64

	// Attributes are added to the resource, after those of OTEL_RESOURCE_ATTRIBUTES.
	Attributes []attribute.KeyValue

	// Global also makes the provider OpenTelemetry's global one, together with
	// Propagator(), for libraries that know no other.
	Global bool

	// Logger is told about failed exports. Nil is silent.
	Logger *slog.Logger

	// ShutdownTimeout bounds Shutdown when its context has no deadline. 0 means 5 s.
	ShutdownTimeout time.Duration
}

// Provider is a TracerProvider with a bounded Shutdown. Safe for concurrent use.
type Provider struct {
	*sdktrace.TracerProvider

	timeout time.Duration
	once    sync.Once
	done    chan struct{}
	err     error
}

// Setup returns a running provider. Spans are batched unless Exporter is nil.
func Setup(ctx context.Context, cfg Config) (*Provider, error) {
	switch ratio := cfg.SampleRatio; {
	case cfg.Service == "":
		return nil, errors.New(`tracing: configure provider: Service = "": must not be empty; name the service as it is called in discovery`)
	case ratio != nil && (math.IsNaN(*ratio) || *ratio < 0 || *ratio > 1):
		return nil, fmt.Errorf("tracing: configure provider: SampleRatio = %v: must be within 0 and 1; use 0.1 for one trace in ten", *ratio)
	case cfg.ShutdownTimeout < 0:
		return nil, fmt.Errorf("tracing: configure provider: ShutdownTimeout = %v: must not be negative; use 0 for the default of 5s", cfg.ShutdownTimeout)
	case cfg.ShutdownTimeout == 0:
		cfg.ShutdownTimeout = 5 * time.Second
	}
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if cfg.SampleRatio != nil {
		options = append(options, sdktrace.WithSampler(
			sdktrace.ParentBased(sdktrace.TraceIDRatioBased(*cfg.SampleRatio))))
	}
	if cfg.Exporter != nil {
		exporter, err := cfg.Exporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("tracing: open exporter: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(&reporting{exporter, cfg.Logger}))
	}
	p := &Provider{
		TracerProvider: sdktrace.NewTracerProvider(options...),
		timeout:        cfg.ShutdownTimeout,
		done:           make(chan struct{}),
	}
	if cfg.Global {
		otel.SetTracerProvider(p)
		otel.SetTextMapPropagator(Propagator())
	}
	return p, nil
}

func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	own := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		own = append(own, attribute.String("service.version", cfg.Version))
	}
	if cfg.Environment != "" {
		own = append(own, attribute.String("deployment.environment.name", cfg.Environment))
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
		resource.WithAttributes(cfg.Attributes...),
		resource.WithAttributes(own...))
	if err != nil {
		return nil, fmt.Errorf("tracing: describe resource: %w", err)
	}
	return res, nil
}

// Shutdown exports the spans that are left and closes the exporter. It returns
// when that is done, when ctx is or, if ctx has no deadline, after
// Config.ShutdownTimeout. Later calls wait for the first one and return its error.
func (p *Provider) Shutdown(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.timeout)
		defer cancel()
	}
	p.once.Do(func() {
		go func() { // apart from the caller, whom an exporter deaf to ctx must not hold
			defer close(p.done)
			if err := p.TracerProvider.Shutdown(ctx); err != nil {
				p.err = fmt.Errorf("tracing: shut down: %w", err)
			}
		}()
	})
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("tracing: shut down: %w", ctx.Err())
	}
}

// reporting logs failed exports where the SDK would hand them to a global handler
// that prints to standard error.
type reporting struct {
	sdktrace.SpanExporter
	logger *slog.Logger
}

func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && r.logger != nil {
		r.logger.WarnContext(ctx, "spans dropped", "count", len(spans), "error", err.Error())
	}
	return nil
}
