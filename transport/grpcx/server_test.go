package grpcx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

var errSoldOut = transport.Errorf(transport.FailedPrecondition, "SOLD_OUT", "nothing left").WithDomain("shop.example.com")

func TestErrorsCrossTheWire(t *testing.T) {
	t.Parallel()
	refused := errSoldOut.
		WithViolations(transport.Violation{Pointer: "/items/0", Detail: "only 2 left"}).
		WithResource("product", "p-1").
		WithRetryAfter(3 * time.Second).
		WithCause(errors.New("row 17 of table stock"))
	for _, tc := range []struct {
		name     string
		returned error
		code     transport.Code
		message  string
		is       error
	}{
		{"typed", refused, transport.FailedPrecondition, "nothing left", errSoldOut},
		{"wrapped", fmt.Errorf("place: %w", refused), transport.FailedPrecondition, "nothing left", errSoldOut},
		{"status", status.Error(5, "no such order"), transport.NotFound, "no such order", transport.Errorf(transport.NotFound, "", "")},
		{"plain", errors.New("password is hunter2"), transport.Internal, "internal error", transport.Errorf(transport.Internal, "", "")},
		{"canceled", context.Canceled, transport.Canceled, "the request was canceled", transport.Errorf(transport.Canceled, "", "")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{}, &echo{say: func(context.Context, string) (string, error) { return "", tc.returned }})
			defer stop()
			_, err := say(cc, t.Context(), "")
			var e *transport.Error
			if !errors.As(err, &e) || e.Code != tc.code || e.Message != tc.message || !errors.Is(err, tc.is) {
				t.Fatalf("got %#v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "row 17") {
				t.Errorf("the cause went over the wire: %v", err)
			}
			if e.NotExecuted() {
				t.Error("NotExecuted, but the handler ran")
			}
			if status.Code(err).String() == "Unknown" {
				t.Error("status.Code does not see the code")
			}
			if tc.is == error(errSoldOut) {
				after, ok := e.RetryAfter()
				if len(e.Details.Violations) != 1 || e.Details.Violations[0].Pointer != "/items/0" ||
					e.Details.Resource == nil || e.Details.Resource.Name != "p-1" || !ok || after != 3*time.Second {
					t.Errorf("details = %+v", e.Details)
				}
			}
		})
	}
}

func TestFlowAndTraceCrossTheWire(t *testing.T) {
	t.Parallel()
	for _, edge := range []bool{false, true} {
		t.Run(fmt.Sprintf("edge=%v", edge), func(t *testing.T) {
			t.Parallel()
			spans := tracetest.NewSpanRecorder()
			tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			var served context.Context
			cc, stop := pair(t, grpcx.Config{Edge: edge, TracerProvider: tp}, grpcx.ClientConfig{TracerProvider: tp},
				&echo{say: func(ctx context.Context, in string) (string, error) { served = ctx; return in, nil }})
			ctx := flow.WithCorrelationID(t.Context(), "c-1")
			ctx = flow.WithPrincipal(ctx, flow.Principal{Subject: "ann", Roles: []string{"admin"}})
			ctx = flow.WithSaga(ctx, "s-1", 3)
			ctx = flow.WithIdempotencyKey(ctx, "incoming")
			ctx = flow.WithOutgoingIdempotencyKey(ctx, "outgoing")
			if _, err := say(cc, ctx, ""); err != nil {
				t.Fatal(err)
			}
			stop()
			if flow.CorrelationID(served) != "c-1" || flow.IdempotencyKey(served) != "outgoing" {
				t.Errorf("correlation %q, idempotency %q", flow.CorrelationID(served), flow.IdempotencyKey(served))
			}
			p, ok := flow.PrincipalFrom(served)
			_, _, inSaga := flow.Saga(served)
			if ok == edge || inSaga == edge || (!edge && p.Subject != "ann") {
				t.Errorf("principal %v (%v), saga %v", p, ok, inSaga)
			}
			ended := spans.Ended()
			if len(ended) != 2 {
				t.Fatalf("%d spans, want server and client", len(ended))
			}
			server, client := ended[0], ended[1]
			if server.Parent().SpanID() != client.SpanContext().SpanID() || server.SpanContext().TraceID() != client.SpanContext().TraceID() {
				t.Errorf("the server span is not a child of the client's")
			}
			if server.Name() != "test.v1.Echo/Say" || client.Name() != server.Name() {
				t.Errorf("span names %q, %q", server.Name(), client.Name())
			}
		})
	}
}

