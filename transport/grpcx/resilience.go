package grpcx

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
)

// UnaryClient runs every unary call of a plain [grpc.ClientConn] under p. Errors are
// *transport.Error, so that p knows a refused request from a failing callee; those
// of p are their cause. Attempts that run side by side have replies, headers,
// trailers and peers of their own, and the caller gets those of the attempt that
// counts. After an error the reply is empty. A nil p makes one attempt.
//
// Clients of [NewClient] have ClientConfig.Policy for this.
func UnaryClient(p resilience.Policy) grpc.UnaryClientInterceptor {
	plain := &client{}
	return func(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return verdict(protect(ctx, p, attempt{
			name: name, req: req, reply: reply, cc: cc, opts: opts,
			invoke: func(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
				var callee peer.Peer
				err := invoke(ctx, name, req, reply, cc, append(opts[:len(opts):len(opts)], grpc.Peer(&callee))...)
				return plain.translate(ctx, err, callee.Addr != nil)
			},
		}))
	}
}

// attempt is a unary call with a place for its results.
type attempt struct {
	name   string
	req    any
	reply  any
	cc     *grpc.ClientConn
	invoke grpc.UnaryInvoker
	opts   []grpc.CallOption
	forked bool
}

func (a attempt) run(ctx context.Context) error {
	err := a.invoke(ctx, a.name, a.req, a.reply, a.cc, a.opts...)
	if m, ok := a.reply.(proto.Message); ok && err != nil {
		proto.Reset(m) // a message may have come before the bad status
	}
	return err
}

// protect runs own under p and hands its caller what the attempt that counts brought.
func protect(ctx context.Context, p resilience.Policy, own attempt) error {
	got, err := resilience.DoWith(ctx, p, own, attempt.fork, callAttempt)
	if got.forked {
		own.take(got, err == nil)
	}
	return err
}

func callAttempt(ctx context.Context, a attempt) error { return a.run(ctx) }

// fork returns a copy whose results go to places of their own.
func (a attempt) fork() attempt {
	a.forked = true
	switch reply := a.reply.(type) {
	case proto.Message:
		a.reply = reply.ProtoReflect().New().Interface()
	default:
		if t := reflect.TypeOf(reply); t != nil && t.Kind() == reflect.Pointer {
			a.reply = reflect.New(t.Elem()).Interface()
		}
	}
	opts := make([]grpc.CallOption, len(a.opts))
	for i, opt := range a.opts {
		switch opt.(type) {
		case grpc.HeaderCallOption:
			opt = grpc.Header(new(metadata.MD))
		case grpc.TrailerCallOption:
			opt = grpc.Trailer(new(metadata.MD))
		case grpc.PeerCallOption:
			opt = grpc.Peer(new(peer.Peer))
		}
		opts[i] = opt
	}
	a.opts = opts
	return a
}

// take copies the results of a fork that has ended.
func (a attempt) take(fork attempt, good bool) {
	if good {
		if m, ok := a.reply.(proto.Message); ok {
			proto.Reset(m)
			proto.Merge(m, fork.reply.(proto.Message))
		} else if v := reflect.ValueOf(a.reply); v.Kind() == reflect.Pointer {
			v.Elem().Set(reflect.ValueOf(fork.reply).Elem())
		}
	}
	for i, opt := range a.opts {
		switch to := opt.(type) {
		case grpc.HeaderCallOption:
			*to.HeaderAddr = *fork.opts[i].(grpc.HeaderCallOption).HeaderAddr
		case grpc.TrailerCallOption:
			*to.TrailerAddr = *fork.opts[i].(grpc.TrailerCallOption).TrailerAddr
		case grpc.PeerCallOption:
			*to.PeerAddr = *fork.opts[i].(grpc.PeerCallOption).PeerAddr
		}
	}
}

