package ws_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
	"github.com/armature-go/armature/transport/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type say struct {
	Text string `json:"text"`
}

func (s say) Validate() error {
	if s.Text == "forbidden" {
		return errors.New("this may not be said")
	}
	return nil
}

type (
	serverConn = ws.Conn[say, say]
	clientConn = ws.Conn[say, say]
)

func newHandler(t testing.TB, fn func(context.Context, *serverConn) error, cfg ws.Config) *ws.Handler {
	t.Helper()
	h, err := ws.New(fn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// serve is a real server on the loopback interface.
func serve(t testing.TB, h http.Handler) (url string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func dial(t testing.TB, url string, cfg ws.Config) *clientConn {
	t.Helper()
	if cfg.Client == nil {
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		cfg.Client = &http.Client{Transport: tr}
	}
	c, err := ws.Dial[say, say](t.Context(), url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pipes is a network within a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes(t testing.TB, h http.Handler) *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go s.Serve(p)
	t.Cleanup(func() { s.Close() })
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) connect(context.Context, string, string) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: p.connect}}
}

// raw makes the handshake by hand, and leaves everything else to the test.
func (p *pipes) raw(t testing.TB) net.Conn {
	t.Helper()
	nc, err := p.connect(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReaderSize(&oneByte{nc}, 16), nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", answer, err)
	}
	return nc
}

// oneByte keeps a buffered reader from taking more than the header.
type oneByte struct{ io.Reader }

func (o *oneByte) Read(p []byte) (int, error) { return o.Reader.Read(p[:1]) }

func echo(ctx context.Context, c *serverConn) error {
	for {
		in, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if err := c.Send(ctx, in); err != nil {
			return err
		}
	}
}

func wantClosed(t *testing.T, err error, code int) *ws.CloseError {
	t.Helper()
	closed, ok := errors.AsType[*ws.CloseError](err)
	if !ok || closed.Code != code {
		t.Fatalf("the end is %v, want code %d", err, code)
	}
	return closed
}

func TestMessagesAndContextArrive(t *testing.T) {
	t.Parallel()
	s, err := httpx.NewServer(httpx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, func(ctx context.Context, c *serverConn) error {
		in, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		return errors.Join(
			c.Send(ctx, say{c.Request().PathValue("id") + " " + in.Text}),
			c.Send(ctx, say{flow.CorrelationID(ctx)}),
			c.Send(ctx, say{trace.SpanContextFromContext(ctx).TraceID().String()}),
			c.Send(ctx, say{c.Subprotocol()}),
		)
	}, ws.Config{Subprotocols: []string{"b.v1", "a.v1"}})
	s.Mount("GET /orders/{id}/live", h)

	id, _ := trace.TraceIDFromHex("4bf92f3577b34da6a3ce929d0e0e4736")
	span, _ := trace.SpanIDFromHex("00f067aa0ba902b7")
	ctx := trace.ContextWithSpanContext(flow.WithCorrelationID(t.Context(), "corr-1"),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span}))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c, err := ws.Dial[say, say](ctx, serve(t, s)+"/orders/7/live",
		ws.Config{Subprotocols: []string{"a.v1"}, Client: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Request() != nil || c.Subprotocol() != "a.v1" {
		t.Errorf("request %v, subprotocol %q", c.Request(), c.Subprotocol())
	}
	if err := c.Send(ctx, say{"hello"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"7 hello", "corr-1", id.String(), "a.v1"} {
		if got, err := c.Receive(ctx); err != nil || got.Text != want {
			t.Errorf("received %q, %v, want %q", got.Text, err, want)
		}
	}
	if _, err := c.Receive(ctx); err != io.EOF {
		t.Errorf("the end is %v, want io.EOF", err)
	}
	if err := c.Send(ctx, say{}); err != io.EOF {
		t.Errorf("sending after the end: %v", err)
	}
}

// TestPlainMuxGetsACorrelationID is about a handler without httpx in front.
func TestPlainMuxGetsACorrelationID(t *testing.T) {
	t.Parallel()
	h := newHandler(t, func(ctx context.Context, c *serverConn) error {
		_, known := flow.PrincipalFrom(ctx)
		return c.Send(ctx, say{fmt.Sprint(flow.CorrelationID(ctx) != "", known)})
	}, ws.Config{})
	c := dial(t, serve(t, h), ws.Config{})
	if got, err := c.Receive(t.Context()); err != nil || got.Text != "true false" {
		t.Errorf("%q, %v", got.Text, err)
	}
}

func TestCloseCodeOfAnError(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		code   int
		reason string
	}{
		"unknown":   {errors.New("password=secret"), 1011, "internal error"},
		"internal":  {transport.Errorf(transport.Internal, "", "table orders"), 1011, "internal error"},
		"not found": {transport.Errorf(transport.NotFound, "NO_ORDER", "there is no such order").WithCause(errors.New("secret")), 1008, "there is no such order"},
		"busy":      {transport.Errorf(transport.Unavailable, "", "later"), 1013, "later"},
		"too much":  {transport.Errorf(transport.ResourceExhausted, "", "enough"), 1013, "enough"},
		"deadline":  {context.DeadlineExceeded, 1013, "the deadline has passed"},
		"own":       {&ws.CloseError{Code: 4001, Reason: "sold out"}, 4001, "sold out"},
		"forged":    {&ws.CloseError{Code: 1006, Reason: "x"}, 1011, "internal error"},
		"long":      {&ws.CloseError{Code: 4002, Reason: strings.Repeat("é", 100)}, 4002, strings.Repeat("é", 61)},
		"panic":     {nil, 1011, "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, func(ctx context.Context, c *serverConn) error {
				if err := c.Send(ctx, say{"last words"}); err != nil {
					return err
				}
				if tc.err == nil {
					panic("secret")
				}
				return tc.err
			}, ws.Config{})
			c := dial(t, serve(t, h), ws.Config{})
			if got, err := c.Receive(t.Context()); err != nil || got.Text != "last words" {
				t.Fatalf("%q, %v", got.Text, err)
			}
			_, err := c.Receive(t.Context())
			closed := wantClosed(t, err, tc.code)
			if closed.Reason != tc.reason {
				t.Errorf("reason %q, want %q", closed.Reason, tc.reason)
			}
			if want := tc.code == 1013; closed.Retryable() != want {
				t.Errorf("retryable %v", closed.Retryable())
			}
			if want := uint64(0); tc.code == 1011 && h.Stats().Failed != 1 || tc.code != 1011 && h.Stats().Failed != want {
				t.Errorf("stats %+v", h.Stats())
			}
		})
	}
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind websocket.MessageType
		data string
		code websocket.StatusCode
	}{
		"binary":        {websocket.MessageBinary, `{"text":"a"}`, 1003},
		"no JSON":       {websocket.MessageText, `{"text":`, 1007},
		"two values":    {websocket.MessageText, `{"text":"a"}{}`, 1007},
		"empty":         {websocket.MessageText, ``, 1007},
		"no UTF-8":      {websocket.MessageText, "{\"text\":\"\xff\"}", 1007},
		"wrong type":    {websocket.MessageText, `{"text":1}`, 1008},
		"unknown field": {websocket.MessageText, `{"text":"a","admin":true}`, 1008},
		"not valid":     {websocket.MessageText, `{"text":"forbidden"}`, 1008},
		"too long":      {websocket.MessageText, `{"text":"` + strings.Repeat("a", 300_000) + `"}`, 1009},
		"nested":        {websocket.MessageText, strings.Repeat("[", 1000), 1007},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, echo, ws.Config{MaxMessage: 1000})
			c, _, err := websocket.Dial(t.Context(), serve(t, h), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			// The close frame may come before all is written.
			_ = c.Write(t.Context(), tc.kind, []byte(tc.data))
			if _, got, err := c.Read(t.Context()); websocket.CloseStatus(err) != tc.code {
				t.Errorf("read %q, %v, want %d", got, err, tc.code)
			}
		})
	}
}

