package resilience_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/armature-go/armature/resilience"
)

func BenchmarkRoundTripper(b *testing.B) {
	resp := &http.Response{StatusCode: 204, Body: http.NoBody}
	base := transportFunc(func(*http.Request) (*http.Response, error) { return resp, nil })
	req := must(http.NewRequestWithContext(context.Background(), "GET", "http://payment/", nil))
	for name, rt := range map[string]http.RoundTripper{
		"bare":  base,
		"retry": resilience.RoundTripper(base, thrice(), resilience.HTTPOptions{}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rt.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// discarding is a ResponseWriter that costs nothing.
type discarding struct{ header http.Header }

func (w discarding) Header() http.Header         { return w.header }
func (w discarding) Write(p []byte) (int, error) { return len(p), nil }
func (w discarding) WriteHeader(int)             {}

func BenchmarkHandler(b *testing.B) {
	var w http.ResponseWriter = discarding{http.Header{}}
	r := httptest.NewRequest("GET", "/", nil)
	breaker := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive()}))
	h := resilience.Handler(breaker, resilience.HandlerOptions{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
	}))
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

func TestHandlerAllocatesOnce(t *testing.T) {
	var w http.ResponseWriter = discarding{http.Header{}}
	r := httptest.NewRequest("GET", "/", nil)
	breaker := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive()}))
	h := resilience.Handler(breaker, resilience.HandlerOptions{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		_, _ = w.Write(nil)
	}))
	if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n > 1 {
		t.Errorf("%v allocations per request, want 1", n)
	}
}
