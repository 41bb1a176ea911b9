package main

import (
	"context"
	"database/sql"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/sim"
	"github.com/armature-go/armature/internal/testsvc"
)

func TestAnOrderIsConfirmedUnderOneTrace(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{})
	placed, a := s.place(t, wish("tok_visa", "sku-tea", "DE"))
	if placed.Status != "confirmed" || placed.Total.Minor != 3*875 || placed.Total.Currency != "EUR" {
		t.Errorf("placed = %+v, want confirmed for 26.25 EUR", placed)
	}
	if got := a.header.Get("Location"); got != "/api/orders/"+placed.ID {
		t.Errorf("Location = %q", got)
	}
	if a.header.Get("X-Correlation-ID") == "" {
		t.Error("the answer has no correlation id")
	}

	read := s.do(t, "GET", a.header.Get("Location"), "")
	var again orderView
	read.decode(t, &again)
	if read.status != http.StatusOK || again != placed {
		t.Errorf("read back %d %+v, want %+v", read.status, again, placed)
	}

	s.audit(t, true) // waits for the mails, too
	trace := a.header.Get("X-Trace-ID")
	if len(trace) != 32 {
		t.Fatalf("X-Trace-ID = %q", trace)
	}
	mails := 0
	missing := []string{"gateway", "order", "inventory", "payment", "shipping", "notification"}
	for _, line := range s.logs.lines() {
		if line.TraceID == trace {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == line.Service })
			if line.Msg == "mail sent" {
				mails++
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("trace %s is in no log line of %v", trace, missing)
	}
	if mails != 2 {
		t.Errorf("%d mails were sent under the trace, want shipped and confirmed", mails)
	}
	for _, secret := range []string{"tok_visa", "1 Main Street", "ada@example"} {
		for _, line := range s.logs.lines() {
			if strings.Contains(line.text, secret) {
				t.Errorf("%q is in the log: %s", secret, line.text)
			}
		}
	}
}

func TestAnOrderWithoutAPreferenceIsAcceptedAtOnce(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:"})
	a := s.do(t, "POST", "/api/orders", wish("tok_slow", "sku-tea", "DE"))
	var o orderView
	a.decode(t, &o)
	if a.status != http.StatusAccepted || o.Status != "pending" || a.header.Get("Location") == "" {
		t.Errorf("POST = %d %s, want 202 pending with a Location", a.status, a.body)
	}
	s.audit(t, true)
	s.do(t, "GET", a.header.Get("Location"), "").decode(t, &o)
	if o.Status != "confirmed" {
		t.Errorf("in the end the order is %s", o.Status)
	}
}

func TestAKeyIsOneOrder(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:"})
	var first, second orderView
	send := func(body string) answer {
		return s.do(t, "POST", "/api/orders", body, "Idempotency-Key", "key-1", "Prefer", "wait=20")
	}
	send(wish("tok_visa", "sku-tea", "DE")).decode(t, &first)
	send(wish("tok_visa", "sku-tea", "DE")).decode(t, &second)
	if first.ID == "" || first.ID != second.ID {
		t.Errorf("a repeated key made %q and %q", first.ID, second.ID)
	}
	other := send(wish("tok_visa", "sku-pen", "DE"))
	if other.status != http.StatusConflict || !strings.Contains(string(other.body), "IDEMPOTENCY_KEY_REUSED") {
		t.Errorf("the key with another body = %d %s", other.status, other.body)
	}
	s.audit(t, true)
}

func TestRefusedOrdersGiveEverythingBack(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:"})
	before := s.stock(t, "sku-tea")
	for name, test := range map[string]struct{ card, product, country, reason string }{
		"declined":     {"tok_declined", "sku-tea", "DE", "CARD_DECLINED"},
		"out of stock": {"tok_visa", "sku-sextant", "DE", "OUT_OF_STOCK"},
		"unshippable":  {"tok_visa", "sku-tea", "AQ", "UNSHIPPABLE"},
	} {
		if o, _ := s.place(t, wish(test.card, test.product, test.country)); o.Status != "cancelled" || o.Reason != test.reason {
			t.Errorf("%s: %s %s, want cancelled for %s", name, o.Status, o.Reason, test.reason)
		}
	}
	if after := s.stock(t, "sku-tea"); after != before {
		t.Errorf("stock = %d, want %d as before", after, before)
	}
	s.audit(t, true)
}

