package grpcx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func TestNewClientChecksConfig(t *testing.T) {
	t.Parallel()
	reg, err := static.New(static.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  grpcx.ClientConfig
		want string
	}{
		"no target":      {grpcx.ClientConfig{}, "Target is empty"},
		"no resolver":    {grpcx.ClientConfig{Target: "armature:///order"}, "Resolver is nil"},
		"no service":     {grpcx.ClientConfig{Target: "armature:///", Resolver: reg}, "armature:///service"},
		"authority":      {grpcx.ClientConfig{Target: "armature://order", Resolver: reg}, "armature:///service"},
		"path":           {grpcx.ClientConfig{Target: "armature:///order/x", Resolver: reg}, "armature:///service"},
		"unknown option": {grpcx.ClientConfig{Target: "h:1", Options: []grpc.DialOption{grpc.WithDefaultServiceConfig("{")}}, "new client of h:1"},
	} {
		if _, err := grpcx.NewClient(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestCallersMetadataIsKept(t *testing.T) {
	t.Parallel()
	var got metadata.MD
	cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{}, &echo{say: func(ctx context.Context, _ string) (string, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return "", nil
	}})
	defer stop()
	ctx := flow.WithCorrelationID(t.Context(), "from flow")
	ctx = flow.WithPrincipal(ctx, flow.Principal{Subject: "jos\u00e9"}) // not sendable: the call must not fail
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("x-own", "1", "x-own", "2", "x-causation-id", "mine"))
	ctx = metadata.AppendToOutgoingContext(ctx, "x-later", "3")
	ctx = flow.WithCausationID(ctx, "from flow")
	if _, err := say(cc, ctx, ""); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][]string{
		"x-own": {"1", "2"}, "x-later": {"3"}, "x-causation-id": {"mine"}, "x-correlation-id": {"from flow"},
	} {
		if fmt.Sprint(got[key]) != fmt.Sprint(want) {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
}

// twice is a policy that makes a second attempt of what failed.
type twice struct{ attempts atomic.Int32 }

func (p *twice) Run(ctx context.Context, next resilience.Next) error {
	p.attempts.Add(1)
	err := next.Run(ctx)
	if err == nil {
		return nil
	}
	p.attempts.Add(1)
	return next.Run(ctx)
}

func (*twice) Describe() resilience.Description { return resilience.Description{Kind: "twice"} }

func TestPolicyIsRunAroundEachCall(t *testing.T) {
	t.Parallel()
	var policy twice
	var calls atomic.Int32
	var ids []string
	var intercepted atomic.Int32
	spans := tracetest.NewSpanRecorder()
	cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{
		Policy:         &policy,
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		Intercept: []grpc.UnaryClientInterceptor{func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			intercepted.Add(1)
			if md, _ := metadata.FromOutgoingContext(ctx); len(md["x-correlation-id"]) != 1 {
				t.Errorf("an attempt with metadata %v", md)
			}
			if _, ok := ctx.Deadline(); !ok {
				t.Error("an attempt without deadline")
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}},
	}, &echo{say: func(ctx context.Context, in string) (string, error) {
		ids = append(ids, flow.IdempotencyKey(ctx))
		if calls.Add(1) == 1 {
			return "", transport.Errorf(transport.Unavailable, "", "try again")
		}
		return in, nil
	}})
	defer stop()
	ctx := flow.WithOutgoingIdempotencyKey(flow.WithCorrelationID(t.Context(), "c"), "key")
	got, err := say(cc, ctx, "hello")
	if err != nil || got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	if policy.attempts.Load() != 2 || calls.Load() != 2 || intercepted.Load() != 2 {
		t.Errorf("%d attempts, %d calls, %d intercepted", policy.attempts.Load(), calls.Load(), intercepted.Load())
	}
	if fmt.Sprint(ids) != "[key key]" {
		t.Errorf("idempotency keys %v, want the same for both attempts", ids)
	}
	if len(spans.Ended()) != 1 {
		t.Errorf("%d client spans, want one per call", len(spans.Ended()))
	}
}

// refuse is a policy that lets nothing through.
type refuse struct{ err error }

func (p refuse) Run(context.Context, resilience.Next) error { return p.err }
func (refuse) Describe() resilience.Description             { return resilience.Description{Kind: "refuse"} }

type rejection struct{}

func (rejection) Error() string                     { return "breaker is open" }
func (rejection) NotExecuted() bool                 { return true }
func (rejection) RetryAfter() (time.Duration, bool) { return time.Minute, true }

func TestRejectionIsATransportError(t *testing.T) {
	t.Parallel()
	cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{Policy: refuse{rejection{}}}, &echo{say: same})
	defer stop()
	_, err := say(cc, t.Context(), "")
	var e *transport.Error
	if !errors.As(err, &e) || e.Code != transport.Unavailable || !e.NotExecuted() || !errors.Is(err, rejection{}) {
		t.Fatalf("error = %#v", err)
	}
	if after, ok := e.RetryAfter(); !ok || after != time.Minute {
		t.Errorf("RetryAfter = %v, %v", after, ok)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///nobody"})
		defer closeConn()
		_, err := say(cc, t.Context(), "")
		var e *transport.Error
		if !errors.As(err, &e) || e.Code != transport.Unavailable || !e.NotExecuted() || !e.Retryable() {
			t.Errorf("error = %#v", err)
		}
		if strings.Contains(e.Message, "refused") || !strings.Contains(err.Error(), "refused") {
			t.Errorf("message %q and error %q: what the network says belongs into the log and not to strangers", e.Message, err)
		}
		_, err = cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod)
		if !errors.As(err, &e) || e.Code != transport.Unavailable || !e.NotExecuted() {
			t.Errorf("stream: %#v", err)
		}
	})
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		var log journal
		reg, err := static.New(static.Config{})
		if err != nil {
			t.Fatal(err)
		}
		join := func(addr string) (*discovery.Registration, func()) {
			_, stop := n.start(t, addr, grpcx.Config{}, &echo{say: func(context.Context, string) (string, error) { return addr, nil }})
			r, err := reg.Register(t.Context(), discovery.Instance{Service: "echo", Addr: addr})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return r, stop
		}
		leave := func(r *discovery.Registration) {
			t.Helper()
			if err := r.Drain(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: reg, Logger: log.logger()})
		expect := func(when string, want ...string) {
			t.Helper()
			got := map[string]int{}
			for range 10 * len(want) {
				addr, err := say(cc, t.Context(), "")
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				got[addr]++
			}
			for _, addr := range want {
				if got[addr] != 10 {
					t.Errorf("%s: calls %v, want 10 for each of %v", when, got, want)
				}
			}
		}
		expectNone := func(when string) {
			t.Helper()
			start := time.Now()
			_, err := say(cc, t.Context(), "")
			var e *transport.Error
			if !errors.As(err, &e) || e.Code != transport.Unavailable || !e.NotExecuted() || !e.Retryable() || !errors.Is(err, discovery.ErrNoInstance) {
				t.Errorf("%s: error = %#v", when, err)
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("%s: failed after %v, want at once", when, waited)
			}
		}

		expectNone("before the first")
		a, stopA := join("10.0.0.1:80")
		_, _ = say(cc, t.Context(), "", grpc.WaitForReady(true)) // connects
		expect("one", "10.0.0.1:80")
		b, stopB := join("[2001:db8::1]:80")
		expect("two", "10.0.0.1:80", "[2001:db8::1]:80")
		leave(a)
		stopA()
		expect("the first left", "[2001:db8::1]:80")
		sick := b.Instance()
		sick.Health = discovery.Critical
		if err := b.Update(t.Context(), sick); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expectNone("the only one is critical")
		leave(b)
		stopB()
		expectNone("the last left")

		// With WaitForReady the call waits for an instance, or for its deadline.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = say(cc, ctx, "", grpc.WaitForReady(true))
		cancel()
		var e *transport.Error
		if !errors.As(err, &e) || e.Code != transport.DeadlineExceeded || !e.NotExecuted() {
			t.Errorf("waiting in vain: %#v", err)
		}
		answered := make(chan string, 1)
		go func() {
			addr, err := say(cc, t.Context(), "", grpc.WaitForReady(true))
			if err != nil {
				t.Error(err)
			}
			answered <- addr
		}()
		synctest.Wait()
		c, stopC := join("10.0.0.3:80")
		if addr := <-answered; addr != "10.0.0.3:80" {
			t.Errorf("answered by %q", addr)
		}
		leave(c)
		closeConn()
		stopC()
		if len(log.lines(t)) < 5 {
			t.Errorf("changes are not logged: %v", log.lines(t))
		}
	})
}

