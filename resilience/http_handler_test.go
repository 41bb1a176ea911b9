package resilience_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

// refusing rejects with err.
type refusing struct{ err error }

func (r refusing) Run(context.Context, resilience.Next) error { return r.err }
func (refusing) Describe() resilience.Description             { return resilience.Description{Kind: "refusing"} }

func TestHandlerRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		err     error
		options resilience.HandlerOptions
		status  int
		after   string
	}{
		{"open for a while", &resilience.OpenError{After: 1500 * time.Millisecond}, resilience.HandlerOptions{}, 503, "2"},
		{"open for a moment", &resilience.OpenError{After: time.Millisecond}, resilience.HandlerOptions{}, 503, "1"},
		{"full", resilience.ErrFull, resilience.HandlerOptions{}, 503, "1"},
		{"full by option", resilience.ErrFull, resilience.HandlerOptions{RetryAfter: 5 * time.Second}, 503, "5"},
		{"full without a wish", resilience.ErrFull, resilience.HandlerOptions{RetryAfter: -1}, 503, ""},
		{"throttled", resilience.ErrThrottled, resilience.HandlerOptions{}, 503, "1"},
		{"rate limited", resilience.ErrRateLimited, resilience.HandlerOptions{}, 429, "1"},
		{"something else", errDown, resilience.HandlerOptions{}, 503, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			resilience.Handler(refusing{tt.err}, tt.options)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("handled")
			})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			var problem struct {
				Status int    `json:"status"`
				Detail string `json:"detail"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Status != tt.status || problem.Detail == "" {
				t.Errorf("body %q, %v", w.Body, err)
			}
			if w.Code != tt.status || w.Header().Get("Retry-After") != tt.after || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %v, want %d, Retry-After %q", w.Code, w.Header(), tt.status, tt.after)
			}
		})
	}
}

func TestHandlerTellsPolicies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		failed  bool
	}{
		{"nothing written", func(http.ResponseWriter, *http.Request) {}, false},
		{"200", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }, false},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, false},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true},
		{"503 after hints", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(503) }, true},
		{"500 too late", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil); w.WriteHeader(500) }, false},
		{"panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1}))
			func() {
				defer func() { _ = recover() }()
				resilience.Handler(b, resilience.HandlerOptions{})(tt.handler).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			}()
			if failed := b.State() == resilience.Open; failed != tt.failed {
				t.Errorf("failure %v, want %v", failed, tt.failed)
			}
		})
	}
}

func TestHandlerRunsOnce(t *testing.T) {
	t.Parallel()
	for _, p := range []resilience.Policy{thrice(), stubborn(), sideBySide(3)} {
		n := 0
		w := httptest.NewRecorder()
		resilience.Handler(p, resilience.HandlerOptions{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "once")
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if n != 1 || w.Code != 500 || w.Body.String() != "once" {
			t.Errorf("%s: ran %d times: %d %q", p.Describe().Kind, n, w.Code, w.Body)
		}
	}
}

func TestHandlerAnswersForOneThatTimedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, early := range []bool{false, true} {
			w := httptest.NewRecorder()
			resilience.Handler(must(resilience.NewTimeout(time.Second)), resilience.HandlerOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if early {
					w.WriteHeader(202)
				}
				<-r.Context().Done()
			})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if want := map[bool]int{false: 503, true: 202}[early]; w.Code != want {
				t.Errorf("written early %v: status %d, want %d", early, w.Code, want)
			}
		}
	})
}

func TestHandlerKeepsTheWriter(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(resilience.Handler(must(resilience.NewTimeout(time.Minute)), resilience.HandlerOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			_ = conn.Close()
			return
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, strings.NewReader("body"))
	})))
	defer srv.Close()
	for path, want := range map[string]string{"/": "200 body", "/hijack": "204 "} {
		resp := must(srv.Client().Do(request(t, "GET", srv.URL+path, nil)))
		body := must(io.ReadAll(resp.Body))
		_ = resp.Body.Close()
		if got := resp.Status[:4] + string(body); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestHandlerRejectsByOption(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	resilience.Handler(refusing{resilience.ErrFull}, resilience.HandlerOptions{Reject: func(w http.ResponseWriter, _ *http.Request, err error) {
		if !errors.Is(err, resilience.ErrFull) {
			t.Error(err)
		}
		w.WriteHeader(418)
	}})(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 418 {
		t.Errorf("status %d", w.Code)
	}
}
