package idempotency_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/armature-go/armature/transport/httpx"
	"github.com/armature-go/armature/transport/idempotency"
)

// placed is a response that tells whether it is a replay.
type placed struct {
	ID       string `json:"id"`
	Replayed bool   `json:"-"`
}

func (p *placed) Headers() http.Header {
	if !p.Replayed {
		return nil
	}
	return http.Header{"Idempotency-Replayed": {"true"}}
}

type placeOrder struct {
	Shop  string `path:"shop"`
	Count int    `json:"count"`
}

// The whole way: the same bytes, the header, a 422 and a 400 for people who use curl.
func TestOverHTTP(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, idempotency.Config{Required: true, OnReplay: func(_ context.Context, response any) {
		if p, ok := response.(*placed); ok {
			p.Replayed = true
		}
	}})
	server, err := httpx.NewServer(httpx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	httpx.Handle(server, "POST /{shop}/orders", idempotency.Once(keys, "orders.Place", func(_ context.Context, o placeOrder) (*placed, error) {
		runs++
		return &placed{ID: fmt.Sprintf("%s-%d-%d", o.Shop, o.Count, runs)}, nil
	}), httpx.Status(http.StatusCreated))
	post := func(path, key, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w
	}
	first := post("/a/orders", "k", `{"count":3}`)
	again := post("/a/orders", "k", ` { "count" : 3 } `)
	if first.Code != http.StatusCreated || again.Code != http.StatusCreated || first.Body.String() != again.Body.String() || runs != 1 {
		t.Errorf("%d %s, then %d %s", first.Code, first.Body, again.Code, again.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("marked %v, then %v", first.Header(), again.Header())
	}
	for name, tt := range map[string]struct {
		answer *httptest.ResponseRecorder
		status int
		reason string
	}{
		"another body": {post("/a/orders", "k", `{"count":4}`), 422, "IDEMPOTENCY_KEY_REUSED"},
		"another path": {post("/b/orders", "k", `{"count":3}`), 422, "IDEMPOTENCY_KEY_REUSED"},
		"no key":       {post("/a/orders", "", `{"count":3}`), 400, "IDEMPOTENCY_KEY_MISSING"},
	} {
		if tt.answer.Code != tt.status || !strings.Contains(tt.answer.Body.String(), tt.reason) {
			t.Errorf("%s: %d %s", name, tt.answer.Code, tt.answer.Body)
		}
	}
	if runs != 1 {
		t.Errorf("%d runs", runs)
	}
}