// An instance that leaves finishes the calls it has.
func TestLeavingInstanceFinishesItsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		reg, err := static.New(static.Config{})
		if err != nil {
			t.Fatal(err)
		}
		_, stop := n.start(t, "10.0.0.1:80", grpcx.Config{}, &echo{say: func(_ context.Context, in string) (string, error) {
			<-time.After(time.Second)
			return in, nil
		}})
		r, err := reg.Register(t.Context(), discovery.Instance{Service: "echo", Addr: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: reg})
		called := make(chan error, 1)
		go func() { _, err := say(cc, t.Context(), ""); called <- err }()
		synctest.Wait()
		if err := r.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-called; err != nil {
			t.Errorf("the call in progress: %v", err)
		}
		closeConn()
	})
}

type silent struct{}

func (silent) Watch(context.Context, string) iter.Seq[discovery.Snapshot] {
	return func(func(discovery.Snapshot) bool) {}
}

func TestResolverWithoutAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: silent{}})
		defer closeConn()
		if _, err := say(cc, t.Context(), ""); !errors.Is(err, discovery.ErrNoInstance) {
			t.Errorf("error = %v", err)
		}
	})
}

// An idle connection stops following its service and starts again with the next
// call.
func TestIdleConnectionWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		_, stop := n.start(t, "10.0.0.1:80", grpcx.Config{}, &echo{say: same})
		_, stopLate := n.start(t, "10.0.0.2:80", grpcx.Config{}, &echo{say: same})
		reg, err := static.New(static.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := reg.Register(t.Context(), discovery.Instance{Service: "echo", Addr: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: reg, Options: []grpc.DialOption{grpc.WithIdleTimeout(time.Second)}})
		if _, err := say(cc, t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if state := cc.GetState(); state != connectivity.Idle {
			t.Fatalf("after a minute: %v", state)
		}
		if err := r.Update(t.Context(), discovery.Instance{Addr: "10.0.0.2:80"}); err != nil {
			t.Fatal(err)
		}
		stop()
		if got, err := say(cc, t.Context(), "awake"); err != nil || got != "awake" {
			t.Errorf("after a pause: %q, %v", got, err)
		}
		closeConn()
		stopLate()
	})
}

