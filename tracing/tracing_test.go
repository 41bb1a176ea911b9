package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory exports to a slice.
func memory(e *tracetest.InMemoryExporter) tracing.ExporterFunc {
	return func(context.Context) (sdktrace.SpanExporter, error) { return e, nil }
}

func setup(t *testing.T, cfg tracing.Config) *tracing.Provider {
	t.Helper()
	if cfg.Service == "" {
		cfg.Service = "order"
	}
	p, err := tracing.Setup(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return p
}

// recorded returns a context with a provider and a function that returns the
// finished spans.
func recorded(t *testing.T) (context.Context, func() tracetest.SpanStubs) {
	t.Helper()
	e := tracetest.NewInMemoryExporter()
	p := setup(t, tracing.Config{Exporter: memory(e)})
	return tracing.WithProvider(t.Context(), p), func() tracetest.SpanStubs {
		if err := p.ForceFlush(context.Background()); err != nil {
			t.Fatal(err)
		}
		return e.GetSpans()
	}
}

func TestWithoutExporterIDsAreReal(t *testing.T) {
	t.Parallel()
	ctx := tracing.WithProvider(t.Context(), setup(t, tracing.Config{}))
	ran := false
	_ = tracing.Do(ctx, "work", func(ctx context.Context) error {
		ran = true
		if span := trace.SpanContextFromContext(ctx); !span.IsValid() || !span.IsSampled() {
			t.Errorf("span context = %+v", span)
		}
		if id := tracing.TraceID(ctx); len(id) != 32 {
			t.Errorf("trace id = %q", id)
		}
		return nil
	})
	if !ran {
		t.Error("did not run")
	}
	if id := tracing.TraceID(t.Context()); id != "" {
		t.Errorf("trace id without a span = %q", id)
	}
}

func TestSetupDescribesTheService(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "somebody else")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "region=eu,team=blue")
	e := tracetest.NewInMemoryExporter()
	p := setup(t, tracing.Config{Service: "order", Version: "1.2.3", Environment: "test", Exporter: memory(e),
		Attributes: []attribute.KeyValue{attribute.String("team", "red")}})
	_ = tracing.Do(tracing.WithProvider(t.Context(), p), "work", func(context.Context) error { return nil })
	_ = p.ForceFlush(t.Context())
	got := map[string]string{}
	for _, kv := range e.GetSpans()[0].Resource.Attributes() {
		if !strings.HasPrefix(string(kv.Key), "telemetry.") {
			got[string(kv.Key)] = kv.Value.AsString()
		}
	}
	want := map[string]string{"service.name": "order", "service.version": "1.2.3",
		"deployment.environment.name": "test", "region": "eu", "team": "red"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSetupRefusesBadConfigs(t *testing.T) {
	t.Parallel()
	high := 1.5
	broken := func(context.Context) (sdktrace.SpanExporter, error) { return nil, errDown }
	for _, tt := range []struct {
		cfg  tracing.Config
		want string
	}{
		{tracing.Config{}, "Service"},
		{tracing.Config{Service: "order", SampleRatio: &high}, "SampleRatio = 1.5"},
		{tracing.Config{Service: "order", ShutdownTimeout: -1}, "ShutdownTimeout = -1ns"},
		{tracing.Config{Service: "order", Exporter: broken}, "open exporter: collector: down"},
	} {
		if _, err := tracing.Setup(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error = %v, want it to contain %q", err, tt.want)
		}
	}
}

var errDown = errors.New("collector: down")

func TestSamplingFollowsTheParent(t *testing.T) {
	remote := func(ctx context.Context, flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true}))
	}
	root := func(ctx context.Context) context.Context { return ctx }
	sampled := func(ctx context.Context) context.Context { return remote(ctx, trace.FlagsSampled) }
	unsampled := func(ctx context.Context) context.Context { return remote(ctx, 0) }
	none, all := 0.0, 1.0
	for _, tt := range []struct {
		name   string
		ratio  *float64
		env    string
		parent func(context.Context) context.Context
		want   bool
	}{
		{"default, root", nil, "", root, true},
		{"default, unsampled parent", nil, "", unsampled, false},
		{"none, root", &none, "", root, false},
		{"none, sampled parent", &none, "", sampled, true},
		{"all, unsampled parent", &all, "", unsampled, false},
		{"environment says off", nil, "always_off", root, false},
		{"config wins over the environment", &all, "always_off", root, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("OTEL_TRACES_SAMPLER", tt.env)
			}
			ctx := tt.parent(tracing.WithProvider(t.Context(), setup(t, tracing.Config{SampleRatio: tt.ratio})))
			_ = tracing.Do(ctx, "work", func(ctx context.Context) error {
				if got := trace.SpanContextFromContext(ctx).IsSampled(); got != tt.want {
					t.Errorf("sampled = %v, want %v", got, tt.want)
				}
				if parent := tracing.TraceID(tt.parent(context.Background())); parent != "" && parent != tracing.TraceID(ctx) {
					t.Errorf("trace id %s, want the parent's %s", tracing.TraceID(ctx), parent)
				}
				return nil
			})
		})
	}
}