// TestClientTakesUnknownFields: a server may be newer than its clients.
func TestClientTakesUnknownFields(t *testing.T) {
	t.Parallel()
	h, err := ws.New(func(ctx context.Context, c *ws.Conn[say, map[string]any]) error {
		return c.Send(ctx, map[string]any{"text": "hi", "new": 1})
	}, ws.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, h), ws.Config{})
	if got, err := c.Receive(t.Context()); err != nil || got.Text != "hi" {
		t.Errorf("%q, %v", got.Text, err)
	}
}

func TestMessageWithoutJSONLeavesTheConnection(t *testing.T) {
	t.Parallel()
	h, err := ws.New(func(ctx context.Context, c *ws.Conn[say, any]) error {
		if err := c.Send(ctx, func() {}); err == nil {
			return errors.New("a function was sent")
		}
		if err := c.TrySend(make(chan int)); err == nil {
			return errors.New("a channel was sent")
		}
		return c.Send(ctx, say{"still here"})
	}, ws.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, h), ws.Config{})
	if got, err := c.Receive(t.Context()); err != nil || got.Text != "still here" {
		t.Errorf("%q, %v", got.Text, err)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	patterns := []string{"https://app.example.com", "https://*.shop.example"}
	for _, tc := range []struct {
		name     string
		origins  []string
		patterns []string
		allowed  bool
	}{
		{"no page", nil, nil, true},
		{"same host", []string{"https://api.example.com"}, nil, true},
		{"same host, default port", []string{"https://API.example.com:443"}, nil, true},
		{"other port", []string{"https://api.example.com:8443"}, nil, false},
		{"stranger", []string{"https://evil.example"}, nil, false},
		{"stranger with patterns", []string{"https://evil.example"}, patterns, false},
		{"prefix", []string{"https://api.example.com.evil.example"}, nil, false},
		{"user info", []string{"https://api.example.com@evil.example"}, nil, false},
		{"own user info", []string{"https://evil.example@api.example.com"}, nil, false},
		{"path", []string{"https://evil.example/https://api.example.com"}, nil, false},
		{"sandbox", []string{"null"}, patterns, false},
		{"empty", []string{""}, patterns, false},
		{"two", []string{"https://api.example.com", "https://evil.example"}, patterns, false},
		{"listed", []string{"https://app.example.com"}, patterns, true},
		{"listed without TLS", []string{"http://app.example.com"}, patterns, false},
		{"listed as a suffix", []string{"https://evilapp.example.com"}, patterns, false},
		{"subdomain", []string{"https://a.b.shop.example"}, patterns, true},
		{"domain itself", []string{"https://shop.example"}, patterns, false},
		{"look-alike", []string{"https://evilshop.example"}, patterns, false},
		{"suffix of another", []string{"https://a.shop.example.evil.example"}, patterns, false},
		{"any", []string{"https://evil.example"}, []string{"*"}, true},
		{"any, sandbox", []string{"null"}, []string{"*"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, func(context.Context, *serverConn) error { return nil }, ws.Config{Origins: tc.patterns})
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Host = "api.example.com"
				h.ServeHTTP(w, r)
			}))
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			c, err := ws.Dial[say, say](t.Context(), url, ws.Config{Client: &http.Client{Transport: tr}, Header: http.Header{"Origin": tc.origins}})
			if c != nil {
				c.Close()
			}
			if allowed := err == nil; allowed != tc.allowed {
				t.Fatalf("allowed %v: %v", allowed, err)
			}
			if refused := (&transport.Error{Domain: "armature", Reason: "ORIGIN_NOT_ALLOWED"}); !tc.allowed && !errors.Is(err, refused) {
				t.Errorf("the refusal is %v", err)
			}
		})
	}
}