// The policies judge what the server says, and their own verdicts have the shape of
// every other error.
func TestRealPolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retry, err := resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 3})
		if err != nil {
			t.Fatal(err)
		}
		breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "echo", Window: resilience.Consecutive(), Failures: 3})
		if err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int32
		cc, stop := pair(t, grpcx.Config{}, grpcx.ClientConfig{Policy: resilience.Chain(retry, breaker)}, &echo{say: func(_ context.Context, in string) (string, error) {
			calls.Add(1)
			if in == "refuse" {
				return "", errSoldOut
			}
			return "", transport.Errorf(transport.Unavailable, "BUSY", "busy")
		}})
		defer stop()
		for range 5 { // refusals are answers: neither retried nor held against the server
			calls.Store(0)
			if _, err := say(cc, t.Context(), "refuse"); !errors.Is(err, errSoldOut) || calls.Load() != 1 {
				t.Errorf("a refusal: %d calls, error %v", calls.Load(), err)
			}
		}
		calls.Store(0)
		_, err = say(cc, t.Context(), "")
		var exhausted *resilience.RetryError
		if transport.CodeOf(err) != transport.Unavailable || !errors.As(err, &exhausted) || exhausted.Attempts != 3 || calls.Load() != 3 {
			t.Errorf("%d calls, error %v", calls.Load(), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = say(cc, ctx, "")
		var e *transport.Error
		if !errors.Is(err, resilience.ErrOpen) || !errors.As(err, &e) || e.Code != transport.Unavailable || !e.NotExecuted() || calls.Load() != 3 {
			t.Errorf("with the breaker open: %d calls, error %#v", calls.Load(), err)
		}
	})
}

// What an instance said before it left is its word, not the registry's.
func TestAnswerOfALeavingInstanceIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, err := static.New(static.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := reg.Register(t.Context(), discovery.Instance{Service: "echo", Addr: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		var n network
		_, stop := n.start(t, "10.0.0.1:80", grpcx.Config{}, &echo{say: func(ctx context.Context, _ string) (string, error) {
			if err := r.Drain(ctx, 0); err != nil {
				t.Error(err)
			}
			<-time.After(time.Second) // long enough for every client to hear of it
			return "", transport.Errorf(transport.Unavailable, "HALF_WAY", "gone half-way")
		}})
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: reg})
		_, err = say(cc, t.Context(), "")
		var e *transport.Error
		if !errors.As(err, &e) || e.Reason != "HALF_WAY" || e.NotExecuted() || errors.Is(err, discovery.ErrNoInstance) {
			t.Errorf("error = %#v", err)
		}
		closeConn()
		stop()
	})
}

