package play_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/play"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeEdge is a shop that decides by the card's token alone.
type fakeEdge struct {
	// lose says which answers get lost: the first of a key, after the order was taken.
	lose bool
	// slow orders are pending until they were asked for.
	slow bool
	// forget makes refunds do nothing.
	forget bool

	mu     sync.Mutex
	byKey  map[string]string
	status map[string]string
	bodies int
}

func serveFake(t *testing.T, f *fakeEdge) string {
	t.Helper()
	f.byKey, f.status = map[string]string{}, map[string]string{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/orders", f.place)
	mux.HandleFunc("GET /api/orders/{id}", f.get)
	mux.HandleFunc("POST /api/orders/{id}/refund", f.refund)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func (f *fakeEdge) place(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Card string `json:"card"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Prefer") == "" {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies++
	key := r.Header.Get("Idempotency-Key")
	id, seen := f.byKey[key]
	if !seen {
		id = fmt.Sprintf("o%d", len(f.byKey)+1)
		f.byKey[key] = id
		switch {
		case body.Card == "tok_declined":
			f.status[id] = "cancelled"
		case f.slow:
			f.status[id] = "pending"
		default:
			f.status[id] = "confirmed"
		}
	}
	switch {
	case body.Card == "tok_refused":
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"title":"Unprocessable","reason":"CARD_UNKNOWN","detail":"no such token"}`)
	case f.lose && !seen && len(f.byKey)%2 == 0:
		panic(http.ErrAbortHandler)
	case f.lose && !seen:
		w.Header().Set("Retry-After", "0")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	default:
		f.answer(w, id)
	}
}

func (f *fakeEdge) answer(w http.ResponseWriter, id string) {
	reason := ""
	if f.status[id] == "cancelled" {
		reason = "CARD_DECLINED"
	}
	fmt.Fprintf(w, `{"id":%q,"status":%q,"reason":%q}`, id, f.status[id], reason)
}

func (f *fakeEdge) get(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.PathValue("id")
	if f.status[id] == "pending" {
		f.status[id] = "confirmed"
	}
	f.answer(w, id)
}

func (f *fakeEdge) refund(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.PathValue("id")
	if !f.forget {
		f.status[id] = "refunded"
	}
	f.answer(w, id)
}

