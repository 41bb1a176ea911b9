package httpx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newServer(t testing.TB, cfg httpx.Config) *httpx.Server {
	t.Helper()
	s, err := httpx.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type item struct {
	SKU      string `json:"sku"`
	Quantity uint32 `json:"quantity"`
}

type place struct {
	Shop   string             `path:"shop"`
	Dry    bool               `query:"dry"`
	Prefer string             `header:"Prefer"`
	Items  []item             `json:"items"`
	Note   *string            `json:"note"`
	Due    time.Time          `json:"due"`
	Labels map[string]int8    `json:"labels"`
	Extra  map[string]any     `json:"extra"`
	Nested struct{ A, B int } `json:"nested"`
}

func (p *place) Validate() error {
	if p.Shop == "closed" {
		return errors.New("the shop is closed")
	}
	return nil
}

type placed struct {
	ID    string `json:"id"`
	Shop  string `json:"shop"`
	Count int    `json:"count"`
	Dry   bool   `json:"dry"`
}

func (placed) StatusCode() int        { return http.StatusCreated }
func (p placed) Headers() http.Header { return http.Header{"Location": {"/orders/" + p.ID}} }

// do returns the answer and, if it is one, its problem document.
func do(t testing.TB, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, transport.Problem) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var p transport.Problem
	if w.Code >= 400 {
		if got := w.Header().Get("Content-Type"); got != transport.ProblemType {
			t.Errorf("Content-Type of a %d is %q", w.Code, got)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("no problem document: %v in %s", err, w.Body)
		}
		if p.Status != w.Code {
			t.Errorf("status %d in the document, %d on the wire", p.Status, w.Code)
		}
	}
	if got, want := w.Header().Get("Content-Length"), fmt.Sprint(w.Body.Len()); w.Code != 204 && got != want && r.Method != "HEAD" {
		t.Errorf("Content-Length %q for %s bytes", got, want)
	}
	if w.Header().Get("X-Correlation-Id") == "" {
		t.Error("no correlation id")
	}
	return w, p
}