// A call whose first attempt may have had an effect did not "not execute", whatever
// became of the others.
func TestNotExecutedIsAboutAllAttempts(t *testing.T) {
	t.Parallel()
	for _, reached := range []bool{false, true} {
		t.Run(fmt.Sprintf("reached=%v", reached), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				retry, err := resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 2})
				if err != nil {
					t.Fatal(err)
				}
				reg, err := static.New(static.Config{})
				if err != nil {
					t.Fatal(err)
				}
				var n network
				var r *discovery.Registration
				_, stop := n.start(t, "10.0.0.1:80", grpcx.Config{}, &echo{say: func(ctx context.Context, _ string) (string, error) {
					if err := r.Drain(ctx, 0); err != nil {
						t.Error(err)
					}
					return "", transport.Errorf(transport.Unavailable, "", "gone half-way")
				}})
				if reached {
					if r, err = reg.Register(t.Context(), discovery.Instance{Service: "echo", Addr: "10.0.0.1:80"}); err != nil {
						t.Fatal(err)
					}
				}
				cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "armature:///echo", Resolver: reg, Policy: retry})
				_, err = say(cc, t.Context(), "")
				var e *transport.Error
				if !errors.As(err, &e) || e.NotExecuted() == reached || !errors.Is(err, discovery.ErrNoInstance) {
					t.Errorf("error = %#v", err)
				}
				closeConn()
				stop()
			})
		})
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	var served context.Context
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cc, stop := pair(t, grpcx.Config{TracerProvider: tp}, grpcx.ClientConfig{TracerProvider: tp, Policy: refuse{errors.New("not for streams")}}, &echo{chat: func(stream grpc.ServerStream) error {
		served = stream.Context()
		for {
			in := new(text)
			switch err := stream.RecvMsg(in); {
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			}
			switch in.GetValue() {
			case "refuse":
				return errSoldOut
			case "panic":
				panic("in a stream")
			}
			if err := stream.SendMsg(in); err != nil {
				return err
			}
		}
	}})
	open := func() grpc.ClientStream {
		t.Helper()
		ctx := metadata.AppendToOutgoingContext(flow.WithCorrelationID(t.Context(), "c-1"), "x-own", "1")
		s, err := cc.NewStream(ctx, &echoDesc.Streams[0], chatMethod)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(wrapperspb.String("hello")); err != nil {
			t.Fatal(err)
		}
		got := new(text)
		if err := s.RecvMsg(got); err != nil || got.GetValue() != "hello" {
			t.Fatalf("received %q, %v", got.GetValue(), err)
		}
		return s
	}
	good := open()
	if flow.CorrelationID(served) != "c-1" {
		t.Errorf("correlation id %q", flow.CorrelationID(served))
	}
	if md, _ := metadata.FromIncomingContext(served); fmt.Sprint(md["x-own"]) != "[1]" {
		t.Errorf("metadata %v", md)
	}
	if _, ok := served.Deadline(); ok {
		t.Error("a stream was given a deadline")
	}
	if _, err := good.Header(); err != nil {
		t.Errorf("Header = %v", err)
	}
	if err := good.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := good.RecvMsg(new(text)); err != io.EOF {
		t.Errorf("the good end is %v, want io.EOF", err)
	}
	for in, want := range map[string]transport.Code{"refuse": transport.FailedPrecondition, "panic": transport.Internal} {
		s := open()
		if err := s.SendMsg(wrapperspb.String(in)); err != nil {
			t.Fatal(err)
		}
		err := s.RecvMsg(new(text))
		var e *transport.Error
		if !errors.As(err, &e) || e.Code != want {
			t.Errorf("%s: %v", in, err)
		}
		if in == "refuse" && !errors.Is(err, errSoldOut) {
			t.Errorf("%v is not the sentinel", err)
		}
	}
	stop()
	kinds := map[string]int{}
	for _, s := range spans.Ended() {
		kinds[s.SpanKind().String()]++
		if s.SpanKind().String() == "server" && !s.Parent().IsValid() {
			t.Error("a server span without parent")
		}
	}
	if kinds["client"] != 3 || kinds["server"] != 3 {
		t.Errorf("spans %v, want 3 of each", kinds)
	}
}

// A neighbour that is started again has to be found within a moment, whatever gRPC
// would wait by itself.
func TestReconnectsWithinAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n network
		cc, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///10.0.0.1:80"})
		defer closeConn()
		for range 10 { // the pauses grow with each attempt that finds nobody
			if _, err := say(cc, t.Context(), ""); transport.CodeOf(err) != transport.Unavailable {
				t.Errorf("err = %v", err)
			}
			time.Sleep(5 * time.Second) // virtual
		}
		_, stop := n.start(t, "10.0.0.1:80", grpcx.Config{}, &echo{say: same})
		defer stop()
		began := time.Now()
		if _, err := say(cc, t.Context(), "", grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the neighbour was found after %v", took)
		}
	})
}