func TestMissingCorrelationIDIsMade(t *testing.T) {
	t.Parallel()
	var id string
	cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{}, &echo{say: func(ctx context.Context, _ string) (string, error) {
		id = flow.CorrelationID(ctx)
		return "", nil
	}})
	defer stop()
	if _, err := say(cc, t.Context(), ""); err != nil || id == "" {
		t.Errorf("id %q, error %v", id, err)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		caller         time.Duration // 0: none
		client, server time.Duration
		want           time.Duration // 0: none
	}{
		{"the caller's", time.Second, 0, 0, time.Second},
		{"the caller's wins against defaults", 40 * time.Second, time.Second, time.Second, 40 * time.Second},
		{"the client's default", 0, 5 * time.Second, 0, 5 * time.Second},
		{"the server's default", 0, -1, 3 * time.Second, 3 * time.Second},
		{"30 s without a word", 0, 0, 0, 30 * time.Second},
		{"none", 0, -1, -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var left time.Duration
				cc, stop := pair(t, grpcx.Config{Timeout: tc.server}, grpcx.ClientConfig{Timeout: tc.client}, &echo{say: func(ctx context.Context, _ string) (string, error) {
					if d, ok := ctx.Deadline(); ok {
						left = time.Until(d)
					}
					return "", nil
				}})
				defer stop()
				ctx := t.Context()
				if tc.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.caller)
					defer cancel()
				}
				if _, err := say(cc, ctx, ""); err != nil {
					t.Fatal(err)
				}
				if left != tc.want {
					t.Errorf("the handler had %v, want %v", left, tc.want)
				}
			})
		})
	}
}

func TestDeadlinePasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{}, &echo{say: func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := say(cc, ctx, "")
		if transport.CodeOf(err) != transport.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		var n interface{ NotExecuted() bool }
		if errors.As(err, &n) && n.NotExecuted() {
			t.Error("NotExecuted, but the handler was running")
		}
	})
}

func TestObservation(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewPedanticRegistry()
	spans := tracetest.NewSpanRecorder()
	var log journal
	cc, stop := pair(t, grpcx.Config{
		Metrics:        metrics,
		Logger:         log.logger(),
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	}, grpcx.ClientConfig{}, &echo{say: func(_ context.Context, in string) (string, error) {
		switch in {
		case "panic":
			panic("secret of the panic")
		case "refuse":
			return "", errSoldOut
		}
		return in, nil
	}})
	for _, in := range []string{"ok", "ok", "refuse", "panic", "ok"} { // goes on after the panic
		_, err := say(cc, t.Context(), in)
		if want := map[string]transport.Code{"panic": transport.Internal, "refuse": transport.FailedPrecondition}[in]; transport.CodeOf(err) != want {
			t.Errorf("%s: %v", in, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the panic went over the wire: %v", err)
		}
	}
	for _, name := range []string{"/test.v1.Echo/Nope", "/no.Such/Method"} {
		if err := cc.Invoke(t.Context(), name, new(text), new(text)); transport.CodeOf(err) != transport.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop()

	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			counts[f.GetName()+" "+labels["service"]+"/"+labels["method"]+" "+labels["code"]] = m.GetHistogram().GetSampleCount()
		}
	}
	want := map[string]uint64{
		"grpc_server_handling_seconds test.v1.Echo/Say OK":                  3,
		"grpc_server_handling_seconds test.v1.Echo/Say FAILED_PRECONDITION": 1,
		"grpc_server_handling_seconds test.v1.Echo/Say INTERNAL":            1,
		"grpc_server_handling_seconds unknown/unknown UNIMPLEMENTED":        2,
	}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", counts, want)
	}
	if problems, err := testutil.GatherAndLint(metrics); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}

	lines := log.lines(t)
	if len(lines) != 7 {
		t.Fatalf("%d log lines for 7 calls: %v", len(lines), lines)
	}
	refused, panicked := lines[2], lines[3]
	if refused["level"] != "INFO" || refused["reason"] != "SOLD_OUT" || refused["method"] != sayMethod {
		t.Errorf("line of the refusal: %v", refused)
	}
	if panicked["level"] != "ERROR" || !strings.Contains(fmt.Sprint(panicked["error"]), "secret of the panic") || !strings.Contains(fmt.Sprint(panicked["stack"]), "server_test.go") {
		t.Errorf("line of the panic: %v", panicked)
	}

	ended := spans.Ended()
	if len(ended) != 7 {
		t.Fatalf("%d spans", len(ended))
	}
	if ended[2].Status().Code != codes.Unset || ended[3].Status().Code != codes.Error || ended[3].Status().Description != "INTERNAL" {
		t.Errorf("span states %v, %v", ended[2].Status(), ended[3].Status())
	}
	if strings.Contains(fmt.Sprint(ended[3].Attributes(), ended[3].Events()), "secret") {
		t.Error("the panic is in the trace")
	}
}