func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	type violations = []transport.ProblemViolation
	one := func(pointer, detail string) violations { return violations{{Pointer: pointer, Detail: detail}} }
	for _, tc := range []struct {
		name, method, target, body, contentType string
		status                                  int
		reason                                  string
		errors                                  violations
	}{
		{name: "malformed", body: `{"items": [}`, status: 400, reason: "MALFORMED_JSON",
			errors: one("", "invalid character '}' looking for beginning of value, at line 1, column 12")},
		{name: "malformed on line 2", body: "{\n \"items\" 1}", status: 400, reason: "MALFORMED_JSON",
			errors: one("", "invalid character '1' after object key, at line 2, column 10")},
		{name: "ends early", body: `{"items": [`, status: 400, reason: "MALFORMED_JSON", errors: one("", "it ends early, at line 1, column 12")},
		{name: "empty body", body: " ", status: 400, reason: "MALFORMED_JSON", errors: one("", "the body is empty")},
		{name: "no body", body: "", status: 400, reason: "MALFORMED_JSON", errors: one("", "the body is empty")},
		{name: "null", body: `null`, status: 400, reason: "INVALID_REQUEST", errors: one("", "must be an object, got null")},
		{name: "array for object", body: `[1]`, status: 400, reason: "INVALID_REQUEST", errors: one("", "must be an object, got an array")},
		{name: "trailing data", body: `{} {}`, status: 400, reason: "MALFORMED_JSON", errors: one("", "there is data after the JSON value, at line 1, column 4")},
		{name: "unknown field", body: `{"itmes": []}`, status: 400, reason: "INVALID_REQUEST", errors: one("/itmes", "is not a known field")},
		{name: "unknown field nested", body: `{"items":[{"sku":"a"},{"sku":"b","a/b~":1}]}`, status: 400, reason: "INVALID_REQUEST", errors: one("/items/1/a~1b~0", "is not a known field")},
		{name: "a parameter is no body field", body: `{"Shop":"other","Prefer":"x"}`, status: 400, reason: "INVALID_REQUEST",
			errors: violations{{Pointer: "/Shop", Detail: "is not a known field"}, {Pointer: "/Prefer", Detail: "is not a known field"}}},
		{name: "wrong type nested", body: `{"items":[{"sku":7}]}`, status: 400, reason: "INVALID_REQUEST", errors: one("/items/0/sku", "must be a string, got a number")},
		{name: "several at once", body: `{"items":[{"sku":7,"quantity":-1}],"note":{},"nested":{"A":true}}`, status: 400, reason: "INVALID_REQUEST", errors: violations{
			{Pointer: "/items/0/sku", Detail: "must be a string, got a number"},
			{Pointer: "/items/0/quantity", Detail: "must not be negative"},
			{Pointer: "/note", Detail: "must be a string, got an object"},
			{Pointer: "/nested/A", Detail: "must be a whole number, got a boolean"}}},
		{name: "overflow", body: `{"items":[{"quantity":4294967296}]}`, status: 400, reason: "INVALID_REQUEST", errors: one("/items/0/quantity", "must be at most 4294967295")},
		{name: "overflow of a signed one", body: `{"labels":{"x":-129}}`, status: 400, reason: "INVALID_REQUEST", errors: one("/labels/x", "must be at least -128")},
		{name: "overflow of everything", body: `{"items":[{"quantity":1e999}]}`, status: 400, reason: "INVALID_REQUEST", errors: one("/items/0/quantity", "must be a whole number")},
		{name: "fraction", body: `{"items":[{"quantity":1.5}]}`, status: 400, reason: "INVALID_REQUEST", errors: one("/items/0/quantity", "must be a whole number")},
		{name: "time", body: `{"due":"tomorrow"}`, status: 400, reason: "INVALID_REQUEST", errors: one("/due", "must be a time as in 2006-01-02T15:04:05Z")},
		{name: "oversized", body: `{"note":"` + strings.Repeat("x", 2000) + `"}`, status: 413, reason: "BODY_TOO_LARGE"},
		{name: "content type", body: `{}`, contentType: "text/plain", status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "no content type", body: `{}`, contentType: "-", status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "charset", body: `{}`, contentType: "application/json; charset=latin1", status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "deep nesting", body: `{"extra":{"x":` + strings.Repeat("[", 900) + `}}`, status: 400, reason: "MALFORMED_JSON"},
		{name: "query", target: "/shops/a/orders?dry=maybe", body: `{}`, status: 400, reason: "INVALID_REQUEST", errors: one("/query/dry", `query parameter "dry" must be true or false`)},
		{name: "query twice", target: "/shops/a/orders?dry=true&dry=false", body: `{}`, status: 400, reason: "INVALID_REQUEST", errors: one("/query/dry", `query parameter "dry" is given more than once`)},
		{name: "query string", target: "/shops/a/orders?dry=%zz", body: `{}`, status: 400, reason: "INVALID_REQUEST", errors: one("/query", "the query string is malformed")},
		{name: "Validate", target: "/shops/closed/orders", body: `{}`, status: 422, reason: "INVALID_REQUEST"},
		{name: "no such path", target: "/nowhere", body: `{}`, status: 404, reason: "ROUTE_NOT_FOUND"},
		{name: "method", method: "PUT", body: `{}`, status: 405, reason: "METHOD_NOT_ALLOWED"},
		{name: "pprof", method: "GET", target: "/debug/pprof/cmdline", status: 404, reason: "ROUTE_NOT_FOUND"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, httpx.Config{MaxBody: 1000})
			called := false
			httpx.Handle(s, "POST /shops/{shop}/orders", func(context.Context, *place) (placed, error) {
				called = true
				return placed{}, nil
			})
			if tc.method == "" {
				tc.method = "POST"
			}
			if tc.target == "" {
				tc.target = "/shops/a/orders"
			}
			r := request(tc.method, tc.target, tc.body)
			switch tc.contentType {
			case "":
			case "-":
				r.Header.Del("Content-Type")
			default:
				r.Header.Set("Content-Type", tc.contentType)
			}
			w, p := do(t, s, r)
			if w.Code != tc.status || p.Reason != tc.reason {
				t.Fatalf("got %d %s: %s", w.Code, p.Reason, w.Body)
			}
			if tc.errors != nil && !slices.Equal(p.Errors, tc.errors) {
				t.Errorf("errors %+v, want %+v", p.Errors, tc.errors)
			}
			if called {
				t.Error("the function was called")
			}
			if tc.status == 405 && w.Header().Get("Allow") != "POST" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
			if !p.NotExecuted && tc.status != 404 && tc.status != 405 {
				t.Error("nothing was executed and the answer does not say so")
			}
		})
	}
}

