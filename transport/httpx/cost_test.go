package httpx_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/armature-go/armature/transport/httpx"
)

type basket struct {
	ID    string         `json:"id"`
	Lines []basketLine   `json:"lines"`
	Extra map[string]any `json:"extra,omitempty"`
}

type basketLine struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

func echoBasket(_ context.Context, b *basket) (*basket, error) { return b, nil }

// sink is a ResponseWriter that costs nothing.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) WriteHeader(int)             {}
func (s sink) Write(p []byte) (int, error) { return len(p), nil }

// What a request may allocate, encoding/json, the SDK and the recorder included.
func TestAllocationsOfARequest(t *testing.T) {
	provider := trace.NewTracerProvider()
	defer provider.Shutdown(context.Background())
	full := httpx.Config{Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)), TracerProvider: provider, Metrics: prometheus.NewRegistry()}
	const body = `{"id":"b-1","lines":[{"sku":"s-1","quantity":2},{"sku":"s-2","quantity":1}]}`
	for name, tt := range map[string]struct {
		cfg   httpx.Config
		flags string
		most  float64
	}{
		"nothing observed": {httpx.Config{}, "01", 20},
		"full, sampled":    {full, "01", 24},
		"full, unsampled":  {full, "00", 22},
	} {
		s := newServer(t, tt.cfg)
		httpx.Handle(s, "POST /baskets", echoBasket)
		source := strings.NewReader(body)
		r := httptest.NewRequest(http.MethodPost, "/baskets", nil)
		r.Body, r.ContentLength = io.NopCloser(source), int64(len(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"+tt.flags)
		allocs := testing.AllocsPerRun(500, func() {
			source.Reset(body)
			s.ServeHTTP(sink{http.Header{}}, r)
		})
		t.Logf("%s: %v allocations", name, allocs)
		if !raceEnabled && allocs > tt.most {
			t.Errorf("%s: %v allocations per request, want at most %v", name, allocs, tt.most)
		}
	}
}

// Buffers and decoders serve one request after another. Nothing of a body may show
// up in the next one, whatever was wrong with it.
func TestBodiesDoNotMix(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "POST /baskets", echoBasket)
	bad := []string{
		``, ` `, `{`, `{"id":"stranger"`, `{"id":"stranger"} {"id":"x"}`, `{"id":"stranger"} x`, `{"id":"stranger"}]`,
		`{"id":"stranger","unknown":1}`, `{"id":1,"lines":[{"sku":"stranger"}]}`, `{"lines":[{"sku":"stranger"`, `null`, `[]`, `7`, `"s`,
		`{"id":"` + strings.Repeat("stranger", 20_000) + `","unknown":1}`,
	}
	for i := range 200 {
		do(t, s, request("POST", "/baskets", bad[i%len(bad)]))
		id := fmt.Sprintf("b-%d", i)
		good := fmt.Sprintf("  \n{\"id\":%q,\"lines\":[{\"sku\":\"s\",\"quantity\":%d}]}%s", id, i, strings.Repeat(" \n", i%3))
		w, _ := do(t, s, request("POST", "/baskets", good))
		want := fmt.Sprintf(`{"id":%q,"lines":[{"sku":"s","quantity":%d}]}`, id, i)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Fatalf("after %.40q: answered %d %s, want %s", bad[i%len(bad)], w.Code, got, want)
		}
	}
}

// The positions in what a refusal says are those in its own body.
func TestPositionsDoNotDependOnEarlierRequests(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "POST /baskets", echoBasket)
	var first string
	for i := range 5 {
		do(t, s, request("POST", "/baskets", `{"id":"good"}`))
		w, _ := do(t, s, request("POST", "/baskets", "{\n\"id\": oops}"))
		if i == 0 {
			first = w.Body.String()
		}
		if got := w.Body.String(); !strings.Contains(got, "line 2, column 7") || stripIDs(got) != stripIDs(first) {
			t.Fatalf("answer %d: %s", i, got)
		}
	}
}

// stripIDs removes what differs from request to request.
func stripIDs(problem string) string {
	before, _, _ := strings.Cut(problem, `"trace_id"`)
	return before
}

// A caller that promises more than it sends is told so, and what an earlier body
// left in the buffer does not fill the gap.
func TestBodyShorterThanPromised(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "POST /baskets", echoBasket)
	for _, sent := range []string{"", `{"id":"b"`} {
		do(t, s, request("POST", "/baskets", `{"id":"stranger","lines":[]}`))
		r := request("POST", "/baskets", "{}")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader([]byte(sent))), 28
		if w, _ := do(t, s, r); w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "stranger") {
			t.Errorf("%q sent: answered %d %s", sent, w.Code, w.Body)
		}
	}
}