func TestRefusedHandshakes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		method string
		header http.Header
		status int
	}{
		"a browser's address bar": {"GET", nil, 426},
		"other version":           {"GET", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"8"}}, 400},
		"no key":                  {"GET", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}, 400},
		"POST":                    {"POST", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, 405},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, echo, ws.Config{})
			r := httptest.NewRequest(tc.method, "/", nil)
			for k, v := range tc.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tc.status || w.Header().Get("Content-Type") != transport.ProblemType || !strings.Contains(w.Body.String(), "NO_WEBSOCKET") {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			if got := h.Stats(); got.Refused != 1 || got.Open != 0 {
				t.Errorf("stats %+v", got)
			}
		})
	}
}

func TestRateOfMessages(t *testing.T) {
	t.Parallel()
	h := newHandler(t, echo, ws.Config{Rate: resilience.RateLimit{Rate: 3, Per: time.Hour}})
	url := serve(t, h)
	for range 2 { // every connection has its own
		c := dial(t, url, ws.Config{})
		for range 3 {
			if err := c.Send(t.Context(), say{"a"}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Send(t.Context(), say{"one too many"}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Receive(t.Context())
		wantClosed(t, err, 1008)
	}
}

func TestRateOfPings(t *testing.T) {
	t.Parallel()
	h := newHandler(t, echo, ws.Config{Rate: resilience.RateLimit{Rate: 3, Per: time.Hour}})
	c, _, err := websocket.Dial(t.Context(), serve(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	done := make(chan error, 1)
	go func() {
		_, _, err := c.Read(t.Context())
		done <- err
	}()
	for range 3 {
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Ping(t.Context())
	if err := <-done; websocket.CloseStatus(err) != 1008 {
		t.Errorf("the end is %v", err)
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	h := newHandler(t, echo, ws.Config{MaxConns: 1})
	url := serve(t, h)
	dial(t, url, ws.Config{})
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	_, err := ws.Dial[say, say](t.Context(), url, ws.Config{Client: &http.Client{Transport: tr}})
	if e, ok := errors.AsType[*transport.Error](err); !ok || e.Code != transport.Unavailable || !e.NotExecuted() {
		t.Errorf("the second connection: %v", err)
	}
	if got := h.Stats(); got.Open != 1 || got.Accepted != 1 || got.Refused != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]ws.Config{
		"PingInterval": {PingInterval: -1},
		"PongTimeout":  {PongTimeout: -1},
		"WriteTimeout": {WriteTimeout: -1},
		"CloseTimeout": {CloseTimeout: time.Minute},
		"MaxMessage":   {MaxMessage: -1},
		"SendQueue":    {SendQueue: -1},
		"ReceiveQueue": {ReceiveQueue: -1},
		"MaxConns":     {MaxConns: -1},
		"Rate":         {Rate: resilience.RateLimit{Rate: -1}},
		"Origins[0]":   {Origins: []string{"app.example.com"}},
		"Origins[1]":   {Origins: []string{"*", "https://app.*.com"}},
		"Origins[2]":   {Origins: []string{"*", "*", "https://app.example.com/"}},
		"Subprotocols": {Subprotocols: []string{"a b"}},
	} {
		if _, err := ws.New(echo, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: New says %v", field, err)
		}
		if _, err := ws.Dial[say, say](t.Context(), "ws://127.0.0.1:1", cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: Dial says %v", field, err)
		}
	}
	if _, err := ws.New[say, say](nil, ws.Config{}); err == nil {
		t.Error("a handler without a function")
	}
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = ws.Dial[say, say](t.Context(), "ws://"+l.Addr().String(), ws.Config{})
	if e, ok := errors.AsType[*transport.Error](err); !ok || e.Code != transport.Unavailable || !e.NotExecuted() {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = ws.Dial[say, say](ctx, "ws://"+l.Addr().String(), ws.Config{}); transport.CodeOf(err) != transport.Canceled {
		t.Errorf("canceled: %v", err)
	}
	plain := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if _, err = ws.Dial[say, say](t.Context(), plain, ws.Config{}); transport.CodeOf(err) != transport.Unavailable {
		t.Errorf("no WebSocket there: %v", err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestDeadPeerIsFound: the peer reads, yet answers no ping.
func TestDeadPeerIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		h := newHandler(t, func(ctx context.Context, c *serverConn) error {
			_, end := c.Receive(ctx)
			ends <- end
			return end
		}, ws.Config{PingInterval: 20 * time.Second, PongTimeout: 5 * time.Second})
		nc := newPipes(t, h).raw(t)
		start := time.Now()
		io.Copy(io.Discard, nc) // until the server gives up
		if took := time.Since(start); took != 25*time.Second {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		if end := <-ends; !errors.Is(end, ws.ErrGone) {
			t.Errorf("the end is %v", end)
		}
		if got := h.Stats(); got.Gone != 1 || got.Open != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

// TestBusyFunction does not make its peer look dead, though it hears no pong meanwhile.
func TestBusyFunction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(ctx context.Context, c *serverConn) error {
			time.Sleep(time.Hour)
			return echo(ctx, c)
		}, ws.Config{})
		client := newPipes(t, h).client()
		c := dial(t, "ws://test", ws.Config{Client: client, PingInterval: 24 * time.Hour, WriteTimeout: 24 * time.Hour})
		for i := range 9 {
			if err := c.Send(t.Context(), say{fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 9 {
			if got, err := c.Receive(t.Context()); err != nil || got.Text != fmt.Sprint(i) {
				t.Fatalf("%q, %v", got.Text, err)
			}
		}
		time.Sleep(time.Hour)
		if got := h.Stats().Open; got != 1 {
			t.Errorf("%d open", got)
		}
	})
}

// TestIdlePeersStay: whoever pings, the other side answers. (They do not ping at the same
// time here: a pipe has no buffer, so that two pongs would wait for each other.)
func TestIdlePeersStay(t *testing.T) {
	t.Parallel()
	const never = 1000 * time.Hour
	for name, interval := range map[string][2]time.Duration{
		"server pings": {time.Minute, never},
		"client pings": {never, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, echo, ws.Config{PingInterval: interval[0], Rate: resilience.RateLimit{Rate: 2}})
				c := dial(t, "ws://test", ws.Config{Client: newPipes(t, h).client(), PingInterval: interval[1]})
				time.Sleep(100 * time.Hour)
				if err := c.Send(t.Context(), say{"still here"}); err != nil {
					t.Fatal(err)
				}
				if got, err := c.Receive(t.Context()); err != nil || got.Text != "still here" {
					t.Errorf("%q, %v", got.Text, err)
				}
			})
		})
	}
}

// TestStuckPeerIsCutOff: the peer does not read at all.
func TestStuckPeerIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ends, tooks := make(chan error, 1), make(chan time.Duration, 1)
		h := newHandler(t, func(ctx context.Context, c *serverConn) error {
			start, end := time.Now(), error(nil)
			for end == nil {
				end = c.Send(ctx, say{"news"})
			}
			ends <- end
			tooks <- time.Since(start)
			return end
		}, ws.Config{SendQueue: 4, WriteTimeout: 3 * time.Second})
		newPipes(t, h).raw(t)
		time.Sleep(time.Minute)
		if end, took := <-ends, <-tooks; !errors.Is(end, ws.ErrSlow) || took != 3*time.Second {
			t.Errorf("%v after %v", end, took)
		}
		if got := h.Stats(); got.Slow != 1 || got.Open != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

// TestSlowPeerIsToldSo: it reads, though less than it is sent, and TrySend never waits.
func TestSlowPeerIsToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(ctx context.Context, c *serverConn) error {
			start, err := time.Now(), error(nil)
			for err == nil {
				err = c.TrySend(say{"news"})
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("TrySend waited for %v", took)
			}
			return err
		}, ws.Config{SendQueue: 4})
		p := newPipes(t, h)
		nc := p.raw(t)
		time.Sleep(time.Second)
		got, err := io.ReadAll(nc) // as the peer does not say goodbye, to the end of CloseTimeout
		if err != nil || !strings.Contains(string(got), "\x03\xf5you read too slowly") {
			t.Errorf("read %q, %v", got, err)
		}
		synctest.Wait()
		if h.Stats().Slow != 1 {
			t.Errorf("stats %+v", h.Stats())
		}
	})
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ends := make(chan error, 1)
		h := newHandler(t, func(ctx context.Context, c *serverConn) (err error) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			for err == nil {
				err = c.Send(short, say{"news"})
			}
			ends <- err
			<-release
			return c.Send(ctx, say{"more"})
		}, ws.Config{SendQueue: 1})
		nc := newPipes(t, h).raw(t)
		time.Sleep(2 * time.Second)
		if err := <-ends; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send says %v", err)
		}
		close(release)
		got := make([]byte, 200)
		n, _ := io.ReadAtLeast(nc, got, 3*17)
		if strings.Count(string(got[:n]), "news") < 2 {
			t.Errorf("read %q", got[:n])
		}
	})
}