func order(card string, change ...func(*play.Order)) play.Order {
	o := play.Order{
		CustomerID: "cust-01", Card: card, Expect: play.Confirmed,
		Items:   []play.Item{{ProductID: "sku-tea", Quantity: 1}},
		Address: play.Address{Line1: "1 Road", Country: "DE"},
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func declined(o *play.Order) { o.Expect, o.Reason = play.Cancelled, "CARD_DECLINED" }
func refunds(o *play.Order)  { o.Refund = true }

func green(context.Context) (*audit.Report, error) {
	return &audit.Report{Lines: []audit.Line{{Name: "books", Figures: "none"}}}, nil
}

func red(context.Context) (*audit.Report, error) {
	return &audit.Report{Lines: []audit.Line{{Name: "books", Wrong: []string{"all of them"}}}}, nil
}

func TestRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edge     *fakeEdge
		orders   []play.Order
		audit    func(context.Context) (*audit.Report, error)
		ok       bool
		outcomes map[string]int
		broken   string
		last     string
	}{
		"as expected": {orders: []play.Order{order("tok_visa"), order("tok_declined", declined), order("tok_visa", refunds)}, ok: true,
			outcomes: map[string]int{"confirmed": 1, "cancelled": 1, "refunded": 1}, last: "audit: green"},
		"lost answers count once": {edge: &fakeEdge{lose: true}, orders: []play.Order{order("tok_visa"), order("tok_declined", declined), order("tok_visa"), order("tok_visa")}, ok: true,
			outcomes: map[string]int{"confirmed": 3, "cancelled": 1}, last: "audit: green"},
		"waits for a slow one": {edge: &fakeEdge{slow: true}, orders: []play.Order{order("tok_visa")}, ok: true,
			outcomes: map[string]int{"confirmed": 1}, last: "audit: green"},
		"red books": {orders: []play.Order{order("tok_visa")}, audit: red,
			outcomes: map[string]int{"confirmed": 1}, last: "audit: red"},
		"confirmed against the expectation": {orders: []play.Order{order("tok_visa", declined)},
			outcomes: map[string]int{"confirmed": 1}, broken: "o1 is confirmed, expected cancelled (CARD_DECLINED)", last: "audit: green"},
		"cancelled for another reason": {orders: []play.Order{order("tok_declined", declined, func(o *play.Order) { o.Reason = "OUT_OF_STOCK" })},
			outcomes: map[string]int{"cancelled": 1}, broken: "expected cancelled (OUT_OF_STOCK)", last: "audit: green"},
		"refused at the edge": {orders: []play.Order{order("tok_refused")},
			outcomes: map[string]int{"failed": 1}, broken: "422: CARD_UNKNOWN no such token", last: "audit: green"},
		"a refund that does nothing": {edge: &fakeEdge{forget: true}, orders: []play.Order{order("tok_visa", refunds)},
			outcomes: map[string]int{"confirmed": 1}, broken: "is confirmed, expected refunded", last: "audit: green"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edge := c.edge
			if edge == nil {
				edge = new(fakeEdge)
			}
			if c.audit == nil {
				c.audit = green
			}
			var out bytes.Buffer
			r, err := play.Run(t.Context(), play.Config{Addr: serveFake(t, edge), Orders: c.orders, Out: &out, Audit: c.audit})
			if err != nil {
				t.Fatal(err)
			}
			if r.OK() != c.ok {
				t.Errorf("OK is %v\n%s", r.OK(), out.String())
			}
			if diff := cmp.Diff(c.outcomes, r.Outcomes); diff != "" {
				t.Errorf("outcomes (-want +got)\n%s", diff)
			}
			if text := out.String(); !strings.HasSuffix(text, "\n"+c.last+"\n") || !strings.Contains(text, c.broken) {
				t.Errorf("printed\n%s", text)
			}
			// net/http itself repeats some of the requests whose connection died: they carry a key.
			if edge.lose && (edge.bodies != 2*len(c.orders) || len(edge.byKey) != len(c.orders) || r.Retries == 0) {
				t.Errorf("%d orders became %d in %d requests", len(c.orders), len(edge.byKey), edge.bodies)
			}
		})
	}
}

