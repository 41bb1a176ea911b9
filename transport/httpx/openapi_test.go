package httpx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type money struct {
	Cents    int64  `json:"cents"`
	Currency string `json:"currency" doc:"ISO 4217"`
}

type line struct {
	SKU      string  `json:"sku"`
	Quantity uint32  `json:"quantity"`
	Price    *money  `json:"price,omitempty"`
	Weight   float64 `json:"weight,string"`
}

type putOrder struct {
	ID      string          `path:"id" doc:"made by the caller"`
	DryRun  bool            `query:"dry_run"`
	Match   string          `header:"If-Match"`
	Lines   []line          `json:"lines"`
	Note    *string         `json:"note"`
	Extra   json.RawMessage `json:"extra,omitempty"`
	At      time.Time       `json:"at"`
	Photo   []byte          `json:"photo,omitempty"`
	Labels  map[string]int  `json:"labels,omitempty"`
	Parent  *tree           `json:"parent,omitempty"`
	Private string          `json:"-"`
}

type tree struct {
	Name     string `json:"name"`
	Children []tree `json:"children"`
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpx.Config{})
	httpx.Handle(s, "PUT /orders/{id}", func(context.Context, putOrder) (*placed, error) { return nil, nil },
		httpx.Doc("Place or replace an order", "The caller chooses the id."), httpx.Tag("orders"), httpx.Answers(transport.FailedPrecondition))
	httpx.Handle(s, "DELETE /orders/{id}", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
	httpx.Handle(s.Group("/v1", httpx.Deprecated(time.Unix(1, 0), "")), "GET /trees/{path...}", func(context.Context, struct{}) ([]tree, error) { return nil, nil })
	httpx.Stream(s, "GET /orders/{id}/events", func(context.Context, watch) iter.Seq2[step, error] { return nil })
	s.MountOpenAPI("/docs", httpx.APIInfo{Title: "Shop <&>", Version: "1.2", Servers: []string{"https://shop.example"}})

	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/docs/openapi.json", nil))
	var got bytes.Buffer
	if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %d %s", err, w.Code, w.Body)
	}
	got.WriteByte('\n')
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the description changed (run with -update to accept it):\n%s", diff)
	}
	checkReferences(t, got.Bytes())

	page := httptest.NewRecorder()
	s.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/docs", nil))
	for _, text := range []string{"Shop &lt;&amp;&gt;", "/orders/{id}/events", "deprecated", `href="/docs/openapi.json"`} {
		if !strings.Contains(page.Body.String(), text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	for _, foreign := range []string{"<script", "http://", "https://"} {
		if strings.Contains(page.Body.String(), foreign) {
			t.Errorf("the page has %q in it", foreign)
		}
	}
}

// checkReferences fails for a $ref that leads nowhere.
func checkReferences(t *testing.T, text []byte) {
	t.Helper()
	var doc struct {
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	refs := 0
	for part := range strings.SplitSeq(string(text), `"$ref": "`) {
		if name, ok := strings.CutPrefix(part, "#/components/schemas/"); ok {
			refs++
			if name, _, _ = strings.Cut(name, `"`); doc.Components.Schemas[name] == nil {
				t.Errorf("nothing is called %q", name)
			}
		}
	}
	if refs == 0 {
		t.Error("no references at all")
	}
}
