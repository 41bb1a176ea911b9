package grpcx_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sideBySide starts n attempts at the same time, each on a fork, and returns with
// the first that succeeds while the others go on, as a hedge does.
type sideBySide int

func (n sideBySide) Describe() resilience.Description {
	return resilience.Description{Kind: "side-by-side"}
}

func (n sideBySide) Run(ctx context.Context, next resilience.Next) error {
	type result struct {
		fork resilience.Next
		err  error
	}
	results := make(chan result, n)
	for range n {
		fork := next.Fork()
		go func() { results <- result{fork, fork.Run(ctx)} }()
	}
	var errs []error
	for range n {
		r := <-results
		if r.err == nil {
			next.Adopt(r.fork)
			return nil
		}
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}

// plain connects a plain gRPC client to a plain gRPC server.
func plain(t *testing.T, e *echo, server []grpc.ServerOption, client ...grpc.DialOption) (*grpc.ClientConn, func()) {
	t.Helper()
	var n network
	s := grpc.NewServer(append(server, grpc.ChainUnaryInterceptor(passOn))...)
	s.RegisterService(&echoDesc, e)
	l := n.listen("server")
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	cc := must(grpc.NewClient("passthrough:///server", append(client,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(n.dial))...))
	return cc, func() {
		_ = cc.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func noDelay() *resilience.Retry {
	return must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)}))
}

func TestHedgesHaveResultsOfTheirOwn(t *testing.T) {
	t.Parallel()
	// The attempt that loses ends after the call: what it brings must not be seen.
	for _, through := range []string{"NewClient", "UnaryClient"} {
		t.Run(through, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				e := &echo{say: func(ctx context.Context, _ string) (string, error) {
					i := n.Add(1)
					name := []string{"", "first", "second"}[i]
					time.Sleep(time.Duration(3-i) * time.Second) // the second attempt wins
					_ = grpc.SetTrailer(ctx, metadata.Pairs("who", name))
					return name, grpc.SetHeader(ctx, metadata.Pairs("who", name))
				}}
				var cc *grpc.ClientConn
				var stop func()
				if through == "NewClient" {
					cc, stop = pair(t, grpcx.Config{}, grpcx.ClientConfig{Policy: sideBySide(2)}, e)
				} else {
					cc, stop = plain(t, e, nil, grpc.WithUnaryInterceptor(grpcx.UnaryClient(sideBySide(2))))
				}
				defer stop()
				var header, trailer metadata.MD
				var callee peer.Peer
				reply := wrapperspb.String("stale")
				err := cc.Invoke(t.Context(), sayMethod, wrapperspb.String("?"), reply, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&callee))
				check := func(when string) {
					if err != nil || reply.GetValue() != "second" || header.Get("who")[0] != "second" || trailer.Get("who")[0] != "second" || callee.Addr == nil {
						t.Errorf("%s: %v, %v, header %v, trailer %v, peer %v", when, reply, err, header, trailer, callee.Addr)
					}
				}
				check("at once")
				time.Sleep(5 * time.Second)
				check("after the other attempt has ended")
			})
		})
	}
}

func TestUnaryClient(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	e := &echo{say: func(_ context.Context, in string) (string, error) {
		switch in {
		case "bad":
			return "", status.Error(codes.InvalidArgument, "no")
		case "canceled":
			return "", status.Error(codes.Canceled, "not by the caller")
		case "flaky":
			if n.Add(1) < 3 {
				return "", status.Error(codes.Unavailable, "later")
			}
		}
		return in, nil
	}}
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
	cc, stop := plain(t, e, nil, grpc.WithUnaryInterceptor(grpcx.UnaryClient(resilience.Chain(b, noDelay()))))
	defer stop()
	if got, err := say(cc, t.Context(), "flaky"); got != "flaky" || err != nil || n.Load() != 3 {
		t.Errorf("flaky: %q, %v after %d attempts", got, err, n.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		in    string
		ctx   context.Context
		code  transport.Code
		state resilience.State
	}{
		{"bad", t.Context(), transport.InvalidArgument, resilience.Closed},
		{"ours", ctx, transport.Canceled, resilience.Closed},
		{"canceled", t.Context(), transport.Canceled, resilience.Open},
		{"rejected", t.Context(), transport.Unavailable, resilience.Open},
	} {
		_, err := say(cc, tt.ctx, tt.in)
		if transport.CodeOf(err) != tt.code || b.State() != tt.state {
			t.Errorf("%s: %v, breaker %v; want %v, %v", tt.in, err, b.State(), tt.code, tt.state)
		}
		if tt.in == "rejected" && (!errors.Is(err, resilience.ErrOpen) || !transport.AsError(err).NotExecuted()) {
			t.Errorf("rejected: %v", err)
		}
	}
}

func TestStreamClientHoldsTheBreaker(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  error
		want resilience.State
	}{
		{"good end", nil, resilience.Closed},
		{"refused", status.Error(codes.NotFound, "no"), resilience.Closed},
		{"broke off", status.Error(codes.Internal, "oops"), resilience.Open},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
			timeout := must(resilience.NewTimeout(time.Minute))
			e := &echo{chat: func(s grpc.ServerStream) error {
				in := new(text)
				for {
					switch err := s.RecvMsg(in); {
					case err == io.EOF:
						return tt.end
					case err != nil:
						return err
					}
					if err := s.SendMsg(in); err != nil {
						return err
					}
				}
			}}
			cc, stop := plain(t, e, nil, grpc.WithStreamInterceptor(grpcx.StreamClient(resilience.Chain(timeout, noDelay(), b, timeout))))
			defer stop()
			s := must(cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod))
			for range 3 {
				out := new(text)
				if err := errors.Join(s.SendMsg(wrapperspb.String("hi")), s.RecvMsg(out)); err != nil || out.GetValue() != "hi" {
					t.Fatalf("the stream ended with its opening: %v, %v", out, err)
				}
			}
			if b.Stats().Calls != 0 || b.State() != resilience.Closed {
				t.Errorf("judged before the end: %+v", b.Stats())
			}
			_ = s.CloseSend()
			if err := s.RecvMsg(new(text)); tt.end == nil && err != io.EOF || status.Code(err) != status.Code(tt.end) && tt.end != nil {
				t.Errorf("end: %v", err)
			}
			if b.State() != tt.want {
				t.Errorf("breaker %v, want %v", b.State(), tt.want)
			}
		})
	}
}

