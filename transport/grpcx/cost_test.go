package grpcx_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/transport/grpcx"
)

// What observing a call may allocate beyond what plain gRPC does for it, the SDK and
// the recorder included.
func TestAllocationsOfACall(t *testing.T) {
	const calls = 500
	measure := func(register grpc.ServiceRegistrar, serve func(*bufconn.Listener), flags string) float64 {
		register.RegisterService(&echoDesc, &echo{say: same})
		l := bufconn.Listen(1 << 16)
		go serve(l)
		cc, err := grpc.NewClient("passthrough:///echo", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"+flags)
		call := func() {
			if err := cc.Invoke(ctx, sayMethod, wrapperspb.String("hello"), new(text)); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			call()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			call()
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / calls
	}
	plain := grpc.NewServer(grpc.UnaryInterceptor(passOn))
	defer plain.Stop()
	base := measure(plain, func(l *bufconn.Listener) { _ = plain.Serve(l) }, "01")
	for flags, most := range map[string]float64{"01": 20, "00": 18} {
		provider := sdktrace.NewTracerProvider()
		defer provider.Shutdown(context.Background())
		s, err := grpcx.NewServer(grpcx.Config{
			Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)), TracerProvider: provider, Metrics: prometheus.NewRegistry(),
			StreamWorkers: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		extra := measure(s, func(l *bufconn.Listener) { _ = s.ServeListener(l) }, flags) - base
		t.Logf("flags %s: %.1f allocations more than the %.1f of plain gRPC", flags, extra, base)
		if !raceEnabled && extra > most {
			t.Errorf("flags %s: %.1f allocations more than plain gRPC, want at most %v", flags, extra, most)
		}
	}
}
