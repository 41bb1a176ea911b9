package httpx_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/transport/httpx"
)

type echo struct {
	N int `json:"n"`
}

// start serves s on a free port until the test shuts it down.
func start(t *testing.T, s *httpx.Server) (served <-chan error) {
	t.Helper()
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return done
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{Addr: "127.0.0.1:0"})
	if err := s.Serve(); err == nil || !strings.Contains(err.Error(), "call Listen before") {
		t.Errorf("Serve before Listen: %v", err)
	}
	if s.Addr() != "127.0.0.1:0" {
		t.Errorf("Addr before Listen: %s", s.Addr())
	}
	served := start(t, s)
	if strings.HasSuffix(s.Addr(), ":0") {
		t.Errorf("Addr after Listen: %s", s.Addr())
	}
	if err := s.Listen(t.Context()); err == nil {
		t.Error("a second Listen passed")
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
	wg.Wait()
	if err := <-served; err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if err := s.Serve(); err != nil {
		t.Errorf("Serve long after Shutdown: %v", err)
	}
	if err := s.Listen(t.Context()); err == nil {
		t.Error("Listen after Shutdown passed")
	}
	if _, err := net.Dial("tcp", s.Addr()); err == nil {
		t.Error("still accepting")
	}
}

func TestShutdownOfAServerThatNeverServed(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{Addr: "127.0.0.1:0"})
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Clients that hammer the server while it drains and shuts down: whatever the
// function did, its caller has the whole answer.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	for _, drain := range []bool{true, false} {
		s := newServer(t, httpx.Config{Addr: "127.0.0.1:0"})
		var executed, answered, clients atomic.Int64
		enough := make(chan struct{})
		httpx.Handle(s, "POST /echo", func(_ context.Context, e echo) (echo, error) {
			if executed.Add(1) == 300 {
				close(enough)
			}
			return e, nil
		})
		served := start(t, s)
		tr := &http.Transport{MaxIdleConnsPerHost: 16}
		client := &http.Client{Transport: tr}
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				clients.Add(1)
				for {
					resp, err := client.Post("http://"+s.Addr()+"/echo", "application/json", strings.NewReader(`{"n":1}`))
					if err != nil {
						return
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || resp.StatusCode != 200 || strings.TrimSpace(string(body)) != `{"n":1}` {
						t.Errorf("drain %v: %d %q %v", drain, resp.StatusCode, body, err)
						return
					}
					answered.Add(1)
				}
			})
		}
		<-enough
		if drain {
			s.Drain()
			before := executed.Load()
			for executed.Load() < before+100 { // it goes on to answer
				if err := t.Context().Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		wg.Wait()
		tr.CloseIdleConnections()
		if executed.Load() != answered.Load() {
			t.Errorf("drain %v: %d executed, %d answered", drain, executed.Load(), answered.Load())
		}
	}
}

// pipes is a listener whose connections are synchronous: a write returns when
// the server has read it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

func TestShutdownAnswersWhatWasRead(t *testing.T) {
	t.Parallel()
	const first = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"n\":1}"
	for _, tc := range []struct {
		name   string
		before string // written in full before Shutdown
		after  string
		warm   bool // an earlier request makes it a kept-alive connection
	}{
		{"one byte of a new connection", first[:1], first[1:], false},
		{"half a header of a kept-alive connection", first[:30], first[30:], true},
		{"one byte of a kept-alive connection", first[:1], first[1:], true},
		{"header without body", first[:len(first)-7], first[len(first)-7:], true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, httpx.Config{})
				httpx.Handle(s, "POST /echo", func(_ context.Context, e echo) (echo, error) { return e, nil })
				l := newPipes()
				served := make(chan error, 1)
				go func() { served <- s.ServeListener(l) }()
				c, idle, fresh := l.dial(), l.dial(), l.dial()
				defer c.Close()
				defer idle.Close()
				defer fresh.Close()
				roundTrip := func(c net.Conn, text string) *http.Response {
					t.Helper()
					if _, err := io.WriteString(c, text); err != nil {
						t.Fatal(err)
					}
					resp, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						t.Fatalf("no answer: %v", err)
					}
					if body, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(body)) != `{"n":1}` {
						t.Fatalf("answer %q: %v", body, err)
					}
					return resp
				}
				roundTrip(idle, first)
				if tc.warm {
					if resp := roundTrip(c, first); resp.Close {
						t.Fatal("the connection was not kept alive")
					}
				}
				if _, err := io.WriteString(c, tc.before); err != nil {
					t.Fatal(err)
				}
				stopped := make(chan error, 1)
				go func() { stopped <- s.Shutdown(t.Context()) }()
				time.Sleep(time.Second) // in the bubble: the idle connections have ended
				select {
				case err := <-stopped:
					t.Fatalf("Shutdown did not wait: %v", err)
				default:
				}
				for _, c := range []net.Conn{idle, fresh} {
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Errorf("a connection without a request: %v", err)
					}
				}
				if resp := roundTrip(c, tc.after); !resp.Close {
					t.Error("the last answer does not say Connection: close")
				}
				if err := <-stopped; err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				if err := <-served; err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}