func TestTwoServersShareTheHistogram(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	for range 2 {
		if _, err := grpcx.NewServer(grpcx.Config{Metrics: metrics}); err != nil {
			t.Fatal(err)
		}
	}
	taken := prometheus.NewRegistry()
	taken.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "grpc_server_handling_seconds"}))
	if _, err := grpcx.NewServer(grpcx.Config{Metrics: taken}); err == nil {
		t.Error("a name that is taken was accepted")
	}
}

func TestMiddlewareOrder(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	note := func(name string) endpoint.Middleware {
		return func(next endpoint.Endpoint) endpoint.Endpoint {
			made.Add(1)
			return func(ctx context.Context, req any) (any, error) {
				resp, err := next(ctx, wrapperspb.String(req.(*text).GetValue()+name))
				return resp, err
			}
		}
	}
	cc, stop := pair(t, grpcx.Config{
		Middleware: []endpoint.Middleware{note("a"), note("b")},
		Options:    []grpc.ServerOption{grpc.ChainUnaryInterceptor(grpcx.Interceptor(note("c")))},
	}, grpcx.ClientConfig{Middleware: []endpoint.Middleware{note("x"), note("y")}}, &echo{say: same})
	defer stop()
	made.Store(0)
	for range 3 {
		if got, err := say(cc, t.Context(), ">"); err != nil || got != ">xyabc" {
			t.Fatalf("got %q, %v; want %q", got, err, ">xyabc")
		}
	}
	if n := made.Load() - 3*2; n != 3 {
		t.Errorf("server middlewares were made %d times, want once each", n)
	}
}