func TestShutdownSaysGoodbye(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(ctx context.Context, c *serverConn) error {
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, ws.ErrDraining) {
				t.Errorf("the cause is %v", cause)
			}
			return c.Send(ctx, say{"goodbye"})
		}, ws.Config{})
		p := newPipes(t, h)
		c := dial(t, "ws://test", ws.Config{Client: p.client()})
		synctest.Wait()
		start := time.Now()
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		if got, err := c.Receive(t.Context()); err != nil || got.Text != "goodbye" {
			t.Errorf("%q, %v", got.Text, err)
		}
		_, err := c.Receive(t.Context())
		if closed := wantClosed(t, err, 1001); !closed.Retryable() {
			t.Error("the client is not told to come back")
		}
		if _, err := ws.Dial[say, say](t.Context(), "ws://test", ws.Config{Client: p.client()}); transport.CodeOf(err) != transport.Unavailable {
			t.Errorf("a new connection: %v", err)
		}
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestShutdownIsBounded: a function that ignores its context does not keep the peer
// from hearing of it, and one that never returns does not hold Shutdown.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHandler(t, func(context.Context, *serverConn) error { <-release; return nil }, ws.Config{CloseTimeout: 2 * time.Second})
		c := dial(t, "ws://test", ws.Config{Client: newPipes(t, h).client()})
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		done := make(chan error)
		go func() { done <- h.Shutdown(ctx) }()
		_, err := c.Receive(t.Context())
		wantClosed(t, err, 1001)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the peer heard of it after %v", took)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 7*time.Second {
			t.Errorf("Shutdown says %v after %v", err, time.Since(start))
		}
		close(release)
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestPeerThatDoesNotSayGoodbye is cut off after CloseTimeout.
func TestPeerThatDoesNotSayGoodbye(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(context.Context, *serverConn) error { return nil }, ws.Config{CloseTimeout: time.Second})
		nc := newPipes(t, h).raw(t)
		start := time.Now()
		if _, err := io.Copy(io.Discard, nc); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestCloseOfAClient(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	h := newHandler(t, func(ctx context.Context, c *serverConn) error {
		for {
			if _, err := c.Receive(ctx); err != nil {
				ends <- errors.Join(err, context.Cause(ctx))
				return err
			}
		}
	}, ws.Config{})
	c := dial(t, serve(t, h), ws.Config{})
	if err := c.Send(t.Context(), say{"bye"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-ends; !errors.Is(err, io.EOF) {
		t.Errorf("the function saw %v", err)
	}
	if _, err := c.Receive(t.Context()); err == nil {
		t.Error("a closed connection receives")
	}
}

// TestServerBeside: a server does not wait for its WebSocket connections, and leaves
// them to the Shutdown of their handler.
func TestServerBeside(t *testing.T) {
	t.Parallel()
	s, err := httpx.NewServer(httpx.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, echo, ws.Config{})
	s.Mount("GET /live", h)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := dial(t, "ws://"+s.Addr()+"/live", ws.Config{})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := c.Send(t.Context(), say{"still here"}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Receive(t.Context()); err != nil || got.Text != "still here" {
		t.Errorf("%q, %v", got.Text, err)
	}
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = c.Receive(t.Context())
	wantClosed(t, err, 1001)
}

// bomb is a message whose code is wrong.
type bomb struct{}

func (*bomb) UnmarshalJSON([]byte) error { panic("secret") }

func TestPanicsOfMessagesAreRecovered(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	h, err := ws.New(func(ctx context.Context, c *ws.Conn[bomb, say]) error {
		_, err := c.Receive(ctx)
		return err
	}, ws.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, h), ws.Config{})
	if err := c.Send(t.Context(), say{"tick"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Receive(t.Context())
	if closed := wantClosed(t, err, 1011); strings.Contains(closed.Reason, "secret") {
		t.Errorf("the peer is told %q", closed.Reason)
	}
	if err := h.Shutdown(t.Context()); err != nil { // and so nobody logs any more
		t.Error(err)
	}
	if !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "UnmarshalJSON") {
		t.Errorf("the log says %s", log.String())
	}
}

// TestFunctionEndsOtherwise than by returning.
func TestFunctionEndsOtherwise(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fn  func(*serverConn)
		end string
	}{
		"closes itself":       {func(c *serverConn) { c.Close() }, "EOF"},
		"ends its goroutine":  {func(*serverConn) { runtime.Goexit() }, `ws: closed by the peer: 1011 "internal error"`},
		"breaks the response": {func(*serverConn) { panic(http.ErrAbortHandler) }, "ws: the peer is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, func(_ context.Context, c *serverConn) error { tc.fn(c); return errors.New("too late") }, ws.Config{})
			c := dial(t, serve(t, h), ws.Config{})
			if _, err := c.Receive(t.Context()); err == nil || !strings.HasPrefix(err.Error(), tc.end) {
				t.Errorf("the end is %v, want %s", err, tc.end)
			}
		})
	}
}

// TestPeerThatTakesNoPong sends pings and reads nothing.
func TestPeerThatTakesNoPong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, echo, ws.Config{})
		nc := newPipes(t, h).raw(t)
		if _, err := nc.Write([]byte("\x89\x80\x00\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := h.Stats(); got.Slow != 1 || got.Open != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

// TestTooLongIsNotAwaited: the refusal comes with the first byte too many, of whatever
// length the frame claims to be.
func TestTooLongIsNotAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, echo, ws.Config{MaxMessage: 10})
		nc := newPipes(t, h).raw(t)
		go nc.Write([]byte("\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00" + `{"text":"a"`))
		start := time.Now()
		got := make([]byte, 4)
		if _, err := io.ReadFull(nc, got); err != nil || string(got[2:]) != "\x03\xf1" || time.Since(start) != 0 {
			t.Errorf("answered %q, %v after %v, want 1009", got, err, time.Since(start))
		}
	})
}

