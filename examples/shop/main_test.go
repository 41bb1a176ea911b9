package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/examples/shop/audit"
)

func TestMain(m *testing.M) {
	// nats-server 2.15.2 now and then leaves the store of a stream open when it is shut down with clients on its port,
	// and with the store its hold on the clock.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.Cleanup(func(code int) {
			_ = os.RemoveAll(programFolder)
			os.Exit(code)
		}))
}

// opened is a shop that runs in this process.
type opened struct {
	*shop
	url  string
	logs *buffer
	stop func() error // once; the end of the test calls it otherwise
}

// openShop starts a shop and waits until it answers.
func openShop(t *testing.T, o options) *opened {
	t.Helper()
	if o.data == "" {
		o.data = t.TempDir()
	}
	o.addr = "127.0.0.1:0"
	if o.shutdownTimeout == 0 {
		o.shutdownTimeout = 30 * time.Second
	}
	logs := &buffer{}
	o.logs = logs
	s, err := open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.run(ctx, func() { close(ready) }) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop the shop: %v", err)
		}
		if t.Failed() {
			t.Logf("warnings and errors of the shop:\n%s", logs.worse())
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the shop did not open: %v", err)
	}
	return &opened{shop: s, url: "http://" + s.gateway().HTTPAddr(), logs: logs, stop: stop}
}

// audit waits for the shop to come to rest and fails the test unless the books are green (or not, as wanted).
func (s *opened) audit(t *testing.T, green bool) *audit.Report {
	t.Helper()
	books := s.books
	books.Settle = 30 * time.Second
	if !green {
		books.Still = 4 * time.Second // nobody died here
	}
	report, err := audit.Run(t.Context(), books)
	if err != nil {
		t.Fatal(err)
	}
	if report.Green() != green {
		t.Errorf("the audit is green = %t, want %t:\n%s", report.Green(), green, describe(report))
	}
	return report
}

func describe(r *audit.Report) string {
	var b strings.Builder
	for _, line := range r.Lines {
		fmt.Fprintf(&b, "%s: %s %v\n", line.Name, line.Figures, line.Wrong)
	}
	return b.String()
}

// answer is what came back over HTTP.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
}

// orderView is what the tests look at of an order.
type orderView struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Reason string `json:"reason"`
	Total  struct {
		Minor    int64  `json:"minor"`
		Currency string `json:"currency"`
	} `json:"total"`
}

func (s *opened) do(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
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
	return answer{resp.StatusCode, resp.Header, data}
}

// place sends an order and waits for its outcome.
func (s *opened) place(t *testing.T, body string) (orderView, answer) {
	t.Helper()
	a := s.do(t, "POST", "/api/orders", body, "Prefer", "wait=20")
	if a.status != http.StatusCreated {
		t.Fatalf("POST /api/orders = %d %s", a.status, a.body)
	}
	var o orderView
	a.decode(t, &o)
	return o, a
}

func (s *opened) stock(t *testing.T, product string) int64 {
	t.Helper()
	a := s.do(t, "GET", "/api/products/"+product+"/stock", "")
	var got struct {
		OnHand int64 `json:"on_hand"`
	}
	a.decode(t, &got)
	return got.OnHand
}

// wish is the body of an order that is confirmed, unless card, product or country say otherwise.
func wish(card, product, country string) string {
	return fmt.Sprintf(`{"customer_id":"cust-01","items":[{"product_id":%q,"quantity":3}],"card":%q,
		"address":{"name":"Ada","line1":"1 Main Street","city":"Berlin","postcode":"10115","country":%q}}`, product, card, country)
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

type logLine struct {
	Level   string `json:"level"`
	Msg     string `json:"msg"`
	Service string `json:"service"`
	TraceID string `json:"trace_id"`
	text    string
}

func (b *buffer) lines() (lines []logLine) {
	b.mu.Lock()
	text := b.b.String()
	b.mu.Unlock()
	for raw := range strings.Lines(text) {
		// The first service is the one that logs.
		var line logLine
		_ = json.Unmarshal([]byte(raw), &line) // what is no JSON is the last word of a process
		line.text = raw
		lines = append(lines, line)
	}
	return lines
}

func (b *buffer) worse() string {
	var out strings.Builder
	for _, line := range b.lines() {
		if line.Level != "INFO" && line.Level != "DEBUG" {
			out.WriteString(line.text[:min(len(line.text), 500)] + "\n")
		}
	}
	text := out.String()
	return text[:min(len(text), 8000)]
}
