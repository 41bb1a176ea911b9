package resilience_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/armature-go/armature/resilience"
)

func ExampleRoundTripper() {
	calls := 0
	payment := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "paid")
	}))
	defer payment.Close()

	retry, _ := resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)})
	client := http.Client{Transport: resilience.RoundTripper(nil, retry, resilience.HTTPOptions{})}
	defer client.CloseIdleConnections()
	resp, err := client.Get(payment.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body), "after", calls, "attempts")
	// Output: 200 paid after 3 attempts
}

func ExampleHandler() {
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{Name: "orders"})
	breaker.Trip(30 * time.Second)
	handler := resilience.Handler(breaker, resilience.HandlerOptions{})(http.NotFoundHandler())

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders", nil))
	fmt.Println(w.Code, "Retry-After:", w.Header().Get("Retry-After"))
	// Output: 503 Retry-After: 30
}

// perClient grants one request per client and minute.
type perClient map[string]bool

func (l perClient) Take(_ context.Context, key string, _ int) (resilience.RateDecision, error) {
	if l[key] {
		return resilience.RateDecision{Limit: 1, RetryAfter: time.Minute, ResetAfter: time.Minute}, nil
	}
	l[key] = true
	return resilience.RateDecision{Allowed: true, Limit: 1, ResetAfter: time.Minute}, nil
}

func ExampleLimitHandler() {
	proxies := netip.MustParsePrefix("10.0.0.0/8")
	limit := resilience.LimitHandler(perClient{}, resilience.LimitOptions{Key: resilience.ByIP(proxies)})
	handler := limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	for _, client := range []string{"203.0.113.9", "203.0.113.9", "198.51.100.1"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:40000"
		r.Header.Set("X-Forwarded-For", client)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%s: %d, Retry-After %q\n", client, w.Code, w.Header().Get("Retry-After"))
	}
	// Output:
	// 203.0.113.9: 200, Retry-After ""
	// 203.0.113.9: 429, Retry-After "60"
	// 198.51.100.1: 200, Retry-After ""
}

func ExampleDoWith() {
	retry, _ := resilience.NewRetry(resilience.RetryConfig{})
	reply, err := resilience.DoWith(context.Background(), retry, new(string),
		func(*string) *string { return new(string) },
		func(_ context.Context, reply *string) error {
			*reply = "hello"
			return nil
		})
	fmt.Println(*reply, err)
	// Output: hello <nil>
}

func ExampleEstablish() {
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1})
	subscribe := func(context.Context) (string, error) { return "stream", nil }
	stream, end, err := resilience.Establish(context.Background(), breaker, subscribe, nil)
	fmt.Println(stream, err, breaker.State())

	end(io.ErrUnexpectedEOF) // the stream broke off
	fmt.Println(breaker.State())
	// Output:
	// stream <nil> closed
	// open
}