// net/http reads one byte ahead while a handler runs. That byte is the beginning
// of a request, too.
func TestShutdownAnswersWhatWasReadAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpx.Config{})
		release := make(chan struct{})
		httpx.Handle(s, "GET /wait", func(context.Context, struct{}) (string, error) { <-release; return "done", nil })
		l := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.ServeListener(l) }()
		c := l.dial()
		defer c.Close()
		const text = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
		for _, part := range []string{text, text[:1]} { // the second is read while the handler runs
			if _, err := io.WriteString(c, part); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		r := bufio.NewReader(c)
		for i := range 2 {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(body)) != `"done"` {
				t.Fatalf("answer %d: %q, %v", i, body, err)
			}
			if i == 0 {
				synctest.Wait() // the connection waits for the rest of the second request
				go s.Shutdown(t.Context())
				time.Sleep(time.Second)
				if _, err := io.WriteString(c, text[1:]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpx.Config{})
		release := make(chan struct{})
		httpx.Handle(s, "GET /hang", func(context.Context, struct{}) (struct{}, error) { <-release; return struct{}{}, nil })
		l := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.ServeListener(l) }()
		c := l.dial()
		defer c.Close()
		if _, err := io.WriteString(c, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections cut off") {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		close(release)
	})
}

func TestSlowClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpx.Config{ReadHeaderTimeout: time.Second, ReadTimeout: 2 * time.Second})
		httpx.Handle(s, "POST /echo", func(_ context.Context, e echo) (echo, error) { return e, nil })
		l := newPipes()
		go s.ServeListener(l)
		header, body := l.dial(), l.dial()
		defer header.Close()
		defer body.Close()
		io.WriteString(header, "GET /")
		io.WriteString(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		if answer, err := io.ReadAll(header); err != nil || strings.Contains(string(answer), "200 OK") {
			t.Errorf("a header that never ends: %q, %v", answer, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(body), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("a body that never ends: %s", resp.Status)
		}
		resp.Body.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A client that does not read its answer must not hold the server for ever, and
// a stream on the same server may take as long as it likes.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpx.Config{})
		httpx.Handle(s, "GET /big", func(context.Context, struct{}) (string, error) { return strings.Repeat("x", 1<<20), nil })
		s.Mount("GET /stream", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Hour)
			io.WriteString(w, "late")
		}))
		l := newPipes()
		go s.ServeListener(l)
		slow, stream := l.dial(), l.dial()
		defer slow.Close()
		defer stream.Close()
		io.WriteString(slow, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
		// A 404 first: it leaves its write deadline on the connection.
		io.WriteString(stream, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
		r := bufio.NewReader(stream)
		for i, want := range []string{`"ROUTE_NOT_FOUND"`, "late"} {
			if i == 1 {
				io.WriteString(stream, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), want) {
				t.Errorf("body %q: %v", body, err)
			}
		}
		if n, err := io.Copy(io.Discard, slow); err != nil || n > 1<<20 {
			t.Errorf("an hour later the slow reader still got %d bytes: %v", n, err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