func TestStreamClientReportsAnAbandonedStreamAsNeutral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1, Probes: 1}))
		b.Trip(time.Second)
		time.Sleep(2 * time.Second)
		e := &echo{chat: func(s grpc.ServerStream) error { <-s.Context().Done(); return s.Context().Err() }}
		cc, stop := plain(t, e, nil, grpc.WithStreamInterceptor(grpcx.StreamClient(b)))
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		must(cc.NewStream(ctx, &echoDesc.Streams[0], chatMethod))
		if _, err := cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod); !errors.Is(err, resilience.ErrOpen) {
			t.Errorf("a second probe: %v, want ErrOpen while the first stream lives", err)
		}
		cancel()
		synctest.Wait()
		if b.State() != resilience.HalfOpen {
			t.Errorf("breaker %v, want half-open still", b.State())
		}
	})
}

type limitedErr struct{}

func (limitedErr) Error() string                     { return "over" }
func (limitedErr) Is(target error) bool              { return target == resilience.ErrRateLimited }
func (limitedErr) NotExecuted() bool                 { return true }
func (limitedErr) RetryAfter() (time.Duration, bool) { return time.Minute, true }

func TestServersShedLoad(t *testing.T) {
	t.Parallel()
	for _, through := range []string{"Config.Policy", "interceptors"} {
		for _, tt := range []struct {
			name string
			err  error
			code transport.Code
		}{
			{"rate limit", limitedErr{}, transport.ResourceExhausted},
			{"breaker", &resilience.OpenError{Until: time.Now().Add(time.Minute)}, transport.Unavailable},
		} {
			t.Run(through+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				e := &echo{say: same, chat: func(grpc.ServerStream) error { return nil }}
				p := refuse{tt.err}
				var cc *grpc.ClientConn
				var stop func()
				if through == "Config.Policy" {
					cc, stop = pair(t, grpcx.Config{Policy: p}, grpcx.ClientConfig{}, e)
					if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
						t.Errorf("health: %v", err)
					}
				} else {
					cc, stop = plain(t, e, []grpc.ServerOption{grpc.UnaryInterceptor(grpcx.UnaryServer(p)), grpc.StreamInterceptor(grpcx.StreamServer(p))})
				}
				defer stop()
				_, unaryErr := say(cc, t.Context(), "hi")
				s := must(cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod))
				for kind, err := range map[string]error{"unary": unaryErr, "stream": s.RecvMsg(new(text))} {
					st, _ := status.FromError(err)
					got := transport.FromStatus(st)
					if after, _ := got.RetryAfter(); got.Code != tt.code || !got.NotExecuted() || after > time.Minute || after < 50*time.Second {
						t.Errorf("%s: %v, not executed %v, after %v", kind, got, got.NotExecuted(), after)
					}
				}
			})
		}
	}
}

func TestServersRunHandlersOnce(t *testing.T) {
	t.Parallel()
	for _, p := range []resilience.Policy{noDelay(), sideBySide(3)} {
		var mu sync.Mutex
		n := 0
		count := func() error {
			mu.Lock()
			defer mu.Unlock()
			n++
			return status.Error(codes.Unavailable, "once")
		}
		e := &echo{say: func(context.Context, string) (string, error) { return "", count() }, chat: func(grpc.ServerStream) error { return count() }}
		cc, stop := pair(t, grpcx.Config{Policy: p}, grpcx.ClientConfig{}, e)
		_, err := say(cc, t.Context(), "hi")
		if transport.CodeOf(err) != transport.Unavailable || transport.AsError(err).NotExecuted() {
			t.Errorf("unary: %v", err)
		}
		s := must(cc.NewStream(t.Context(), &echoDesc.Streams[0], chatMethod))
		if err := s.RecvMsg(new(text)); transport.CodeOf(err) != transport.Unavailable {
			t.Errorf("stream: %v", err)
		}
		stop()
		if n != 2 {
			t.Errorf("%s: handlers ran %d times for two calls", p.Describe().Kind, n)
		}
	}
}

func TestServersTellPolicies(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]resilience.State{
		codes.InvalidArgument: resilience.Closed,
		codes.NotFound:        resilience.Closed,
		codes.Internal:        resilience.Open,
		codes.Unavailable:     resilience.Open,
	} {
		b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
		cc, stop := pair(t, grpcx.Config{Policy: b}, grpcx.ClientConfig{}, &echo{say: func(context.Context, string) (string, error) {
			return "", status.Error(code, "x")
		}})
		_, _ = say(cc, t.Context(), "hi")
		stop()
		if b.State() != want {
			t.Errorf("%v: breaker %v, want %v", code, b.State(), want)
		}
	}
}