func TestKeysAreOfTheRun(t *testing.T) {
	t.Parallel()
	edge := new(fakeEdge)
	url := serveFake(t, edge)
	for range 2 {
		if _, err := play.Run(t.Context(), play.Config{Addr: url, Orders: []play.Order{order("tok_visa")}, Audit: green}); err != nil {
			t.Fatal(err)
		}
	}
	if len(edge.byKey) != 2 {
		t.Errorf("the second run placed no order of its own: %v", edge.byKey)
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := play.Run(ctx, play.Config{Addr: serveFake(t, new(fakeEdge)), Orders: []play.Order{order("tok_visa")},
		Audit: func(ctx context.Context) (*audit.Report, error) { return nil, ctx.Err() }})
	if !errors.Is(err, context.Canceled) || r.OK() || r.Outcomes["failed"] != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestABarOnATerminal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		terminal bool
		want     string
	}{
		"terminal": {true, "\r[" + strings.Repeat("=", 40) + "] 4 of 4 orders\n"},
		"file":     {false, "\n4 of 4 orders\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			o := order("tok_visa")
			_, err := play.Run(t.Context(), play.Config{Addr: serveFake(t, new(fakeEdge)), Orders: []play.Order{o, o, o, o}, Out: &out, Terminal: c.terminal, Audit: green})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), "\r") != c.terminal {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}

const goodLine = `{"customer_id":"c","items":[{"product_id":"p","quantity":1}],"card":"t","address":{"line1":"l","country":"DE"},"expect":"confirmed"}`

func TestParseNamesTheLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":            {goodLine + "\n\n{", "line 3"},
		"an unknown field":   {`{"customer":"c"}`, `line 1: json: unknown field "customer"`},
		"a wrong type":       {strings.Replace(goodLine, `"quantity":1`, `"quantity":"1"`, 1), "line 1"},
		"two values":         {goodLine + " {}", "line 1: more than one"},
		"no items":           {strings.Replace(goodLine, `{"product_id":"p","quantity":1}`, ``, 1), "items is empty"},
		"less than nothing":  {strings.Replace(goodLine, `"quantity":1`, `"quantity":-1`, 1), "items[0]"},
		"no customer":        {strings.Replace(goodLine, `"customer_id":"c"`, `"customer_id":""`, 1), "customer_id"},
		"no card":            {strings.Replace(goodLine, `"card":"t"`, `"card":""`, 1), "card"},
		"no address":         {strings.Replace(goodLine, `"line1":"l",`, ``, 1), "address"},
		"no expectation":     {strings.Replace(goodLine, `"confirmed"`, `"well"`, 1), `expect is "well"`},
		"cancelled, why":     {strings.Replace(goodLine, `"confirmed"`, `"cancelled"`, 1), "reason is missing"},
		"confirmed, why":     {strings.Replace(goodLine, `"confirmed"`, `"confirmed","reason":"X"`, 1), "reason is only"},
		"cancelled and back": {strings.Replace(goodLine, `"confirmed"`, `"cancelled","reason":"X","refund":true`, 1), "refund is only"},
		"nothing":            {"\n\n", "no orders"},
		"a line too long":    {goodLine + "\n" + strings.Repeat("x", 2<<20), "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if orders, err := play.Parse(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %d orders, %v; want %q", len(orders), err, c.want)
			}
		})
	}
}

func TestMainSendsNothingOfABadFile(t *testing.T) {
	t.Parallel()
	edge := new(fakeEdge)
	url := serveFake(t, edge)
	path := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(path, []byte(goodLine+"\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a bad line":     {[]string{"-addr", url, path}, 2, "line 2: customer_id is missing"},
		"no file":        {[]string{"-addr", url, path + ".gone"}, 2, "no such file"},
		"two files":      {[]string{path, path}, 2, "one FILE"},
		"a bad flag":     {[]string{"-speed", "9"}, 2, "speed"},
		"help":           {[]string{"-h"}, 0, "usage: play"},
		"no such shop":   {[]string{"-addr", url}, 2, "data folder"},
		"negative count": {[]string{"-addr", url, "-concurrency", "-1"}, 2, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			if code := play.Main(t.Context(), c.args, []byte(goodLine), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.want) {
				t.Errorf("code %d, said %q", code, errs.String())
			}
		})
	}
	t.Cleanup(func() {
		if edge.bodies != 0 {
			t.Errorf("%d orders were sent", edge.bodies)
		}
	})
}

func ExampleParse() {
	orders, err := play.Parse(strings.NewReader(goodLine))
	fmt.Println(len(orders), err)
	_, err = play.Parse(strings.NewReader(goodLine + "\n" + `{"customer_id":"c"}`))
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// play: line 2: items is empty
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(goodLine + "\r\n\n" + goodLine))
	f.Add([]byte(`{"customer_id":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		orders, err := play.Parse(bytes.NewReader(data))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "play: ") {
				t.Fatalf("an error without a name: %v", err)
			}
			return
		}
		var again bytes.Buffer
		if err := play.Write(&again, orders); err != nil {
			t.Fatal(err)
		}
		got, err := play.Parse(&again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(orders, got); diff != "" {
			t.Fatalf("written and read again:\n%s", diff)
		}
	})
}
