package httpx_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

type watch struct {
	ID    string `path:"id"`
	After string `header:"Last-Event-ID"`
}

type step struct {
	Number int    `json:"number"`
	Text   string `json:"text,omitempty"`
	name   string
}

func (s step) EventID() string   { return fmt.Sprint(s.Number) }
func (s step) EventName() string { return s.name }

// streaming serves f in a bubble and returns a client whose connections are pipes.
func streaming(t *testing.T, f func(context.Context, watch) iter.Seq2[step, error], opts ...httpx.RouteOption) (*httpx.Server, *http.Client, func()) {
	t.Helper()
	s := newServer(t, httpx.Config{})
	httpx.Stream(s, "GET /orders/{id}/events", f, opts...)
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.ServeListener(l) }()
	connections := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }}
	return s, &http.Client{Transport: connections}, func() {
		connections.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}

func follow(t *testing.T, c *http.Client, after string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop/orders/7/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// read returns the next n non-empty lines.
func read(t *testing.T, from *bufio.Scanner, n int) string {
	t.Helper()
	var lines []string
	for len(lines) < n && from.Scan() {
		if from.Text() != "" {
			lines = append(lines, from.Text())
		}
	}
	return strings.Join(lines, "\n")
}

func TestStreamSendsEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, client, stop := streaming(t, func(_ context.Context, w watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) {
				if !yield(step{Number: 4, Text: "order " + w.ID + " after " + w.After, name: "moved\nid: 9"}, nil) {
					return
				}
				time.Sleep(time.Second)
				yield(step{Number: 5}, nil)
			}
		})
		defer stop()
		res := follow(t, client, "3")
		defer res.Body.Close()
		if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
			t.Errorf("status %d, type %q", res.StatusCode, got)
		}
		lines := bufio.NewScanner(res.Body)
		want := "event: movedid: 9\nid: 4\ndata: {\"number\":4,\"text\":\"order 7 after 3\"}\nid: 5\ndata: {\"number\":5}"
		if got := read(t, lines, 100); got != want {
			t.Errorf("stream:\n%s\nwant:\n%s", got, want)
		}
	})
}

func TestStreamBeatsWhileItIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, client, stop := streaming(t, func(ctx context.Context, _ watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) {
				time.Sleep(10 * time.Minute) // far beyond every timeout of the server
				yield(step{Number: 1}, nil)
				<-ctx.Done()
			}
		}, httpx.Heartbeat(time.Minute))
		defer stop()
		start := time.Now()
		res := follow(t, client, "")
		if took := time.Since(start); took != time.Second {
			t.Errorf("the header of a silent stream came after %v, want 1s", took)
		}
		lines := bufio.NewScanner(res.Body)
		if got := read(t, lines, 10); strings.Count(got, ":") != 10 || time.Since(start) != 9*time.Minute+time.Second {
			t.Errorf("after %v:\n%s", time.Since(start), got)
		}
		if got := read(t, lines, 2); got != "id: 1\ndata: {\"number\":1}" {
			t.Errorf("event after ten minutes: %s", got)
		}
		res.Body.Close() // the client leaves: the function must notice
	})
}

func TestStreamAnswersAnEarlyErrorWithAProblem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := transport.Errorf(transport.NotFound, "ORDER_NOT_FOUND", "there is no such order")
		_, client, stop := streaming(t, func(context.Context, watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) { yield(step{}, failed) }
		})
		defer stop()
		res := follow(t, client, "")
		defer res.Body.Close()
		if res.StatusCode != http.StatusNotFound || res.Header.Get("Content-Type") != transport.ProblemType {
			t.Errorf("status %d, type %q", res.StatusCode, res.Header.Get("Content-Type"))
		}
	})
}

func TestStreamSendsALateErrorAsAnEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		yields := 0
		_, client, stop := streaming(t, func(context.Context, watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) {
				for _, err := range []error{nil, errors.New("secret of the database"), nil} {
					yields++
					if !yield(step{Number: yields}, err) {
						return
					}
				}
			}
		})
		defer stop()
		res := follow(t, client, "")
		defer res.Body.Close()
		got := read(t, bufio.NewScanner(res.Body), 100)
		if !strings.Contains(got, "event: error\ndata: {") || !strings.Contains(got, `"status":500`) || strings.Contains(got, "secret") {
			t.Errorf("stream:\n%s", got)
		}
		if yields != 2 {
			t.Errorf("the function went on after its error: %d yields", yields)
		}
	})
}

func TestStreamEndsWithTheDrainAndTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var cause error
		s, client, stop := streaming(t, func(ctx context.Context, _ watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) {
				if !yield(step{Number: 1}, nil) {
					return
				}
				<-ctx.Done()
				cause = context.Cause(ctx)
			}
		})
		res := follow(t, client, "")
		lines := bufio.NewScanner(res.Body)
		read(t, lines, 2)
		s.Drain()
		if got := read(t, lines, 100); got != "retry: 1000" {
			t.Errorf("end of the stream: %q", got)
		}
		res.Body.Close()
		stop()
		if !errors.Is(cause, httpx.ErrDraining) {
			t.Errorf("cause = %v", cause)
		}
	})
}

func TestStreamToASlowReaderEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		_, client, stop := streaming(t, func(context.Context, watch) iter.Seq2[step, error] {
			return func(yield func(step, error) bool) {
				defer close(ended)
				for n := 1; yield(step{Number: n, Text: strings.Repeat("x", 4096)}, nil); n++ {
				}
			}
		})
		defer stop()
		res := follow(t, client, "")
		defer res.Body.Close()
		start := time.Now()
		<-ended // the client reads nothing more
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("a reader that does not read held the stream for %v", took)
		}
	})
}

func TestStreamPanicsOnMistakes(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	for name, call := range map[string]func(){
		"no method": func() {
			httpx.Stream(s, "/x", func(context.Context, watch) iter.Seq2[step, error] { return nil })
		},
		"nil":       func() { httpx.Stream[watch, step](s, "GET /orders/{id}", nil) },
		"heartbeat": func() { httpx.Heartbeat(0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
