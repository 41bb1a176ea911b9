package httpx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func newClient[Req, Resp any](t testing.TB, cfg httpx.ClientConfig, pattern string) transport.Func[Req, Resp] {
	t.Helper()
	if cfg.Client == nil {
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		cfg.Client = &http.Client{Transport: tr}
	}
	f, err := httpx.NewClient[Req, Resp](cfg, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestClientSendsWhatTheServerReads(t *testing.T) {
	t.Parallel()
	type order struct {
		Shop  string        `path:"shop"`
		Rest  string        `path:"rest"`
		Tags  []string      `query:"tag"`
		Wait  time.Duration `query:"wait"`
		Since *time.Time    `query:"since"`
		Pref  string        `header:"Prefer"`
		Items []item        `json:"items"`
	}
	type seen struct {
		Order                    order
		Shop, Rest, Pref         string
		Key, Correlation, Length string
		Budget                   bool
	}
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "POST /shops/{shop}/{rest...}", func(ctx context.Context, o *order) (*seen, error) {
		deadline, ok := ctx.Deadline()
		return &seen{
			Order: *o, Key: flow.IdempotencyKey(ctx), Correlation: flow.CorrelationID(ctx),
			Budget: ok && time.Until(deadline) < 6*time.Second,
		}, nil
	})
	call := newClient[*order, *seen](t, httpx.ClientConfig{BaseURL: serve(t, s) + "/"}, "POST /shops/{shop}/{rest...}")
	since := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	sent := order{
		Shop: "a/b ?%ä", Rest: "x y/z", Tags: []string{"1&2", "ü"}, Wait: time.Minute, Since: &since, Pref: "minimal",
		Items: []item{{SKU: "blue", Quantity: 3}},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ctx = flow.WithOutgoingIdempotencyKey(flow.WithCorrelationID(ctx, "corr"), "key")
	got, err := call(ctx, &sent)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&seen{Order: sent, Key: "key", Correlation: "corr", Budget: true}, got); diff != "" {
		t.Errorf("(-sent +received):\n%s", diff)
	}
	for _, bad := range []string{"", ".", ".."} {
		_, err := call(t.Context(), &order{Shop: bad})
		if e := transport.AsError(err); e.Code != transport.InvalidArgument || !e.NotExecuted() {
			t.Errorf("shop %q: %v", bad, err)
		}
	}
	if _, err := call(t.Context(), nil); transport.CodeOf(err) != transport.InvalidArgument {
		t.Errorf("nil request: %v", err)
	}
}

func TestErrorsSurviveTheWire(t *testing.T) {
	t.Parallel()
	errStock := transport.Errorf(transport.FailedPrecondition, "OUT_OF_STOCK", "not enough").WithDomain("inventory")
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "GET /stock", func(context.Context, struct{}) (item, error) {
		return item{}, fmt.Errorf("reserve: %w", errStock.WithRetryAfter(time.Minute).WithViolations(transport.Violation{Pointer: "/n", Detail: "3 at most"}))
	})
	call := newClient[struct{}, item](t, httpx.ClientConfig{BaseURL: serve(t, s)}, "GET /stock")
	_, err := call(t.Context(), struct{}{})
	if !errors.Is(err, errStock) {
		t.Fatalf("errors.Is(%v) = false", err)
	}
	e := transport.AsError(err)
	if after, _ := e.RetryAfter(); after != time.Minute || e.Details.Violations[0].Pointer != "/n" {
		t.Errorf("details %+v", e.Details)
	}
}

