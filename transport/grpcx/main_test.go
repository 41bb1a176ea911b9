package grpcx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/transport/grpcx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	text  = wrapperspb.StringValue
	unary func(ctx context.Context, in string) (string, error)
	chat  func(stream grpc.ServerStream) error
)

const (
	sayMethod  = "/test.v1.Echo/Say"
	chatMethod = "/test.v1.Echo/Chat"
)

// echo is a service without generated code.
type echo struct {
	say  unary
	chat chat
}

var echoDesc = grpc.ServiceDesc{
	ServiceName: "test.v1.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Say",
		Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(text)
			if err := dec(in); err != nil {
				return nil, err
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: sayMethod}, func(ctx context.Context, req any) (any, error) {
				out, err := srv.(*echo).say(ctx, req.(*text).GetValue())
				return wrapperspb.String(out), err
			})
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName:    "Chat",
		ServerStreams: true,
		ClientStreams: true,
		Handler:       func(srv any, stream grpc.ServerStream) error { return srv.(*echo).chat(stream) },
	}},
}

func same(_ context.Context, in string) (string, error) { return in, nil }

// passOn is for plain servers: the service calls its interceptor without asking.
func passOn(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(ctx, req)
}

// network connects clients to servers by made-up addresses.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

func (n *network) listen(addr string) *bufconn.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[string]*bufconn.Listener{}
	}
	l := bufconn.Listen(1 << 16)
	n.listeners[addr] = l
	return l
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

// start serves e on an address and returns the server and a function that stops
// it and waits.
func (n *network) start(t *testing.T, addr string, cfg grpcx.Config, e *echo) (*grpcx.Server, func()) {
	t.Helper()
	s, err := grpcx.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterService(&echoDesc, e)
	l := n.listen(addr)
	served := make(chan error, 1)
	go func() { served <- s.ServeListener(l) }()
	return s, sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func (n *network) client(t *testing.T, cfg grpcx.ClientConfig) (*grpc.ClientConn, func()) {
	t.Helper()
	cfg.Options = append(cfg.Options, grpc.WithContextDialer(n.dial))
	cc, err := grpcx.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cc, func() {
		if err := cc.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}

// pair is one server and one client.
func pair(t *testing.T, sc grpcx.Config, cc grpcx.ClientConfig, e *echo) (*grpc.ClientConn, func()) {
	t.Helper()
	var n network
	_, stop := n.start(t, "server", sc, e)
	cc.Target = "passthrough:///server"
	conn, closeConn := n.client(t, cc)
	return conn, func() {
		closeConn()
		stop()
	}
}

func say(cc grpc.ClientConnInterface, ctx context.Context, in string, opts ...grpc.CallOption) (string, error) {
	f := grpcx.NewFunc[*text, *text](cc, sayMethod, opts...)
	out, err := f(ctx, wrapperspb.String(in))
	return out.GetValue(), err
}

// journal is a logger's output, line by line.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

func (j *journal) lines(t *testing.T) []map[string]any {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []map[string]any
	for d := json.NewDecoder(bytes.NewReader(j.buf.Bytes())); ; {
		var line map[string]any
		err := d.Decode(&line)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
}
