package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

const (
	service    = "bench.v1.Echo"
	echoMethod = "/" + service + "/Say"
)

// candidates returns the servers and the promises. A full one has traces that go
// through the SDK to an exporter that drops them, metrics, one line of JSON per
// request that goes nowhere, and survives a panic.
func candidates() []row {
	const (
		bare     = "http: bare"
		stacked  = "http: otelhttp + promhttp + slog, sampled"
		kratos   = "http: Kratos, sampled"
		zero     = "http: go-zero, sampled"
		grpcBare = "grpc: bare"
		workers  = "grpc: bare, stream workers"
	)
	return []row{
		{name: bare, start: bareHTTP, call: overHTTP(sampled)},
		{name: "http: ours, nothing observed", start: ours(httpx.Config{}), call: overHTTP(sampled), bounds: []bound{{bare, 1.03}}},
		{name: "http: ours, full, sampled", start: ours(fullHTTP()), call: overHTTP(sampled),
			bounds: []bound{{bare, 1.5}, {stacked, 0.72}, {kratos, 0.70}, {zero, 0.55}}},
		{name: "http: ours, full, unsampled", start: ours(fullHTTP()), call: overHTTP(unsampled), bounds: []bound{{bare, 1.35}}},
		{name: stacked, start: stackedHTTP, call: overHTTP(sampled), bounds: []bound{{bare, 0}}},
		{name: kratos, start: kratosHTTP, call: overHTTP(sampled), bounds: []bound{{bare, 0}}},
		{name: zero, start: zeroHTTP, call: overHTTP(sampled), bounds: []bound{{bare, 0}}},

		{name: grpcBare, start: bareGRPC(), call: overGRPC(sampled)},
		{name: "grpc: ours, full, sampled", start: oursGRPC(0), call: overGRPC(sampled), bounds: []bound{{grpcBare, 1.35}}},
		{name: "grpc: ours, full, unsampled", start: oursGRPC(0), call: overGRPC(unsampled), bounds: []bound{{grpcBare, 1.15}}},
		{name: workers, start: bareGRPC(grpc.NumStreamWorkers(streamWorkers)), call: overGRPC(sampled), bounds: []bound{{grpcBare, 0}}},
		{name: "grpc: ours, full, stream workers, sampled", start: oursGRPC(streamWorkers), call: overGRPC(sampled), bounds: []bound{{workers, 1.35}}},
		{name: "grpc: ours, full, stream workers, unsampled", start: oursGRPC(streamWorkers), call: overGRPC(unsampled), bounds: []bound{{workers, 1.15}}},
	}
}

// streamWorkers is one goroutine for each call at a time.
const streamWorkers = grpcConns * grpcCallers

func logger() *slog.Logger { return slog.New(slog.NewJSONHandler(io.Discard, nil)) }

type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

func tracer() *sdktrace.TracerProvider {
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(discard{}))
}

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// goServe serves on a free port until the process ends.
func goServe(h http.Handler) (string, error) {
	l, err := listen()
	if err != nil {
		return "", err
	}
	go http.Serve(l, h)
	return l.Addr().String(), nil
}

// echo is the function that every HTTP server serves.
func echo(_ context.Context, o *Order) (*Order, error) { return o, nil }

// bareOrders is what one would write without any library.
func bareOrders(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var in Order
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := echo(r.Context(), &in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer, err := json.Marshal(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.Write(answer)
}

func bareHTTP() (string, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", bareOrders)
	return goServe(mux)
}

func fullHTTP() httpx.Config {
	return httpx.Config{Logger: logger(), TracerProvider: tracer(), Metrics: prometheus.NewRegistry()}
}

func ours(cfg httpx.Config) func() (string, error) {
	return func() (string, error) {
		cfg.Addr = "127.0.0.1:0"
		s, err := httpx.NewServer(cfg)
		if err != nil {
			return "", err
		}
		httpx.Handle(s, "POST /orders", echo)
		if err := s.Listen(context.Background()); err != nil {
			return "", err
		}
		go s.Serve()
		return s.Addr(), nil
	}
}

// stackedHTTP is the bare server with what its users put in front of it.
func stackedHTTP() (string, error) {
	log, registry := logger(), prometheus.NewRegistry()
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds"}, []string{"code", "method", "route"})
	registry.MustRegister(duration)
	var h http.Handler = http.HandlerFunc(bareOrders)
	h = recovering(log, h)
	h = logging(log, h)
	h = promhttp.InstrumentHandlerDuration(duration.MustCurryWith(prometheus.Labels{"route": "/orders"}), h)
	h = otelhttp.NewHandler(h, "POST /orders", otelhttp.WithTracerProvider(tracer()), otelhttp.WithPropagators(propagation.TraceContext{}))
	mux := http.NewServeMux()
	mux.Handle("POST /orders", h)
	return goServe(mux)
}

func recovering(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				log.ErrorContext(r.Context(), "panic", "value", v)
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

type counting struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (c *counting) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += n
	return n, err
}

func logging(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, c := time.Now(), &counting{w, http.StatusOK, 0}
		next.ServeHTTP(c, r)
		log.LogAttrs(r.Context(), slog.LevelInfo, "http request", slog.String("method", r.Method), slog.String("route", "/orders"),
			slog.Int("status", c.status), slog.Duration("duration", time.Since(start)), slog.Int("bytes", c.bytes))
	})
}

// echoDesc is what protoc would generate for one unary method.
var echoDesc = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Say",
		Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			say := func(_ context.Context, req any) (any, error) { return req, nil }
			if intercept == nil {
				return say(ctx, in)
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: echoMethod}, say)
		},
	}},
}

func bareGRPC(opts ...grpc.ServerOption) func() (string, error) {
	return func() (string, error) {
		l, err := listen()
		if err != nil {
			return "", err
		}
		s := grpc.NewServer(opts...)
		s.RegisterService(&echoDesc, struct{}{})
		go s.Serve(l)
		return l.Addr().String(), nil
	}
}

func oursGRPC(workers uint32) func() (string, error) {
	return func() (string, error) {
		l, err := listen()
		if err != nil {
			return "", err
		}
		s, err := grpcx.NewServer(grpcx.Config{
			Logger: logger(), TracerProvider: tracer(), Metrics: prometheus.NewRegistry(), StreamWorkers: workers,
		})
		if err != nil {
			return "", err
		}
		s.RegisterService(&echoDesc, struct{}{})
		go s.ServeListener(l)
		return l.Addr().String(), nil
	}
}