// StreamClient opens every stream of a plain [grpc.ClientConn] under p. Only the
// opening is repeated, since what was sent cannot be sent again; it succeeds once
// the call has a connection, so that most failures of a callee come later. Breakers
// in p therefore judge the whole stream by its end, and the deadline of a timeout
// in p bounds all of it; see [resilience.Establish] for what every other policy
// sees. The caller must read to the end or cancel, as gRPC demands anyway.
//
// Errors of the opening are *transport.Error; those of the stream are gRPC's own.
func StreamClient(p resilience.Policy) grpc.StreamClientInterceptor {
	plain := &client{}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, name string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, end, err := resilience.Establish(ctx, p, func(ctx context.Context) (opened, error) {
			s := opened{ending: new(ending)}
			options := slices.Concat(opts, []grpc.CallOption{grpc.OnFinish(func(err error) {
				if err == io.EOF {
					err = nil
				}
				s.ending.finish(plain.translate(ctx, err, true))
			})})
			var err error
			s.stream, err = open(ctx, desc, cc, name, options...)
			return s, plain.translate(ctx, err, false)
		}, nil) // a stream ends with its context
		if err != nil {
			return nil, verdict(err)
		}
		s.ending.report(end)
		return s.stream, nil
	}
}

type opened struct {
	stream grpc.ClientStream
	*ending
}

// ending brings together the end of a stream and who is to be told, in any order.
type ending struct {
	mu       sync.Mutex
	tell     func(error)
	finished bool
	err      error
}

func (e *ending) report(tell func(error)) {
	e.mu.Lock()
	e.tell = tell
	finished, err := e.finished, e.err
	e.mu.Unlock()
	if finished {
		tell(err)
	}
}

func (e *ending) finish(err error) {
	e.mu.Lock()
	again, tell := e.finished, e.tell
	e.finished, e.err = true, err
	e.mu.Unlock()
	if tell != nil && !again {
		tell(err)
	}
}

// UnaryServer sheds load: it runs every unary handler under p. A call that p turns
// away is RESOURCE_EXHAUSTED for a rate limit and UNAVAILABLE otherwise, says that
// it was not executed, and carries p's RetryAfter. A handler runs at most once;
// another attempt of a retry or a hedge fails without running it. Errors of
// handlers that blame the request are no failures for p. The health service is left
// alone, as a busy server is not a dead one.
//
// A [Server] has Config.Policy for this. In Config.Options the interceptor would
// stand inside the layer that takes the claim "not executed" from handlers' errors.
func UnaryServer(p resilience.Policy) grpc.UnaryServerInterceptor {
	shed := unaryServer(p)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return shed(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return executed(ctx, req, info, handler)
		})
	}
}

// unaryServer keeps the claim "not executed" of errors, for a chain in which it is
// taken from those of the handler further in.
func unaryServer(p resilience.Policy) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if isHealth(info.FullMethod) {
			return handler(ctx, req)
		}
		var resp any
		err := serveOnce(ctx, p, func(ctx context.Context) (err error) {
			resp, err = handler(ctx, req)
			return err
		})
		return resp, err
	}
}

// StreamServer is [UnaryServer] for streams: p is held until the handler returns.
func StreamServer(p resilience.Policy) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if isHealth(info.FullMethod) {
			return handler(srv, stream)
		}
		return serveOnce(stream.Context(), p, func(ctx context.Context) error {
			return transport.Executed(handler(srv, serverStream{stream, ctx}))
		})
	}
}

func isHealth(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/"+healthpb.Health_ServiceDesc.ServiceName+"/")
}

var errServed = errors.New("grpcx: serve call: it was served already")

// serveOnce returns the handler's error if it ran, otherwise why it did not.
func serveOnce(ctx context.Context, p resilience.Policy, handle func(context.Context) error) error {
	var (
		mu     sync.Mutex // held while the handler runs, on whatever goroutine
		begun  bool
		answer error
	)
	err := resilience.Do(ctx, p, func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if begun {
			return &servedError{errServed}
		}
		begun = true
		if answer = handle(ctx); answer != nil {
			return &servedError{transport.AsError(answer)}
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if begun || err == nil {
		return answer
	}
	return rejected(err)
}

// servedError is final for a retry: the call has its answer.
type servedError struct{ err error }

func (e *servedError) Error() string   { return e.err.Error() }
func (e *servedError) Unwrap() error   { return e.err }
func (e *servedError) Retryable() bool { return false }

func rejected(err error) *transport.Error {
	e := transport.AsError(err)
	if _, ours := errors.AsType[*transport.Error](err); !ours && errors.Is(err, resilience.ErrRateLimited) {
		limited := transport.Errorf(transport.ResourceExhausted, "", "too many requests").WithCause(err)
		limited.Details = e.Details
		e = limited
	}
	if !e.Details.NotExecuted {
		e = e.WithCause(err)
		e.Details.NotExecuted = true
	}
	return e
}
