package armature_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	kithttp "github.com/go-kit/kit/transport/http"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

type named struct {
	Name string `path:"name"`
}

// One function over HTTP and gRPC, and a go-kit server as it is, all observed alike.
func TestOneFunctionOverBothTransports(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	svc := full(t, func(c *armature.Config) {
		c.Exporter = func(context.Context) (sdktrace.SpanExporter, error) { return keeping{spans}, nil }
	})
	greet := transport.Func[named, string](func(_ context.Context, n named) (string, error) {
		if n.Name == "nobody" {
			return "", transport.Errorf(transport.NotFound, "NOBODY", "there is nobody to greet")
		}
		return "hello " + n.Name, nil
	})
	httpx.Handle(svc.HTTP, "GET /greet/{name}", greet)
	grpcx.Register(svc.GRPC, "demo.v1.Greeter", grpcx.Unary("Greet", transport.Map(greet,
		func(m *wrapperspb.StringValue) (named, error) { return named{m.GetValue()}, nil },
		func(text string) (*wrapperspb.StringValue, error) { return wrapperspb.String(text), nil })))
	svc.HTTP.Mount("GET /kit", kithttp.NewServer(
		func(context.Context, any) (any, error) { return "hello from go-kit", nil },
		func(context.Context, *http.Request) (any, error) { return nil, nil },
		kithttp.EncodeJSONResponse,
	))

	err := running(t, svc, func(stop func()) {
		base := "http://" + svc.HTTPAddr()
		for path, want := range map[string]int{"/greet/ada": 200, "/greet/nobody": 404, "/kit": 200} {
			if status, body := get(t, client(t), base+path); status != want {
				t.Errorf("%s = %d %s, want %d", path, status, body, want)
			}
		}
		_, body := get(t, client(t), base+"/greet/ada")
		var text string
		if err := json.Unmarshal([]byte(body), &text); err != nil || text != "hello ada" {
			t.Errorf("HTTP: %q, %v", body, err)
		}
		cc := connect(t, svc.GRPCAddr())
		call := grpcx.NewFunc[*wrapperspb.StringValue, *wrapperspb.StringValue](cc, "/demo.v1.Greeter/Greet")
		if out, err := call(t.Context(), wrapperspb.String("ada")); err != nil || out.GetValue() != "hello ada" {
			t.Errorf("gRPC: %v, %v", out, err)
		}
		if _, err := call(t.Context(), wrapperspb.String("nobody")); transport.CodeOf(err) != transport.NotFound {
			t.Errorf("gRPC of nobody: %v", err)
		}
		_, page := get(t, client(t), "http://"+svc.AdminAddr()+"/metrics")
		for _, line := range []string{
			`http_request_duration_seconds_count{method="GET",route="/greet/{name}",status_code="200"} 2`,
			`http_request_duration_seconds_count{method="GET",route="/greet/{name}",status_code="404"} 1`,
			`http_request_duration_seconds_count{method="GET",route="/kit",status_code="200"} 1`,
			`method="Greet",service="demo.v1.Greeter"} 1`,
		} {
			if !strings.Contains(page, line) {
				t.Errorf("no %s on the page of metrics", line)
			}
		}
		stop()
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range spans.GetSpans() {
		names = append(names, s.Name)
	}
	for _, name := range []string{"GET /greet/{name}", "GET /kit", "demo.v1.Greeter/Greet"} {
		if !slices.Contains(names, name) {
			t.Errorf("no span %q among %q", name, names)
		}
	}
}

// keeping keeps the spans when the service stops.
type keeping struct{ *tracetest.InMemoryExporter }

func (keeping) Shutdown(context.Context) error { return nil }