func TestRefund(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:"})
	before := s.stock(t, "sku-tea")
	o, _ := s.place(t, wish("tok_visa", "sku-tea", "DE"))
	for _, want := range []int{http.StatusOK, http.StatusOK} { // a second time changes nothing
		a := s.do(t, "POST", "/api/orders/"+o.ID+"/refund", "", "Prefer", "wait=20")
		a.decode(t, &o)
		if a.status != want || o.Status != "refunded" {
			t.Errorf("refund = %d %s, want %d refunded", a.status, a.body, want)
		}
	}
	if after := s.stock(t, "sku-tea"); after != before {
		t.Errorf("stock = %d, want %d as before", after, before)
	}
	o, _ = s.place(t, wish("tok_declined", "sku-tea", "DE"))
	if a := s.do(t, "POST", "/api/orders/"+o.ID+"/refund", ""); a.status != http.StatusConflict ||
		!strings.Contains(string(a.body), "ORDER_NOT_REFUNDABLE") {
		t.Errorf("refund of a cancelled order = %d %s", a.status, a.body)
	}
	s.audit(t, true)
}

// Bugs in compensations that a shop's opinion of itself would not show.
func TestTheAuditSeesBugsInCompensations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method string
		line   string // of the audit
		run    func(t *testing.T, s *opened)
	}{
		"a refund that never reaches the payment service": {"/shop.payment.v1.PaymentService/Refund", "money taken = orders confirmed",
			func(t *testing.T, s *opened) { s.place(t, wish("tok_visa", "sku-tea", "AQ")) }},
		"stock that is not put back": {"/shop.inventory.v1.InventoryService/Release", "stock = received - confirmed",
			func(t *testing.T, s *opened) { s.place(t, wish("tok_declined", "sku-tea", "DE")) }},
		"a parcel that is not called back": {"/shop.shipping.v1.ShippingService/CancelShipment", "one parcel per confirmed order",
			func(t *testing.T, s *opened) {
				o, _ := s.place(t, wish("tok_visa", "sku-tea", "DE"))
				s.do(t, "POST", "/api/orders/"+o.ID+"/refund", "", "Prefer", "wait=20")
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bug := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if method == test.method {
					return nil
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			}
			s := openShop(t, options{broker: "memory:", intercept: []grpc.UnaryClientInterceptor{bug}})
			test.run(t, s)
			report := s.audit(t, false)
			if !slices.ContainsFunc(report.Lines, func(l audit.Line) bool { return l.Name == test.line && len(l.Wrong) > 0 }) {
				t.Errorf("the line %q holds:\n%s", test.line, describe(report))
			}
		})
	}
}

func TestNothingIsLostOrDoubledWhenTheOutsideIsUnreliable(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{faults: sim.Faults{FailBefore: 0.1, FailAfter: 0.1, Delay: 5 * time.Millisecond, Seed: 7}})
	cards := []string{"tok_visa", "tok_flaky", "tok_down", "tok_declined"}
	countries := []string{"DE", "AQ", "FR"}
	for i := range 24 {
		if a := s.do(t, "POST", "/api/orders", wish(cards[i%len(cards)], "sku-tea", countries[i%len(countries)])); a.status != http.StatusAccepted {
			t.Fatalf("order %d: %d %s", i, a.status, a.body)
		}
	}
	s.audit(t, true)
}

func TestARequestThatWaitsIsAnsweredWhenTheShopStops(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:", shutdownTimeout: 8 * time.Second, faults: sim.Faults{FailBefore: 1}})
	answers := make(chan answer, 1)
	go func() {
		defer close(answers) // also when do ends the test
		answers <- s.do(t, "POST", "/api/orders", wish("tok_visa", "sku-tea", "DE"), "Prefer", "wait=30")
	}()
	for count(t, s.books.Databases["order"], "orders") == 0 { // the request waits, or is about to
		<-time.After(5 * time.Millisecond)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stop = %v", err)
	}
	a := <-answers
	var o orderView
	a.decode(t, &o)
	if a.status != http.StatusAccepted || o.Status != "pending" || a.header.Get("Preference-Applied") != "wait=7" {
		t.Errorf("the request was answered %d %s, Preference-Applied %q, want 202 pending after 7 s", a.status, a.body, a.header.Get("Preference-Applied"))
	}
}

