package grpcx_test

import (
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/transport/grpcx"
)

// BenchmarkUnary is one call over loopback, both sides: plain gRPC against a
// server and a client with logs, metrics and every span recorded.
func BenchmarkUnary(b *testing.B) {
	listen := func(b *testing.B) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	run := func(b *testing.B, cc *grpc.ClientConn) {
		defer cc.Close()
		ctx, in := b.Context(), wrapperspb.String("hello")
		b.ReportAllocs()
		for b.Loop() {
			if err := cc.Invoke(ctx, sayMethod, in, new(text)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("plain", func(b *testing.B) {
		l, s := listen(b), grpc.NewServer(grpc.UnaryInterceptor(passOn))
		s.RegisterService(&echoDesc, &echo{say: same})
		go s.Serve(l)
		defer s.Stop()
		cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		run(b, cc)
	})
	b.Run("observed", func(b *testing.B) {
		tp := sdktrace.NewTracerProvider()
		s, err := grpcx.NewServer(grpcx.Config{
			Logger:         slog.New(slog.NewJSONHandler(io.Discard, nil)),
			Metrics:        prometheus.NewRegistry(),
			TracerProvider: tp,
		})
		if err != nil {
			b.Fatal(err)
		}
		l := listen(b)
		s.RegisterService(&echoDesc, &echo{say: same})
		go s.ServeListener(l)
		defer s.Shutdown(b.Context())
		cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: l.Addr().String(), TracerProvider: tp})
		if err != nil {
			b.Fatal(err)
		}
		run(b, cc)
	})
}