// inBetween shuts the handler down in the middle of a handshake.
type inBetween struct {
	http.ResponseWriter
	shutDown func()
}

func (b inBetween) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	go b.shutDown()
	synctest.Wait()
	return http.NewResponseController(b.ResponseWriter).Hijack()
}

func TestShutdownDuringAHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, echo, ws.Config{})
		done := make(chan error, 1)
		p := newPipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(inBetween{w, func() { done <- h.Shutdown(context.Background()) }}, r)
		}))
		c := dial(t, "ws://test", ws.Config{Client: p.client()})
		_, err := c.Receive(t.Context())
		wantClosed(t, err, 1001)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestBrokenFrames(t *testing.T) {
	t.Parallel()
	for name, frame := range map[string]string{
		"unmasked":            "\x81\x02{}",
		"reserved bits":       "\xf1\x80\x00\x00\x00\x00",
		"unknown opcode":      "\x83\x80\x00\x00\x00\x00",
		"long ping":           "\x89\xfe\x01\x00\x00\x00\x00\x00",
		"fragmented ping":     "\x09\x80\x00\x00\x00\x00",
		"lonely continuation": "\x80\x80\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, echo, ws.Config{})
				nc := newPipes(t, h).raw(t)
				go nc.Write([]byte(frame))
				got, _ := io.ReadAll(nc)
				if len(got) < 4 || got[0] != 0x88 || string(got[2:4]) != "\x03\xea" {
					t.Errorf("answered %q, want a close frame with 1002", got)
				}
				synctest.Wait()
				if got := h.Stats(); got.Open != 0 {
					t.Errorf("stats %+v", got)
				}
			})
		})
	}
}