func TestAReusedFolderGoesOn(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := openShop(t, options{data: data})
	old, _ := s.place(t, wish("tok_visa", "sku-tea", "DE"))
	// Under way when the shop closes.
	pending := s.do(t, "POST", "/api/orders", wish("tok_slow", "sku-tea", "DE"))
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	s = openShop(t, options{data: data})
	var o orderView
	s.do(t, "GET", "/api/orders/"+old.ID, "").decode(t, &o)
	if o != old {
		t.Errorf("after the restart the order is %+v, was %+v", o, old)
	}
	if o, _ := s.place(t, wish("tok_visa", "sku-tea", "DE")); o.Status != "confirmed" {
		t.Errorf("a new order is %s", o.Status)
	}
	s.audit(t, true)
	s.do(t, "GET", pending.header.Get("Location"), "").decode(t, &o)
	if o.Status != "confirmed" {
		t.Errorf("the order that was under way is %s", o.Status)
	}
	if _, err := open(t.Context(), options{data: data, addr: "127.0.0.1:0", logs: &buffer{}}); err == nil {
		t.Error("a second shop opened on the same folder")
	}
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{database: func(context.Context, string) (string, error) { return testsvc.Postgres(t), nil }})
	for _, test := range []struct{ card, country, status string }{
		{"tok_visa", "DE", "confirmed"}, {"tok_flaky", "DE", "confirmed"}, {"tok_declined", "DE", "cancelled"}, {"tok_visa", "AQ", "cancelled"},
	} {
		if o, _ := s.place(t, wish(test.card, "sku-tea", test.country)); o.Status != test.status {
			t.Errorf("%s to %s: %s %s, want %s", test.card, test.country, o.Status, o.Reason, test.status)
		}
	}
	o, _ := s.place(t, wish("tok_visa", "sku-tea", "DE"))
	s.do(t, "POST", "/api/orders/"+o.ID+"/refund", "", "Prefer", "wait=20").decode(t, &o)
	if o.Status != "refunded" {
		t.Errorf("refund left %s", o.Status)
	}
	s.audit(t, true)
}