// hidden is an error whose text is safe and whose cause is not.
type hidden struct{ cause error }

func (hidden) Error() string   { return "payment declined" }
func (h hidden) Unwrap() error { return h.cause }

func TestDoRecordsErrorsByTheirText(t *testing.T) {
	t.Parallel()
	ctx, spans := recorded(t)
	give := hidden{errors.New("card 4111-1111 of Ann")}
	if err := tracing.Do(ctx, "charge", func(context.Context) error { return give }); err != error(give) {
		t.Errorf("error = %v, want it unchanged", err)
	}
	span := spans()[0]
	if span.Status.Code != codes.Error || span.Status.Description != "payment declined" || len(span.Events) != 1 {
		t.Errorf("status = %+v, %d events", span.Status, len(span.Events))
	}
	if text := fmt.Sprintf("%+v", span); strings.Contains(text, "4111-1111") {
		t.Errorf("the hidden cause is in the span: %s", text)
	}
}

func TestDoNests(t *testing.T) {
	t.Parallel()
	ctx, spans := recorded(t)
	_ = tracing.Do(ctx, "outer", func(ctx context.Context) error {
		// The span itself knows its provider.
		inner := trace.ContextWithSpan(context.Background(), trace.SpanFromContext(ctx))
		return tracing.Do(inner, "inner", func(context.Context) error { return nil })
	})
	got := spans()
	if len(got) != 2 || got[0].Name != "inner" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() ||
		got[0].Status.Code != codes.Unset {
		t.Errorf("spans = %+v", got)
	}
}

func TestDoEndsTheSpanWhateverHappens(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){
		"panic":  func() { panic("card 4111-1111") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, spans := recorded(t)
			done, recovered := make(chan struct{}), any(nil)
			go func() {
				defer close(done)
				defer func() { recovered = recover() }()
				_ = tracing.Do(ctx, "work", func(context.Context) error { leave(); return nil })
			}()
			<-done
			if (recovered != nil) != (name == "panic") {
				t.Errorf("recovered %v", recovered)
			}
			got := spans()
			if len(got) != 1 || got[0].Status.Code != codes.Error {
				t.Fatalf("spans = %+v", got)
			}
			if text := fmt.Sprintf("%+v", got[0]); strings.Contains(text, "4111-1111") {
				t.Errorf("the panic's value is in the span: %s", text)
			}
		})
	}
}

type failed struct{ err error }

func (f failed) Failed() error { return f.err }

func TestMiddleware(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		response any
		err      error
		want     codes.Code
	}{
		{"success", "fine", nil, codes.Unset},
		{"error", nil, errDown, codes.Error},
		{"failed response", failed{errDown}, nil, codes.Error},
		{"response that did not fail", failed{}, nil, codes.Unset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, spans := recorded(t)
			ep := tracing.Middleware("get order")(func(context.Context, any) (any, error) { return tt.response, tt.err })
			response, err := ep(ctx, nil)
			if response != tt.response || err != tt.err {
				t.Errorf("got %v, %v", response, err)
			}
			if got := spans(); len(got) != 1 || got[0].Name != "get order" || got[0].Status.Code != tt.want {
				t.Errorf("spans = %+v", got)
			}
		})
	}
}