// FuzzFrames: whatever bytes come, the function is entered and left, and nothing stays.
func FuzzFrames(f *testing.F) {
	mask := "\x00\x00\x00\x00"
	f.Add([]byte("\x81\x8c" + mask + `{"text":"a"}`))
	f.Add([]byte("\x01\x86" + mask + `{"text` + "\x80\x86" + mask + `":"a"}`))
	f.Add([]byte("\x89\x80" + mask + "\x8a\x80" + mask + "\x88\x82" + mask + "\x03\xe8"))
	f.Add([]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + mask))
	f.Add([]byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask))
	f.Fuzz(func(t *testing.T, frames []byte) {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, echo, ws.Config{MaxMessage: 100})
			nc := newPipes(t, h).raw(t)
			go io.Copy(io.Discard, nc)
			nc.SetWriteDeadline(time.Now().Add(time.Minute))
			nc.Write(frames)
			nc.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := h.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			if got := h.Stats(); got.Failed != 0 || got.Accepted != 1 {
				t.Errorf("stats %+v", got)
			}
		})
	})
}

// FuzzMessage: what is refused says why in a code that fits, and what is taken has one
// meaning: written again it is the same.
func FuzzMessage(f *testing.F) {
	for _, data := range []string{`{"text":"a"}`, `{"Text":"a"}`, `{"text":"a","text":"b"}`, `null`, `{}{}`, `"\ud800"`, "\xff", ``} {
		f.Add([]byte(data), true)
		f.Add([]byte(data), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, strict bool) {
		var in, again say
		if refused := ws.Decode(data, &in, strict); refused != nil {
			want := 1008
			if !utf8.Valid(data) || !json.Valid(data) {
				want = 1007
			}
			if refused.Code != want || refused.Reason == "" {
				t.Fatalf("%q is refused with %v, want %d", data, refused, want)
			}
			return
		}
		written, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if refused := ws.Decode(written, &again, strict); refused != nil || again != in {
			t.Fatalf("%q became %q: %v", data, written, refused)
		}
	})
}

// TestThousandConnections bounds the memory of idle ones on the server.
func TestThousandConnections(t *testing.T) {
	const n = 1000
	h := newHandler(t, echo, ws.Config{})
	p := newPipes(t, h)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := memory()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = p.raw(t)
	}
	message := []byte("\x81\x8c\x00\x00\x00\x00" + `{"text":"a"}`)
	answer := make([]byte, len("\x81\x0c")+len(`{"text":"a"}`))
	for _, nc := range conns {
		if _, err := nc.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	for _, nc := range conns {
		if _, err := io.ReadFull(nc, answer); err != nil || !strings.HasSuffix(string(answer), `{"text":"a"}`) {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	each := (memory() - before) / n
	t.Logf("%d bytes for each connection", each)
	if each > 64<<10 { // some 36 KiB without the race detector
		t.Errorf("%d bytes for each connection", each)
	}
	for _, nc := range conns {
		nc.Close()
	}
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := h.Stats(); got.Open != 0 || got.Accepted != n {
		t.Errorf("stats %+v", got)
	}
}