func TestBadInputIsRefusedPreciselyAndStoresNothing(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{broker: "memory:"})
	good := wish("tok_visa", "sku-tea", "DE")
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in the good body", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	items := `"items":[{"product_id":"sku-tea","quantity":3}]`
	for name, test := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		says               []string // pieces of the problem document
	}{
		"malformed JSON":         {body: `{"customer_id":`, status: 400, says: []string{`"reason":"MALFORMED_JSON"`}},
		"no body":                {body: ``, status: 400, says: []string{`"reason":"MALFORMED_JSON"`}},
		"two values":             {body: good + good, status: 400, says: []string{`"reason":"MALFORMED_JSON"`}},
		"null":                   {body: `null`, status: 400, says: []string{`must be an object`}},
		"an array":               {body: `[]`, status: 400, says: []string{`"pointer":""`}},
		"an unknown field":       {body: with(`{"customer_id"`, `{"coupon":"x","customer_id"`), status: 400, says: []string{`"pointer":"/coupon"`, `not a known field`}},
		"an unknown inner field": {body: with(`"quantity":3`, `"quantity":3,"gift":true`), status: 400, says: []string{`"pointer":"/items/0/gift"`}},
		"a text for a number":    {body: with(`"quantity":3`, `"quantity":"3"`), status: 400, says: []string{`"pointer":"/items/0/quantity"`}},
		"a fraction":             {body: with(`"quantity":3`, `"quantity":1.5`), status: 400, says: []string{`"pointer":"/items/0/quantity"`}},
		"a number for a text":    {body: with(`"cust-01"`, `1`), status: 400, says: []string{`"pointer":"/customer_id"`}},
		"an object for a list":   {body: with(items, `"items":{}`), status: 400, says: []string{`"pointer":"/items"`}},
		"a negative quantity":    {body: with(`"quantity":3`, `"quantity":-1`), status: 422, says: []string{`"pointer":"/items/0/quantity"`, `must be from 1 to 1000`}},
		"nothing of it":          {body: with(`"quantity":3`, `"quantity":0`), status: 422, says: []string{`"pointer":"/items/0/quantity"`}},
		"too much of it":         {body: with(`"quantity":3`, `"quantity":1001`), status: 422, says: []string{`"pointer":"/items/0/quantity"`}},
		"a huge quantity":        {body: with(`"quantity":3`, `"quantity":99999999999999999999`), status: 400, says: []string{`"pointer":"/items/0/quantity"`}},
		"no items":               {body: with(items, `"items":[]`), status: 422, says: []string{`"pointer":"/items"`}},
		"too many items": {body: with(items, `"items":[`+strings.TrimSuffix(strings.Repeat(`{"product_id":"sku-tea","quantity":1},`, 51), ",")+`]`),
			status: 422, says: []string{`"pointer":"/items"`, `at most 50`}},
		"an item twice": {body: with(items, `"items":[{"product_id":"sku-tea","quantity":1},{"product_id":"sku-tea","quantity":1}]`),
			status: 422, says: []string{`"pointer":"/items/1/product_id"`}},
		"everything missing": {body: `{}`, status: 422, says: []string{`"pointer":"/customer_id"`, `"pointer":"/items"`, `"pointer":"/card"`, `"pointer":"/address/line1"`, `"pointer":"/address/country"`}},
		"a card number":      {body: with("tok_visa", "4111 1111 1111 1111"), status: 422, says: []string{`"pointer":"/card"`}},
		"a country's name":   {body: with(`"DE"`, `"Germany"`), status: 422, says: []string{`"pointer":"/address/country"`}},
		"an unknown customer": {body: with("cust-01", "cust-99"), status: 422,
			says: []string{`"reason":"CUSTOMER_NOT_FOUND"`, `"pointer":"/customer_id"`}},
		"an unknown product": {body: with(items, `"items":[{"product_id":"sku-tea","quantity":1},{"product_id":"sku-none","quantity":1}]`), status: 422,
			says: []string{`"reason":"PRODUCT_NOT_FOUND"`, `"pointer":"/items/1/product_id"`}},
		"an oversized body": {body: with("1 Main Street", strings.Repeat("x", 70<<10)), status: 413, says: []string{`"reason":"BODY_TOO_LARGE"`}},
		"another media type": {body: good, header: []string{"Content-Type", "text/plain"}, status: 415,
			says: []string{`"reason":"UNSUPPORTED_MEDIA_TYPE"`}},
		"a key that does not travel": {body: good, header: []string{"Idempotency-Key", strings.Repeat("k", 300)}, status: 422,
			says: []string{`"pointer":"/header/Idempotency-Key"`}},
		"an unknown order":             {method: "GET", path: "/api/orders/none", status: 404, says: []string{`"reason":"ORDER_NOT_FOUND"`}},
		"a refund of an unknown order": {method: "POST", path: "/api/orders/none/refund", status: 404, says: []string{`"reason":"ORDER_NOT_FOUND"`}},
		"orders of an unknown customer": {method: "GET", path: "/api/customers/none/orders", status: 404,
			says: []string{`"reason":"CUSTOMER_NOT_FOUND"`}},
		"stock of an unknown product": {method: "GET", path: "/api/products/none/stock", status: 404, says: []string{`"reason":"PRODUCT_NOT_FOUND"`}},
		"an unknown path":             {method: "GET", path: "/api/nothing", status: 404, says: []string{`"reason":"ROUTE_NOT_FOUND"`}},
		"an unknown method":           {method: "DELETE", path: "/api/orders", status: 405, says: []string{`"reason":"METHOD_NOT_ALLOWED"`}},
	} {
		if test.method == "" {
			test.method, test.path = "POST", "/api/orders"
		}
		header := append([]string{"Content-Type", "application/json"}, test.header...)
		a := s.do(t, test.method, test.path, test.body, header...)
		if a.status != test.status || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %s, want %d", name, a.status, a.header.Get("Content-Type"), a.body, test.status)
			continue
		}
		if a.header.Get("X-Correlation-ID") == "" || a.header.Get("X-Trace-ID") == "" {
			t.Errorf("%s: the answer lacks the correlation id or the trace id", name)
		}
		var problem struct {
			Status   int    `json:"status"`
			Instance string `json:"instance"`
			TraceID  string `json:"trace_id"`
		}
		a.decode(t, &problem)
		if problem.Status != test.status || problem.Instance != test.path || problem.TraceID != a.header.Get("X-Trace-ID") {
			t.Errorf("%s: the problem is %+v, want status %d of %s under trace %s", name, problem, test.status, test.path, a.header.Get("X-Trace-ID"))
		}
		for _, piece := range test.says {
			if !strings.Contains(string(a.body), piece) {
				t.Errorf("%s: %s lacks %s", name, a.body, piece)
			}
		}
	}
	for table, service := range map[string]string{
		"orders": "order", "order_items": "order", "armature_saga": "order", "armature_outbox": "order",
		"payments": "payment", "shipments": "shipping", "notifications": "notification",
	} {
		if n := count(t, s.books.Databases[service], table); n != 0 {
			t.Errorf("%d rows in %s of %s, want none", n, table, service)
		}
	}
}

func count(t *testing.T, url, table string) (n int) {
	t.Helper()
	db, _, err := armature.OpenDB(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func(db *sql.DB) { _ = db.Close() }(db)
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
