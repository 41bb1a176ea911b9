package otlpgrpc_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/tracing/otlpgrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a collector that remembers span names and one header.
type sink struct {
	collector.UnimplementedTraceServiceServer
	mu     sync.Mutex
	names  []string
	tokens []string
}

func (s *sink) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	s.tokens = append(s.tokens, md.Get("x-tenant")...)
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.names = append(s.names, span.Name)
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestFromEnvExports(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &sink{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Stop(); <-served }()

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
	p, err := tracing.Setup(t.Context(), tracing.Config{Service: "order", Exporter: otlpgrpc.FromEnv})
	if err != nil {
		t.Fatal(err)
	}
	_ = tracing.Do(tracing.WithProvider(t.Context(), p), "reserve stock", func(context.Context) error { return nil })
	if err := p.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(s.names, s.tokens), "[reserve stock] [blue]"; got != want {
		t.Errorf("collector got %s, want %s", got, want)
	}
}
