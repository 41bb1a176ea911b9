package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/examples/shop/gateway"
	"github.com/armature-go/armature/examples/shop/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a gateway without anybody behind it and returns its URL.
func start(t *testing.T, cfg gateway.Config) string {
	t.Helper()
	registry, err := static.New(static.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Config = platform.Config{Addr: "127.0.0.1:0", Registry: registry}
	svc, err := gateway.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-svc.Ready()
	return "http://" + svc.HTTPAddr()
}

func send(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func TestAClientThatAsksTooOftenIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	url := start(t, gateway.Config{Rate: 1, Per: time.Hour, Burst: 2}) + "/api/orders"
	for i := range 2 {
		if resp, body := send(t, "POST", url, "{"); resp.StatusCode != http.StatusBadRequest {
			t.Fatalf("request %d = %d %s", i, resp.StatusCode, body)
		}
	}
	resp, body := send(t, "POST", url, "{")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "3600" || resp.Header.Get("RateLimit-Limit") != "2" || !strings.Contains(body, "RATE_LIMITED") {
		t.Errorf("the third = %d, Retry-After %q, %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
	}
	if resp.Header.Get("X-Correlation-ID") == "" || resp.Header.Get("X-Trace-ID") == "" {
		t.Error("the answer lacks the correlation id or the trace id")
	}
}

func TestClientsBehindATrustedProxyCountAlone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		proxies []netip.Prefix
		second  int
	}{
		"trusted":  {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, http.StatusBadRequest},
		"stranger": {nil, http.StatusTooManyRequests},
	} {
		url := start(t, gateway.Config{Rate: 1, Per: time.Hour, Burst: 1, Proxies: tt.proxies}) + "/api/orders"
		send(t, "POST", url, "{", "X-Forwarded-For", "203.0.113.7")
		if resp, body := send(t, "POST", url, "{", "X-Forwarded-For", "203.0.113.8"); resp.StatusCode != tt.second {
			t.Errorf("%s: another client = %d %s, want %d", name, resp.StatusCode, body, tt.second)
		}
	}
}

func TestStrangersDoNotChooseWhoTheyAre(t *testing.T) {
	t.Parallel()
	url := start(t, gateway.Config{}) + "/api/orders"
	trace := "4bf92f3577b34da6a3ce929d0e0e4736"
	resp, body := send(t, "POST", url, "{", "X-Correlation-ID", "mine", "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	if got := resp.Header.Get("X-Correlation-ID"); got != "mine" {
		t.Errorf("X-Correlation-ID = %q, want the caller's", got)
	}
	if got := resp.Header.Get("X-Trace-ID"); got != trace || !strings.Contains(body, trace) {
		t.Errorf("X-Trace-ID = %q in %s, want the caller's trace", got, body)
	}
}

func TestTheDataFolderIsToldOnThisMachineOnly(t *testing.T) {
	t.Parallel()
	url := start(t, gateway.Config{Data: "/srv/shop"}) + "/-/shop"
	if resp, body := send(t, "GET", url, ""); resp.StatusCode != http.StatusOK || body != `{"data":"/srv/shop"}` {
		t.Errorf("GET /-/shop = %d %s", resp.StatusCode, body)
	}
	for _, header := range []string{"X-Forwarded-For", "Forwarded"} {
		if resp, body := send(t, "GET", url, "", header, "for=203.0.113.7"); resp.StatusCode != http.StatusNotFound || strings.Contains(body, "/srv") {
			t.Errorf("GET /-/shop through a proxy (%s) = %d %s", header, resp.StatusCode, body)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]gateway.Config{"Rate": {Rate: -1}, "Burst": {Burst: -1}} {
		if _, err := gateway.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New = %v, want an error that names %s", err, name)
		}
	}
}

func ExampleNew() {
	registry, err := static.New(static.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	svc, err := gateway.New(context.Background(), gateway.Config{
		Config: platform.Config{Addr: "127.0.0.1:0", Registry: registry},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(svc.Name(), svc.Close(context.Background())) // or svc.Run(ctx)
	// Output: gateway <nil>
}
