package grpcx

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/armature-go/armature/transport"
)

// unknown is the label of calls to methods nobody registered: a stranger must not
// be able to make time series.
const unknown = "unknown"

// method is what observing a call needs to know about its method, made once.
type method struct {
	full    string // "/shop.v1.Orders/Place"
	span    string // "shop.v1.Orders/Place"
	service string
	name    string
	attrs   trace.SpanStartEventOption
	serving []trace.SpanStartOption // attrs, as a server
	quiet   bool                    // logged at debug level: probes would drown the rest

	handling  *prometheus.HistogramVec // nil without metrics
	observers [codes.Unauthenticated + 1]atomic.Pointer[prometheus.Observer]
}

func newMethod(full string, handling *prometheus.HistogramVec) *method {
	span := strings.TrimPrefix(full, "/")
	service, name, found := strings.Cut(span, "/")
	if !found {
		service, name = unknown, span
	}
	attrs := trace.WithAttributes(
		attribute.String("rpc.system", "grpc"),
		attribute.String("rpc.service", service),
		attribute.String("rpc.method", name),
	)
	return &method{
		full:     full,
		span:     span,
		service:  service,
		name:     name,
		attrs:    attrs,
		serving:  []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), attrs},
		handling: handling,
	}
}

// observe counts one call. Looking the series up by its labels costs several
// times the observation itself, so each is looked up once.
func (m *method) observe(code transport.Code, seconds float64) {
	if m.handling == nil {
		return
	}
	if int(code) >= len(m.observers) {
		code = transport.Unknown
	}
	slot := &m.observers[code]
	o := slot.Load()
	if o == nil {
		series := m.handling.WithLabelValues(m.service, m.name, code.String())
		o = &series
		slot.Store(o)
	}
	(*o).Observe(seconds)
}

// handlingSeconds registers the histogram, or finds it when another server of the
// process has registered it before.
func handlingSeconds(r prometheus.Registerer) (*prometheus.HistogramVec, error) {
	if r == nil {
		return nil, nil
	}
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "grpc_server_handling_seconds",
		Help:    "Time from the arrival of a gRPC call to its answer, in seconds.",
		Buckets: prometheus.DefBuckets,
	}, []string{"service", "method", "code"})
	err := r.Register(vec)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if vec, ok := there.ExistingCollector.(*prometheus.HistogramVec); ok {
			return vec, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("grpcx: new server: Metrics refuses grpc_server_handling_seconds: use a registry where the name is free: %w", err)
	}
	return vec, nil
}
