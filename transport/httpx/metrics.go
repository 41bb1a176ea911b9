package httpx

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

func (m *metrics) observe(method, route string, status int, d time.Duration) {
	if m != nil {
		m.duration.WithLabelValues(method, route, strconv.Itoa(status)).Observe(d.Seconds())
	}
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
