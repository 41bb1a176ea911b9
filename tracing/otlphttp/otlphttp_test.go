package otlphttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/tracing/otlphttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFromEnvExports(t *testing.T) {
	var (
		mu  sync.Mutex
		got []string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Error(err)
			return
		}
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					got = append(got, r.URL.Path, r.Header.Get("X-Tenant"), span.Name)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer server.Close()

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
	p, err := tracing.Setup(t.Context(), tracing.Config{Service: "order", Exporter: otlphttp.FromEnv})
	if err != nil {
		t.Fatal(err)
	}
	_ = tracing.Do(tracing.WithProvider(t.Context(), p), "reserve stock", func(context.Context) error { return nil })
	if err := p.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got, want := fmt.Sprint(got), "[/v1/traces blue reserve stock]"; got != want {
		t.Errorf("collector got %s, want %s", got, want)
	}
}