func TestMiddlewareRefuses(t *testing.T) {
	t.Parallel()
	limited := func(endpoint.Endpoint) endpoint.Endpoint {
		return func(context.Context, any) (any, error) {
			return nil, transport.Errorf(transport.ResourceExhausted, "LIMIT", "slow down").WithRetryAfter(time.Second)
		}
	}
	detached := func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(_ context.Context, req any) (any, error) { return next(context.Background(), req) }
	}
	for name, tc := range map[string]struct {
		mw   endpoint.Middleware
		code transport.Code
	}{"limited": {limited, transport.ResourceExhausted}, "detached": {detached, transport.Internal}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cc, stop := pair(t, grpcx.Config{Middleware: []endpoint.Middleware{tc.mw}}, grpcx.ClientConfig{}, &echo{say: same})
			defer stop()
			if _, err := say(cc, t.Context(), ""); transport.CodeOf(err) != tc.code {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		var log journal
		s, stop := n.start(t, "server", grpcx.Config{Logger: log.logger()}, &echo{say: same})
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///server"})
		h := healthpb.NewHealthClient(cc)
		check := func(service string, want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			got, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("health of %q = %v, %v; want %v", service, got.GetStatus(), err, want)
			}
		}
		watch, err := h.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		next := func(want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
				t.Errorf("watched %v, %v; want %v", got.GetStatus(), err, want)
			}
		}
		next(healthpb.HealthCheckResponse_SERVING)
		check("", healthpb.HealthCheckResponse_SERVING)
		check("test.v1.Echo", healthpb.HealthCheckResponse_SERVING)
		s.SetServing(false)
		next(healthpb.HealthCheckResponse_NOT_SERVING)
		check("test.v1.Echo", healthpb.HealthCheckResponse_NOT_SERVING)
		s.SetServing(true)
		next(healthpb.HealthCheckResponse_SERVING)
		s.Drain()
		next(healthpb.HealthCheckResponse_NOT_SERVING)
		s.SetServing(true) // too late
		check("", healthpb.HealthCheckResponse_NOT_SERVING)
		if _, err := say(cc, t.Context(), ""); err != nil {
			t.Errorf("a call while draining: %v", err)
		}
		// The watch is still open: a graceful stop must not wait for it.
		start := time.Now()
		stop()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Shutdown waited %v for a health watch", waited)
		}
		if _, err := watch.Recv(); err == nil || err == io.EOF {
			t.Errorf("the watch ended with %v", err)
		}
		closeConn()
		if lines := log.lines(t); len(lines) != 1 {
			t.Errorf("probes are in the log: %v", lines)
		}
	})
}

func TestReflectionIsOptIn(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			cc, stop := pair(t, grpcx.Config{Reflection: on}, grpcx.ClientConfig{}, &echo{say: same})
			defer stop()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := grpc_reflection_v1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
			if err != nil {
				t.Fatal(err)
			}
			err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
			if err != nil && (on || err != io.EOF) { // of a stream that was refused already
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if on != (err == nil) || (on && !strings.Contains(fmt.Sprint(answer), "test.v1.Echo")) {
				t.Errorf("answer %v, error %v", answer, err)
			}
		})
	}
}

func TestMessageLimit(t *testing.T) {
	t.Parallel()
	cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{}, &echo{say: func(context.Context, string) (string, error) { return "", nil }})
	defer stop()
	if _, err := say(cc, t.Context(), strings.Repeat("x", 4<<20)); transport.CodeOf(err) != transport.ResourceExhausted {
		t.Errorf("more than 4 MiB: %v", err)
	}
	if _, err := say(cc, t.Context(), strings.Repeat("x", 4<<20-100)); err != nil {
		t.Errorf("less than 4 MiB: %v", err)
	}
}

