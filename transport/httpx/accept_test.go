package httpx_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func TestAccept(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "GET /x", func(context.Context, struct{}) (string, error) { return "x", nil })
	for accept, status := range map[string]int{
		"":                                   200,
		"*/*":                                200,
		"application/*;q=0.1":                200,
		"application/json":                   200,
		"Application/JSON; charset=utf-8":    200,
		"application/problem+json":           200,
		"text/html, application/json;q=0.2":  200,
		"text/html, */*;q=0.1":               200,
		"text/html":                          406,
		"application/json;q=0, */*":          406,
		"*/*;q=0":                            406,
		"image/png, text/*":                  406,
		"garbage":                            200,
		"application/json;q=two, text/html":  200,
		"text/html;level=1;q=0.4,text/plain": 406,
	} {
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != status || status == 406 && !strings.Contains(w.Body.String(), "NOT_ACCEPTABLE") {
			t.Errorf("Accept %q: %d %s, want %d", accept, w.Code, w.Body, status)
		}
	}
}

func TestCookieBinding(t *testing.T) {
	t.Parallel()
	type request struct {
		Session string `cookie:"session"`
		Page    int    `cookie:"page"`
	}
	s := newServer(t, httpx.Config{})
	var got request
	httpx.Handle(s, "GET /x", func(_ context.Context, r request) (string, error) { got = r; return "", nil })
	server := httptest.NewServer(s)
	defer server.Close()
	call, err := httpx.NewClient[request, string](httpx.ClientConfig{BaseURL: server.URL, Client: server.Client()}, "GET /x")
	if err != nil {
		t.Fatal(err)
	}
	want := request{Session: "a b,c", Page: 3}
	if _, err := call(t.Context(), want); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := call(t.Context(), request{Session: "a;b"}); err == nil {
		t.Error("a cookie that would begin another one was sent")
	}
	r := httptest.NewRequest(http.MethodGet, "/x", nil)
	r.Header.Set("Cookie", "page=many")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "/cookie/page") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// challenged is an error that wraps one of ours and has a header of its own.
type challenged struct{ error }

func (c challenged) Unwrap() error { return c.error }
func (challenged) Headers() http.Header {
	return http.Header{"Www-Authenticate": {`Bearer error="expired"`}}
}

func TestHeadersOfAWrappingErrorAreSent(t *testing.T) {
	t.Parallel()
	refuse := transport.Errorf(transport.Unauthenticated, "EXPIRED", "sign in again").WithRetryAfter(time.Second)
	s := newServer(t, httpx.Config{Middleware: []endpoint.Middleware{func(endpoint.Endpoint) endpoint.Endpoint {
		return func(context.Context, any) (any, error) { return nil, challenged{refuse} }
	}}})
	httpx.Handle(s, "GET /x", func(context.Context, struct{}) (string, error) { return "", nil })
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	if h := w.Header(); w.Code != http.StatusUnauthorized || h.Get("WWW-Authenticate") != `Bearer error="expired"` || h.Get("Retry-After") != "1" {
		t.Errorf("%d %v", w.Code, h)
	}
}