func TestClientAndStrangers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name        string
		status      int
		contentType string
		body        string
		header      string
		code        transport.Code
		after       time.Duration
	}{
		{name: "html 502", status: 502, contentType: "text/html", body: "<html>", code: transport.Unavailable},
		{name: "plain 404", status: 404, contentType: "text/plain", body: "nope", code: transport.NotFound},
		{name: "429 with a header", status: 429, header: "7", code: transport.ResourceExhausted, after: 7 * time.Second},
		{name: "absurd header", status: 503, header: "99999999999999999999", code: transport.Unavailable},
		{name: "redirect", status: 302, code: transport.Unknown},
		{name: "html 200", status: 200, contentType: "text/html", body: "<html>", code: transport.Internal},
		{name: "truncated json", status: 200, contentType: "application/json", body: `{"sku":`, code: transport.Internal},
		{name: "too large", status: 200, contentType: "application/json", body: `{"sku":"` + strings.Repeat("x", 2000) + `"}`, code: transport.Internal},
		{name: "unknown fields are fine", status: 200, contentType: "application/json; charset=utf-8", body: `{"sku":"a","new":1}`, code: transport.OK},
		{name: "no content", status: 204, code: transport.OK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					t.Errorf("followed a redirect to %s", r.URL.Path)
				}
				for name, value := range map[string]string{"Content-Type": tc.contentType, "Retry-After": tc.header} {
					if value != "" {
						w.Header().Set(name, value)
					}
				}
				if tc.status == 302 {
					w.Header().Set("Location", "/elsewhere")
				}
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			}))
			_, err := newClient[struct{}, item](t, httpx.ClientConfig{BaseURL: url, MaxBody: 1000}, "GET /{$}")(t.Context(), struct{}{})
			if got := transport.CodeOf(err); got != tc.code {
				t.Fatalf("got %v: %v", got, err)
			}
			if err != nil {
				if after, _ := transport.AsError(err).RetryAfter(); after != tc.after {
					t.Errorf("retry after %v", after)
				}
			}
		})
	}
}

func TestClientWithoutAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = newClient[struct{}, item](t, httpx.ClientConfig{BaseURL: "http://" + l.Addr().String()}, "GET /")(t.Context(), struct{}{})
	if e := transport.AsError(err); e.Code != transport.Unavailable || !e.NotExecuted() {
		t.Errorf("connection refused: %v", err)
	}
	url := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	_, err = newClient[echo, item](t, httpx.ClientConfig{BaseURL: url}, "POST /")(t.Context(), echo{})
	if e := transport.AsError(err); e.Code != transport.Unavailable || e.NotExecuted() {
		t.Errorf("connection lost: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newClient[struct{}, item](t, httpx.ClientConfig{BaseURL: url}, "GET /")(canceled, struct{}{})
	if transport.CodeOf(err) != transport.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := roundTripper(func(r *http.Request) (*http.Response, error) {
			if got := r.Header.Get("Request-Timeout-Ms"); got != "3000" {
				t.Errorf("Request-Timeout-Ms: %q", got)
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		call := newClient[struct{}, item](t, httpx.ClientConfig{BaseURL: "http://x", Timeout: 3 * time.Second, Client: &http.Client{Transport: hang}}, "GET /")
		start := time.Now()
		_, err := call(t.Context(), struct{}{})
		if transport.CodeOf(err) != transport.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

type again struct{ attempts int }

func (a again) Run(ctx context.Context, next resilience.Next) (err error) {
	for range a.attempts {
		if err = next.Run(ctx); err == nil {
			return nil
		}
	}
	return err
}
func (again) Describe() resilience.Description { return resilience.Description{Kind: "again"} }

func TestClientPolicyAndSpans(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	var attempts atomic.Int64
	s := newServer(t, httpx.Config{TracerProvider: provider})
	httpx.Handle(s, "POST /echo", func(_ context.Context, e echo) (echo, error) {
		if attempts.Add(1) < 3 {
			return echo{}, transport.Errorf(transport.Unavailable, "", "not yet")
		}
		return e, nil
	})
	call := newClient[echo, echo](t, httpx.ClientConfig{BaseURL: serve(t, s), Policy: again{3}, TracerProvider: provider}, "POST /echo")
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	got, err := call(ctx, echo{N: 7})
	root.End()
	if err != nil || got.N != 7 || attempts.Load() != 3 {
		t.Fatalf("%v after %d attempts: %v", got, attempts.Load(), err)
	}
	count := map[string]int{}
	for _, span := range spans.Ended() {
		count[span.SpanKind().String()]++
		if span.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("%s is in another trace", span.Name())
		}
	}
	if count["client"] != 3 || count["server"] != 3 {
		t.Errorf("spans %v", count)
	}
}

func ExampleNewClient() {
	s, _ := httpx.NewServer(httpx.Config{})
	errClosed := transport.Errorf(transport.FailedPrecondition, "CLOSED", "the shop is closed")
	httpx.Handle(s, "POST /shops/{shop}/orders", func(context.Context, *place) (placed, error) { return placed{}, errClosed })
	srv := httptest.NewServer(s)
	defer srv.Close()

	order, err := httpx.NewClient[*place, placed](httpx.ClientConfig{BaseURL: srv.URL, Client: srv.Client()}, "POST /shops/{shop}/orders")
	if err != nil {
		panic(err)
	}
	_, err = order(context.Background(), &place{Shop: "corner"})
	fmt.Println(errors.Is(err, errClosed))
	// Output: true
}