// Callers keep calling while servers stop: each call has an answer, and one that
// reached a handler has the handler's.
func TestShutdownLosesNoAcceptedCall(t *testing.T) {
	t.Parallel()
	for round := range 5 {
		s, err := grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		var handled, answered, refused atomic.Int64
		s.RegisterService(&echoDesc, &echo{say: func(_ context.Context, in string) (string, error) {
			handled.Add(1)
			<-time.After(time.Millisecond)
			return in, nil
		}})
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		var callers sync.WaitGroup
		warm := make(chan struct{})
		var once sync.Once
		for range 8 {
			cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: s.Addr()})
			if err != nil {
				t.Fatal(err)
			}
			callers.Go(func() {
				defer cc.Close()
				for {
					_, err := say(cc, t.Context(), "x")
					if err != nil {
						var n interface{ NotExecuted() bool }
						if transport.CodeOf(err) != transport.Unavailable || !errors.As(err, &n) || !n.NotExecuted() {
							t.Errorf("round %d: lost call: %v", round, err)
						}
						refused.Add(1)
						return
					}
					if answered.Add(1) > 50 {
						once.Do(func() { close(warm) })
					}
				}
			})
		}
		<-warm
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		callers.Wait()
		if handled.Load() != answered.Load() || refused.Load() != 8 {
			t.Errorf("round %d: handled %d, answered %d, refused %d", round, handled.Load(), answered.Load(), refused.Load())
		}
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		release := make(chan struct{})
		stubborn := false
		s, err := grpcx.NewServer(grpcx.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s.RegisterService(&echoDesc, &echo{say: func(ctx context.Context, _ string) (string, error) {
			if stubborn {
				<-release
			}
			<-ctx.Done()
			return "", ctx.Err()
		}})
		served := make(chan error, 1)
		l := n.listen("server")
		go func() { served <- s.ServeListener(l) }()
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///server"})
		defer closeConn()
		stubborn = true
		called := make(chan error, 1)
		go func() { _, err := say(cc, t.Context(), ""); called <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still running") {
			t.Errorf("Shutdown = %v", err)
		}
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("Shutdown took %v, want 2s and 1s more", waited)
		}
		if err := <-called; transport.CodeOf(err) != transport.Unavailable {
			t.Errorf("the call that was cut off: %v", err)
		}
		close(release)
		if err := s.Shutdown(t.Context()); err != nil { // again, now it ends
			t.Errorf("second Shutdown = %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		s, err := grpcx.NewServer(grpcx.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s.RegisterService(&echoDesc, &echo{chat: func(stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		}})
		l := n.listen("server")
		served := make(chan error, 1)
		go func() { served <- s.ServeListener(l) }()
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///server"})
		defer closeConn()
		stream, err := cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("Shutdown = %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("Shutdown took %v", waited)
		}
		if err := stream.RecvMsg(new(text)); transport.CodeOf(err) != transport.Unavailable {
			t.Errorf("the stream ended with %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestListen(t *testing.T) {
	t.Parallel()
	newServer := func(addr string) *grpcx.Server {
		s, err := grpcx.NewServer(grpcx.Config{Addr: addr})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := newServer("127.0.0.1:0")
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, port, err := net.SplitHostPort(s.Addr()); err != nil || port == "0" {
		t.Errorf("Addr = %q", s.Addr())
	}
	if err := s.Listen(t.Context()); err == nil {
		t.Error("listening twice: no error")
	}
	if err := newServer(s.Addr()).Serve(); err == nil {
		t.Error("a taken address: no error")
	}
	if err := newServer("").Serve(); err == nil || !strings.Contains(err.Error(), "Addr is empty") {
		t.Errorf("no address: %v", err)
	}
	// Shutdown before Serve frees the address and Serve ends at once.
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(); err != nil {
		t.Errorf("Serve after Shutdown = %v", err)
	}
	if err := s.Listen(t.Context()); !errors.Is(err, grpc.ErrServerStopped) {
		t.Errorf("Listen after Shutdown = %v", err)
	}
	l, err := net.Listen("tcp", s.Addr())
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	l.Close()
}

// A handler that passes on the error of its own call must not say that it did
// nothing itself; a middleware that kept the call from the handler may.
func TestNotExecutedIsClearedBehindAHandler(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		mw   []endpoint.Middleware
		want bool
	}{
		{"handler", nil, false},
		{"middleware", []endpoint.Middleware{func(endpoint.Endpoint) endpoint.Endpoint {
			return func(context.Context, any) (any, error) { return nil, rejection{} }
		}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cc, stop := pair(t, grpcx.Config{Middleware: tc.mw}, grpcx.ClientConfig{},
				&echo{say: func(context.Context, string) (string, error) { return "", rejection{} }})
			defer stop()
			_, err := say(cc, t.Context(), "")
			var e *transport.Error
			if !errors.As(err, &e) || e.Code != transport.Unavailable || e.NotExecuted() != tc.want {
				t.Errorf("%v, NotExecuted = %t; want %t", err, e.NotExecuted(), tc.want)
			}
		})
	}
}
