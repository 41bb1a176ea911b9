package httpx_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func TestGroupPrefixesAndAnnouncesItsEnd(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	answer := func(text string) transport.Func[struct{}, string] {
		return func(context.Context, struct{}) (string, error) { return text, nil }
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v1 := s.Group("/v1", httpx.Deprecated(since, "https://shop.example/v2"), httpx.Sunset(since.AddDate(1, 0, 0), ""))
	httpx.Handle(v1, "GET /orders", answer("old"))
	httpx.Handle(v1.Group("/admin", httpx.Status(http.StatusAccepted)), "GET /orders", answer("admin"))
	httpx.Handle(s.Group("/v2"), "GET /orders", answer("new"))

	for _, tt := range []struct {
		path, body, deprecation, sunset, link string
		status                                int
	}{
		{"/v1/orders", "old", "@1767323045", "Sat, 02 Jan 2027 03:04:05 GMT", `<https://shop.example/v2>; rel="deprecation"; type="text/html"`, 200},
		{"/v1/admin/orders", "admin", "@1767323045", "Sat, 02 Jan 2027 03:04:05 GMT", `<https://shop.example/v2>; rel="deprecation"; type="text/html"`, 202},
		{"/v2/orders", "new", "", "", "", 200},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
		h := w.Header()
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || h.Get("Deprecation") != tt.deprecation ||
			h.Get("Sunset") != tt.sunset || strings.Join(h.Values("Link"), ",") != tt.link {
			t.Errorf("%s: %d %s %v", tt.path, w.Code, w.Body, h)
		}
	}
	for name, call := range map[string]func(){
		"no slash":       func() { s.Group("v1") },
		"trailing slash": func() { s.Group("/v1/") },
		"path":           func() { httpx.Handle(v1, "GET orders", answer("")) },
		"zero since":     func() { httpx.Deprecated(time.Time{}, "") },
		"zero sunset":    func() { httpx.Sunset(time.Time{}, "") },
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

type document struct {
	Text string `json:"text"`
	tag  string
	at   time.Time
}

func (d document) ETag() string            { return d.tag }
func (d document) LastModified() time.Time { return d.at }

func TestConditionalGet(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 10, 0, 0, 500, time.UTC)
	const date = "Sat, 21 Nov 2026 10:00:00 GMT"
	for _, tt := range []struct {
		name   string
		doc    document
		method string
		header map[string]string
		status int
	}{
		{"no condition", document{tag: "7"}, "GET", nil, 200},
		{"same tag", document{tag: "7"}, "GET", map[string]string{"If-None-Match": `"7"`}, 304},
		{"HEAD", document{tag: "7"}, "HEAD", map[string]string{"If-None-Match": `"7"`}, 304},
		{"weak comparison", document{tag: `W/"7"`}, "GET", map[string]string{"If-None-Match": `"6", "7"`}, 304},
		{"other tag", document{tag: "7"}, "GET", map[string]string{"If-None-Match": `"8"`}, 200},
		{"any", document{tag: "7"}, "GET", map[string]string{"If-None-Match": "*"}, 304},
		{"malformed", document{tag: "7"}, "GET", map[string]string{"If-None-Match": `7`}, 200},
		{"unended", document{tag: "7"}, "GET", map[string]string{"If-None-Match": `"7`}, 200},
		{"not modified since", document{at: at}, "GET", map[string]string{"If-Modified-Since": date}, 304},
		{"modified since", document{at: at.Add(time.Second)}, "GET", map[string]string{"If-Modified-Since": date}, 200},
		{"the tag decides alone", document{tag: "7", at: at}, "GET", map[string]string{"If-None-Match": `"8"`, "If-Modified-Since": date}, 200},
		{"a POST has no copy", document{tag: "7"}, "POST", map[string]string{"If-None-Match": `"7"`}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, httpx.Config{})
			pattern := tt.method
			if pattern == "HEAD" {
				pattern = "GET"
			}
			httpx.Handle(s, pattern+" /doc", func(context.Context, struct{}) (document, error) { return tt.doc, nil })
			r := httptest.NewRequest(tt.method, "/doc", nil)
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != tt.status || tt.status == http.StatusNotModified && w.Body.Len() > 0 {
				t.Errorf("status %d, body %q", w.Code, w.Body)
			}
			if tt.doc.tag == "7" && w.Header().Get("ETag") != `"7"` {
				t.Errorf("ETag = %q", w.Header().Get("ETag"))
			}
		})
	}
}

func TestAutoETag(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	text := "one"
	httpx.Handle(s, "GET /doc", func(context.Context, struct{}) (string, error) { return text, nil }, httpx.AutoETag())
	get := func(tag string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/doc", nil)
		r.Header.Set("If-None-Match", tag)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	first := get("")
	tag := first.Header().Get("ETag")
	if first.Code != http.StatusOK || len(tag) < 10 {
		t.Fatalf("first answer: %d, tag %q", first.Code, tag)
	}
	if again := get(tag); again.Code != http.StatusNotModified || again.Body.Len() != 0 || again.Header().Get("ETag") != tag {
		t.Errorf("unchanged: %d %q", again.Code, again.Body)
	}
	text = "two"
	if changed := get(tag); changed.Code != http.StatusOK || changed.Header().Get("ETag") == tag {
		t.Errorf("changed: %d", changed.Code)
	}
}

func TestCheckMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ifMatch, current string
		ok               bool
	}{
		{"", `"1"`, true}, {"*", `"1"`, true}, {"*", "", false}, {`"1"`, `"1"`, true}, {`"0", "1"`, `"1"`, true},
		{`"2"`, `"1"`, false}, {`W/"1"`, `W/"1"`, false}, {`"1"`, "", false}, {"1", `"1"`, false},
	} {
		err := httpx.CheckMatch(tt.ifMatch, tt.current)
		if (err == nil) != tt.ok {
			t.Errorf("CheckMatch(%s, %s) = %v", tt.ifMatch, tt.current, err)
		}
		if err != nil && transport.AsError(err).StatusCode() != http.StatusPreconditionFailed {
			t.Errorf("status %d", transport.AsError(err).StatusCode())
		}
	}
}
