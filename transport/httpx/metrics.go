package httpx

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
)

// unmatched is the route label of requests that no route answers, so that
// scanners cannot make series.
const unmatched = "unmatched"

type metrics struct {
	duration *prometheus.HistogramVec
	panics   *prometheus.CounterVec
}

// newMetrics returns nil, which records nothing, for a nil registerer.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		return nil, nil
	}
	duration, err := register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "http_request_duration_seconds",
		Help:    "Time from the first read of a request to the end of its handler.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"method", "route", "status_code"}))
	if err != nil {
		return nil, err
	}
	panics, err := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "http_panics_total",
		Help: "Handlers that panicked, http.ErrAbortHandler excepted.",
	}, []string{"method", "route"}))
	if err != nil {
		return nil, err
	}
	return &metrics{duration, panics}, nil
}

// register returns the collector that is registered already when there is one.
func register[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	err := r.Register(c)
	if err == nil {
		return c, nil
	}
	if taken, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := taken.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	return c, fmt.Errorf("httpx: configure server: Metrics: register collector: %w", err)
}

// outcomes holds one outcome for each way in which requests have ended. There are
// few, as methods, routes and codes are bounded, and they are found far more often
// than made, so a new one is added to a copy of the map.
type outcomes struct {
	metrics *metrics

	adding sync.Mutex
	known  atomic.Pointer[map[outcomeKey]*outcome]
}

type outcomeKey struct {
	method, route string
	status        int
}

// outcome is what is the same for all requests that end in one way.
type outcome struct {
	duration   prometheus.Observer  // nil without metrics
	span       string               // the name; empty for unmatched routes
	attributes []attribute.KeyValue // full, so that append copies
}

func (os *outcomes) of(method, route string, status int) *outcome {
	key := outcomeKey{method, route, status}
	if known := os.known.Load(); known != nil {
		if o := (*known)[key]; o != nil {
			return o
		}
	}
	return os.add(key)
}

func (os *outcomes) add(key outcomeKey) *outcome {
	os.adding.Lock()
	defer os.adding.Unlock()
	grown := make(map[outcomeKey]*outcome)
	if known := os.known.Load(); known != nil {
		maps.Copy(grown, *known)
	}
	o := grown[key]
	if o == nil {
		o = os.make(key)
		grown[key] = o
		os.known.Store(&grown)
	}
	return o
}

func (os *outcomes) make(key outcomeKey) *outcome {
	code := strconv.Itoa(key.status)
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", key.method),
		attribute.Int("http.response.status_code", key.status),
	}
	o := &outcome{}
	if key.route != unmatched {
		o.span = key.method + " " + key.route
		attributes = append(attributes, attribute.String("http.route", key.route))
	}
	if key.status >= 500 {
		attributes = append(attributes, attribute.String("error.type", code))
	}
	o.attributes = slices.Clip(attributes)
	if os.metrics != nil {
		o.duration = os.metrics.duration.WithLabelValues(key.method, key.route, code)
	}
	return o
}

func (m *metrics) panicked(method, route string) {
	if m != nil {
		m.panics.WithLabelValues(method, route).Inc()
	}
}

// knownMethod bounds the method label by the word OpenTelemetry uses for others.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "_OTHER"
}