func TestGlobalOnlyOnRequest(t *testing.T) {
	before := otel.GetTracerProvider()
	setup(t, tracing.Config{})
	if otel.GetTracerProvider() != before {
		t.Fatal("the global provider changed unasked")
	}
	propagator := otel.GetTextMapPropagator()
	t.Cleanup(func() { otel.SetTracerProvider(before); otel.SetTextMapPropagator(propagator) })
	p := setup(t, tracing.Config{Global: true})
	if otel.GetTracerProvider() != trace.TracerProvider(p) {
		t.Error("the global provider is another one")
	}
	_ = tracing.Do(t.Context(), "work", func(ctx context.Context) error {
		if tracing.TraceID(ctx) == "" {
			t.Error("no span from the global provider")
		}
		return nil
	})
}

func TestPropagator(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	in := propagation.MapCarrier{"traceparent": parent, "baggage": "tenant=blue,user=ann"}
	for _, tt := range []struct {
		name string
		keys []string
		want map[string]string
	}{
		{"default lets no baggage through", nil, map[string]string{"traceparent": parent}},
		{"allowed key", []string{"tenant"}, map[string]string{"traceparent": parent, "baggage": "tenant=blue"}},
		{"key that is not there", []string{"plan"}, map[string]string{"traceparent": parent}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tracing.Propagator(tt.keys...)
			ctx := p.Extract(t.Context(), in)
			if id := tracing.TraceID(ctx); id != "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("trace id = %q", id)
			}
			if b := baggage.FromContext(ctx); b.Member("user").Value() != "" {
				t.Errorf("baggage from a stranger: %v", b)
			}
			// Baggage of our own making is held back as well.
			member, _ := baggage.NewMember("user", "ann")
			own, _ := baggage.FromContext(ctx).SetMember(member)
			out := propagation.MapCarrier{}
			p.Inject(baggage.ContextWithBaggage(ctx, own), out)
			if diff := cmp.Diff(tt.want, map[string]string(out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// exporter counts its shutdowns and can be slow or broken.
type exporter struct {
	shutdowns int
	block     chan struct{} // Shutdown ignores its context until it is closed
	err       error
}

func (e *exporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }
func (e *exporter) Shutdown(context.Context) error {
	e.shutdowns++
	if e.block != nil {
		<-e.block
	}
	return nil
}

func (e *exporter) open(context.Context) (sdktrace.SpanExporter, error) { return e, nil }

func TestShutdownIsIdempotent(t *testing.T) {
	t.Parallel()
	e := &exporter{}
	p := setup(t, tracing.Config{Exporter: e.open})
	for range 3 {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if e.shutdowns != 1 {
		t.Errorf("%d shutdowns, want 1", e.shutdowns)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &exporter{block: make(chan struct{})}
		p := setup(t, tracing.Config{Exporter: e.open, ShutdownTimeout: 3 * time.Second})
		start := time.Now()
		if err := p.Shutdown(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, want 3s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("second time: %v", err)
		}
		close(e.block)
		synctest.Wait()
	})
}

func TestFailedExportsAreLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := &exporter{err: errDown}
	p := setup(t, tracing.Config{Exporter: e.open, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	_ = tracing.Do(tracing.WithProvider(t.Context(), p), "work", func(context.Context) error { return nil })
	if err := p.Shutdown(context.Background()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if !strings.Contains(out.String(), `msg="spans dropped" count=1 error="collector: down"`) {
		t.Errorf("logged %q", out.String())
	}
}

func TestImportsStayLight(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "go.opentelemetry.io/otel/sdk") {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for _, heavy := range []string{"google.golang.org/grpc", "exporters/otlp"} {
		if strings.Contains(string(out), heavy) {
			t.Errorf("tracing compiles %s", heavy)
		}
	}
}