// A body that is wrong in its depths must not cost more than its size warrants.
func TestDiagnosisIsBounded(t *testing.T) {
	t.Parallel()
	type tree struct {
		Kids []tree `json:"kids"`
		N    int    `json:"n"`
	}
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "POST /trees", func(context.Context, tree) (struct{}, error) { return struct{}{}, nil })
	deep := strings.Repeat(`{"kids":[`, 4000) + `{"n":"x"}` + strings.Repeat(`]}`, 4000)
	start := time.Now()
	if w, _ := do(t, s, request("POST", "/trees", deep)); w.Code != 400 {
		t.Errorf("deep: %d", w.Code)
	}
	wide := `{"kids":[` + strings.Repeat(`{"n":"x"},`, 50000) + `{}]}`
	w, p := do(t, s, request("POST", "/trees", wide))
	if w.Code != 400 || len(p.Errors) == 0 || len(p.Errors) > 16 {
		t.Errorf("wide: %d with %d errors", w.Code, len(p.Errors))
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	type paging struct {
		Limit int `query:"limit"`
	}
	type list struct {
		paging
		Paging2 struct{}      `json:"-"`
		ID      string        `path:"id"`
		Rest    string        `path:"rest"`
		Tags    []string      `query:"tag"`
		Since   *time.Time    `query:"since"`
		Wait    time.Duration `query:"wait"`
		Ratio   float64       `header:"x-ratio"`
		hidden  int
	}
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "GET /things/{id}/{rest...}", func(_ context.Context, l list) (string, error) {
		return fmt.Sprintf("%d %s %s %v %d %v %v %d", l.Limit, l.ID, l.Rest, l.Tags, l.Since.Year(), l.Wait, l.Ratio, l.hidden), nil
	})
	r := request("GET", "/things/a%2Fb/c/d?limit=5&tag=x&tag=y&since=2024-01-02T03:04:05Z&wait=1m&other=1", "")
	r.Header.Set("X-Ratio", "0.5")
	w, _ := do(t, s, r)
	if got, want := strings.TrimSpace(w.Body.String()), `"5 a/b c/d [x y] 2024 1m0s 0.5 0"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHandlePanicsOnMistakes(t *testing.T) {
	t.Parallel()
	ok := func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil }
	for name, f := range map[string]func(*httpx.Server){
		"no method":    func(s *httpx.Server) { httpx.Handle(s, "/x", ok) },
		"nil function": func(s *httpx.Server) { httpx.Handle[int, int](s, "GET /x", nil) },
		"taken":        func(s *httpx.Server) { httpx.Handle(s, "GET /x", ok); httpx.Handle(s, "GET /x", ok) },
		"unknown wildcard": func(s *httpx.Server) {
			httpx.Handle(s, "GET /x", func(context.Context, struct {
				ID string `path:"id"`
			}) (int, error) {
				return 0, nil
			})
		},
		"unexported": func(s *httpx.Server) {
			httpx.Handle(s, "GET /x", func(context.Context, struct {
				q string `query:"q"`
			}) (int, error) {
				return 0, nil
			})
		},
		"kind": func(s *httpx.Server) {
			httpx.Handle(s, "GET /x", func(context.Context, struct {
				Q chan int `query:"q"`
			}) (int, error) {
				return 0, nil
			})
		},
		"timeout":     func(*httpx.Server) { httpx.Timeout(0) },
		"max body":    func(*httpx.Server) { httpx.MaxBody(-1) },
		"status":      func(*httpx.Server) { httpx.Status(500) },
		"nil handler": func(s *httpx.Server) { s.Mount("/x", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(newServer(t, httpx.Config{}))
		})
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]httpx.Config{
		"Timeout":        {Timeout: -1},
		"IdleTimeout":    {IdleTimeout: -1},
		"MaxBody":        {MaxBody: -1},
		"MaxHeaderBytes": {MaxHeaderBytes: -1},
		"Middleware[0]":  {Middleware: []endpoint.Middleware{nil}},
	} {
		if _, err := httpx.NewServer(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, cfg := range map[string]httpx.ClientConfig{
		"BaseURL": {BaseURL: "orders:8080"},
		"Timeout": {BaseURL: "http://x", Timeout: -1},
		"MaxBody": {BaseURL: "http://x", MaxBody: -1},
	} {
		if _, err := httpx.NewClient[struct{}, struct{}](cfg, "GET /"); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := httpx.NewClient[struct{}, struct{}](httpx.ClientConfig{BaseURL: "http://user:hunter2@x?q=1"}, "GET /"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password in %v", err)
	}
	for _, pattern := range []string{"/x", "GET x", "GET /x/{id}"} {
		if _, err := httpx.NewClient[struct{}, struct{}](httpx.ClientConfig{BaseURL: "http://x"}, pattern); err == nil {
			t.Errorf("pattern %q passed", pattern)
		}
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	errStock := transport.Errorf(transport.FailedPrecondition, "OUT_OF_STOCK", "not enough: %w", errors.New("secret")).WithRetryAfter(1500 * time.Millisecond)
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "GET /own", func(context.Context, struct{}) (placed, error) { return placed{ID: "7"}, nil })
	httpx.Handle(s, "GET /option", func(context.Context, struct{}) (item, error) { return item{}, nil }, httpx.Status(202))
	httpx.Handle(s, "GET /nothing", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
	httpx.Handle(s, "GET /unencodable", func(context.Context, struct{}) (map[string]any, error) { return map[string]any{"f": func() {}}, nil })
	httpx.Handle(s, "GET /stock", func(context.Context, struct{}) (item, error) { return item{}, fmt.Errorf("place: %w", errStock) })
	httpx.Handle(s, "GET /unknown", func(context.Context, struct{}) (item, error) { return item{}, errors.New("secret") })
	httpx.Handle(s, "GET /downstream", func(context.Context, struct{}) (item, error) {
		e := transport.Errorf(transport.Unavailable, "", "breaker is open")
		e.Details.NotExecuted = true
		return item{}, e
	})
	for target, want := range map[string]struct {
		status int
		body   string
	}{
		"/own":         {201, `{"id":"7","shop":"","count":0,"dry":false}`},
		"/option":      {202, `{"sku":"","quantity":0}`},
		"/nothing":     {204, ``},
		"/unencodable": {500, `{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"internal error","instance":"/unencodable","code":"INTERNAL"}`},
		"/stock":       {409, `{"type":"about:blank","title":"Conflict","status":409,"detail":"not enough","instance":"/stock","code":"FAILED_PRECONDITION","reason":"OUT_OF_STOCK","retry_after":1.5}`},
		"/unknown":     {500, `{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"internal error","instance":"/unknown","code":"INTERNAL"}`},
		"/downstream":  {503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"breaker is open","instance":"/downstream","code":"UNAVAILABLE"}`},
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			w, _ := do(t, s, request("GET", target, ""))
			if got := strings.TrimSpace(w.Body.String()); w.Code != want.status || got != want.body {
				t.Errorf("got %d %s", w.Code, got)
			}
			if target == "/own" && w.Header().Get("Location") != "/orders/7" {
				t.Errorf("header %v", w.Header())
			}
			if target == "/stock" && w.Header().Get("Retry-After") != "2" {
				t.Errorf("header %v", w.Header())
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, header string
		want         time.Duration
	}{
		{"route", "", 2 * time.Second},
		{"caller is quicker", "500", 500 * time.Millisecond},
		{"caller is slower", "60000", 2 * time.Second},
		{"absurd", "99999999999999999999", 2 * time.Second},
		{"garbage", "-1", 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, httpx.Config{})
				httpx.Handle(s, "GET /slow", func(ctx context.Context, _ struct{}) (item, error) {
					<-ctx.Done()
					return item{}, errors.New("driver: interrupted")
				}, httpx.Timeout(2*time.Second))
				r := request("GET", "/slow", "")
				if tc.header != "" {
					r.Header.Set("Request-Timeout-Ms", tc.header)
				}
				start := time.Now()
				w, p := do(t, s, r)
				if w.Code != 504 || p.Code != "DEADLINE_EXCEEDED" || p.NotExecuted {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if got := time.Since(start); got != tc.want {
					t.Errorf("took %v, want %v", got, tc.want)
				}
			})
		})
	}
	t.Run("over before it began", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, httpx.Config{})
		httpx.Handle(s, "GET /x", func(context.Context, struct{}) (item, error) { t.Error("called"); return item{}, nil })
		r := request("GET", "/x", "")
		r.Header.Set("Request-Timeout-Ms", "0")
		if w, p := do(t, s, r); w.Code != 504 || !p.NotExecuted {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("caller has left", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, httpx.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		httpx.Handle(s, "GET /x", func(ctx context.Context, _ struct{}) (item, error) { cancel(); return item{}, ctx.Err() })
		if w, _ := do(t, s, request("GET", "/x", "").WithContext(ctx)); w.Code != transport.StatusClientClosedRequest {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []map[string]any
	for line := range strings.Lines(b.Buffer.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	return lines
}

func TestPanic(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	reg := prometheus.NewRegistry()
	s := newServer(t, httpx.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Metrics: reg})
	httpx.Handle(s, "GET /boom/{id}", func(context.Context, struct{}) (item, error) { panic("hunter2") })
	s.Mount("GET /abort", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	s.Mount("GET /half", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "half"); panic("boom") }))

	w, p := do(t, s, request("GET", "/boom/1", ""))
	if w.Code != 500 || p.Code != "INTERNAL" || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	for _, target := range []string{"/abort", "/half"} {
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%s panicked with %v", target, v)
				}
			}()
			s.ServeHTTP(httptest.NewRecorder(), request("GET", target, ""))
		}()
	}
	want := `
# HELP http_panics_total Handlers that panicked, http.ErrAbortHandler excepted.
# TYPE http_panics_total counter
http_panics_total{method="GET",route="/boom/{id}"} 1
http_panics_total{method="GET",route="/half"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "http_panics_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "http_request_duration_seconds"); err != nil || n != 3 {
		t.Errorf("%d series: a panicking request is not counted (%v)", n, err)
	}
	first := log.lines(t)[0]
	if first["level"] != "ERROR" || first["panic"] != "hunter2" || !strings.Contains(fmt.Sprint(first["stack"]), "httpx_test.go") {
		t.Errorf("logged %v", first)
	}
}

func TestObservation(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	reg := prometheus.NewRegistry()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cfg := httpx.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Metrics: reg, TracerProvider: provider}
	s, second := newServer(t, cfg), newServer(t, cfg)
	get := func(_ context.Context, r struct {
		ID string `path:"id"`
	}) (item, error) {
		if r.ID == "bad" {
			return item{}, errors.New("disk on fire")
		}
		return item{SKU: r.ID}, nil
	}
	httpx.Handle(s, "GET /items/{id}", get)
	httpx.Handle(second, "GET /items/{id}", get)
	inner := http.NewServeMux()
	inner.HandleFunc("GET /files/{name}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "abc") })
	s.Mount("/files/", inner)

	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r := request("GET", "/items/a?token=secret", "")
	r.Header.Set("Traceparent", parent)
	r.Header.Set("X-Correlation-ID", "corr-1")
	w, _ := do(t, s, r)
	if w.Header().Get("X-Trace-Id") != "0af7651916cd43dd8448eb211c80319c" || w.Header().Get("X-Correlation-Id") != "corr-1" {
		t.Errorf("header %v", w.Header())
	}
	_, p := do(t, s, request("GET", "/items/bad", ""))
	if len(p.TraceID) != 32 {
		t.Errorf("trace id %q", p.TraceID)
	}
	do(t, second, request("GET", "/items/a", ""))
	do(t, s, request("GET", "/wp-admin", ""))
	do(t, s, request("GET", "/.env", ""))
	do(t, s, request("BREW", "/items/a", ""))
	s.ServeHTTP(httptest.NewRecorder(), request("GET", "/files/x", ""))

	for labels, want := range map[[3]string]uint64{
		{"GET", "/items/{id}", "200"}:  2,
		{"GET", "/items/{id}", "500"}:  1,
		{"GET", "unmatched", "404"}:    2,
		{"_OTHER", "unmatched", "405"}: 1,
		{"GET", "/files/", "200"}:      1,
	} {
		if got := samples(t, reg, labels); got != want {
			t.Errorf("%v: %d samples, want %d", labels, got, want)
		}
	}
	span := spans.Ended()[0]
	if span.Name() != "GET /items/{id}" || span.Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("span %q below %v", span.Name(), span.Parent().SpanID())
	}
	attributes := map[string]string{}
	for _, kv := range span.Attributes() {
		attributes[string(kv.Key)] = kv.Value.String()
	}
	for key, want := range map[string]string{"http.request.method": "GET", "http.route": "/items/{id}", "http.response.status_code": "200", "url.path": "/items/a"} {
		if attributes[key] != want {
			t.Errorf("%s = %q, want %q", key, attributes[key], want)
		}
	}
	lines := log.lines(t)
	if l := lines[0]; l["method"] != "GET" || l["route"] != "/items/{id}" || l["status"] != 200.0 || l["bytes"] != float64(w.Body.Len()) || l["duration"] == nil {
		t.Errorf("logged %v", l)
	}
	if l := lines[1]; !strings.HasSuffix(fmt.Sprint(l["error"]), "disk on fire") {
		t.Errorf("logged %v", l)
	}
}

func samples(t *testing.T, reg *prometheus.Registry, labels [3]string) uint64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got := map[string]string{}
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "http_request_duration_seconds" && [3]string{got["method"], got["route"], got["status_code"]} == labels {
				return m.GetHistogram().GetSampleCount()
			}
		}
	}
	return 0
}

func TestTrust(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		s := newServer(t, httpx.Config{TrustHeaders: trusted})
		httpx.Handle(s, "GET /who", func(ctx context.Context, _ struct{}) (string, error) {
			p, _ := flow.PrincipalFrom(ctx)
			return p.Subject + "/" + flow.IdempotencyKey(ctx), nil
		})
		r := request("GET", "/who", "")
		r.Header.Set("X-Principal-Subject", "admin")
		r.Header.Set("Idempotency-Key", "k")
		w, _ := do(t, s, r)
		if want := map[bool]string{false: `"/k"`, true: `"admin/k"`}[trusted]; strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("TrustHeaders %v: %s", trusted, w.Body)
		}
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	errFull := transport.Errorf(transport.ResourceExhausted, "FULL", "full")
	errFull.Details.NotExecuted = true
	reject := false
	s := newServer(t, httpx.Config{Middleware: []endpoint.Middleware{func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, req any) (any, error) {
			if reject {
				return nil, errFull
			}
			return next(ctx, req)
		}
	}}})
	httpx.Handle(s, "GET /x", func(context.Context, struct{}) (item, error) { return item{}, errFull })
	if _, p := do(t, s, request("GET", "/x", "")); p.Reason != "FULL" || p.NotExecuted {
		t.Errorf("the function ran, and the answer denies it: %+v", p)
	}
	reject = true
	if _, p := do(t, s, request("GET", "/x", "")); p.Reason != "FULL" || !p.NotExecuted {
		t.Errorf("a middleware kept the function from running, and the answer does not say so: %+v", p)
	}
}

// The HTTP half must not bring the gRPC half into a binary.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "google.golang.org/grpc/status") {
		t.Fatal("the list is not the one of this package")
	}
	for _, dep := range deps {
		if dep == "google.golang.org/grpc" || strings.HasPrefix(dep, "go.opentelemetry.io/otel/sdk") || strings.Contains(dep, "go-kit/kit/transport") {
			t.Errorf("depends on %s", dep)
		}
	}
}

func FuzzBinder(f *testing.F) {
	for _, body := range []string{`{}`, `{"items":[{"sku":"a","quantity":-1}]}`, `{"due":1,"labels":{"x":999}}`, `[`, `null`, `{"note":null} x`, `{"NESTED":{"a":1e400}}`} {
		f.Add([]byte(body), "dry=true&x=%41")
	}
	s := newServer(f, httpx.Config{})
	httpx.Handle(s, "POST /shops/{shop}/orders", func(_ context.Context, p place) (place, error) { return p, nil })
	f.Fuzz(func(t *testing.T, body []byte, query string) {
		r := httptest.NewRequest("POST", "/shops/a/orders", bytes.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", "application/json")
		w, p := do(t, s, r)
		switch {
		case w.Code == 200:
		case w.Code != 400:
			t.Fatalf("%q answered %d %s", body, w.Code, w.Body)
		case len(p.Errors) == 0:
			t.Fatalf("%q is refused without a reason: %s", body, w.Body)
		case p.Errors[0].Detail == "does not have the right shape":
			t.Fatalf("%q is refused and nobody knows why", body)
		}
	})
}

func Example() {
	s, err := httpx.NewServer(httpx.Config{})
	if err != nil {
		panic(err)
	}
	type greet struct {
		Name string `path:"name"`
	}
	httpx.Handle(s, "GET /hello/{name}", func(_ context.Context, g greet) (string, error) { return "hello " + g.Name, nil })

	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/hello/gopher", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output: 200 "hello gopher"
}
