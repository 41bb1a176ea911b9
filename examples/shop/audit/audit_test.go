package audit_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/sim"
	"github.com/armature-go/armature/internal/testsvc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var schemas = map[string]string{
	"order": `CREATE TABLE orders (id TEXT, customer_id TEXT, status TEXT, reason TEXT, total_minor BIGINT, currency TEXT);
		CREATE TABLE order_items (order_id TEXT, product_id TEXT, quantity BIGINT, price_minor BIGINT);
		CREATE TABLE armature_saga (id TEXT, name TEXT, status TEXT);`,
	"payment":      `CREATE TABLE payments (order_id TEXT, state TEXT, amount_minor BIGINT, currency TEXT, charge_key TEXT);`,
	"shipping":     `CREATE TABLE shipments (order_id TEXT, state TEXT, tracking TEXT);`,
	"notification": `CREATE TABLE notifications (id TEXT, order_id TEXT, kind TEXT, state TEXT);`,
	"inventory": `CREATE TABLE stock (product_id TEXT, on_hand BIGINT);
		CREATE TABLE stock_moves (id TEXT, product_id TEXT, kind TEXT, quantity BIGINT, order_id TEXT);`,
}

// A small shop at rest: one order confirmed, one declined, one unshippable (charged and given back), one refunded.
var rows = map[string]string{
	"order": `INSERT INTO orders VALUES ('good', 'c', 'confirmed', '', 700, 'EUR'), ('broke', 'c', 'cancelled', 'CARD_DECLINED', 500, 'EUR'),
			('ice', 'c', 'cancelled', 'UNSHIPPABLE', 500, 'EUR'), ('back', 'c', 'refunded', '', 200, 'EUR');
		INSERT INTO order_items VALUES ('good', 'pen', 1, 500), ('good', 'tea', 2, 100), ('broke', 'pen', 1, 500), ('ice', 'pen', 1, 500), ('back', 'tea', 2, 100);
		INSERT INTO armature_saga VALUES ('place-good', 'place-order', 'completed'), ('place-broke', 'place-order', 'compensated'),
			('place-ice', 'place-order', 'compensated'), ('place-back', 'place-order', 'completed'), ('refund-back', 'refund-order', 'completed');`,
	"payment": `INSERT INTO payments VALUES ('good', 'charged', 700, 'EUR', 'place-good/charge'), ('broke', 'declined', 500, 'EUR', 'place-broke/charge'),
			('ice', 'refunded', 500, 'EUR', 'place-ice/charge'), ('back', 'refunded', 200, 'EUR', 'place-back/charge');`,
	"shipping": `INSERT INTO shipments VALUES ('good', 'created', 'T1'), ('ice', 'rejected', ''), ('back', 'cancelled', 'T2');`,
	"notification": `INSERT INTO notifications VALUES ('n1', 'good', 'confirmed', 'sent'), ('n2', 'good', 'shipped', 'sent'), ('n3', 'broke', 'cancelled', 'sent'),
			('n4', 'ice', 'cancelled', 'sent'), ('n5', 'back', 'confirmed', 'sent'), ('n6', 'back', 'shipped', 'sent'), ('n7', 'back', 'refunded', 'sent');`,
	"inventory": `INSERT INTO stock VALUES ('pen', 9), ('tea', 98), ('orchid', 0);
		INSERT INTO stock_moves VALUES ('r1', 'pen', 'receipt', 10, ''), ('r2', 'tea', 'receipt', 100, ''), ('m1', 'pen', 'reserve', 1, 'good'), ('m2', 'tea', 'reserve', 2, 'good'),
			('m3', 'pen', 'reserve', 1, 'broke'), ('m4', 'pen', 'release', 1, 'broke'), ('m5', 'pen', 'reserve', 1, 'ice'), ('m6', 'pen', 'release', 1, 'ice'),
			('m7', 'tea', 'reserve', 2, 'back'), ('m8', 'tea', 'release', 2, 'back');`,
}

var effects = map[string][]sim.Entry{
	sim.CardLedger: {
		{Kind: sim.Charge, Key: "place-good/charge", Ref: "good", Amount: 700, Currency: "EUR"},
		{Kind: sim.Decline, Key: "place-broke/charge", Ref: "broke", Amount: 500, Currency: "EUR"},
		{Kind: sim.Charge, Key: "place-ice/charge", Ref: "ice", Amount: 500, Currency: "EUR"},
		{Kind: sim.Refund, Key: "place-ice/charge/refund", Ref: "ice", Of: "place-ice/charge", Amount: 500, Currency: "EUR"},
		{Kind: sim.Charge, Key: "place-back/charge", Ref: "back", Amount: 200, Currency: "EUR"},
		{Kind: sim.Refund, Key: "place-back/charge/refund", Ref: "back", Of: "place-back/charge", Amount: 200, Currency: "EUR"},
	},
	sim.CarrierLedger: {
		{Kind: sim.Shipment, Key: "place-good/ship", Ref: "good"},
		{Kind: sim.Rejection, Key: "place-ice/ship", Ref: "ice"},
		{Kind: sim.Shipment, Key: "place-back/ship", Ref: "back"},
		{Kind: sim.Cancellation, Key: "place-back/ship/cancel", Ref: "back", Of: "place-back/ship"},
	},
	sim.MailLedger: {
		mail("good", "confirmed"), mail("good", "shipped"), mail("broke", "cancelled"), mail("ice", "cancelled"),
		mail("back", "confirmed"), mail("back", "shipped"), mail("back", "refunded"),
	},
}

func mail(ref, template string) sim.Entry {
	return sim.Entry{Kind: sim.Mail, Key: template + "/" + ref, Ref: ref, To: "a@example.org", Template: template}
}

// shop is the books of a shop that tests spoil.
type shop struct {
	t   *testing.T
	cfg audit.Config
}

func newShop(t *testing.T) *shop {
	t.Helper()
	dir := t.TempDir()
	return newShopOn(t, func(service string) string { return "sqlite:" + filepath.Join(dir, service+".db") })
}

// newShopOn makes each service's database at the URL that it is given.
func newShopOn(t *testing.T, url func(service string) string) *shop {
	t.Helper()
	dir := t.TempDir()
	s := &shop{t, audit.Config{Ledgers: filepath.Join(dir, "ledgers"), Databases: map[string]string{}}}
	if err := os.Mkdir(s.cfg.Ledgers, 0o700); err != nil {
		t.Fatal(err)
	}
	for service, schema := range schemas {
		s.cfg.Databases[service] = url(service)
		if service != "notification" {
			schema += `CREATE TABLE armature_outbox (id BIGINT); CREATE TABLE armature_outbox_dead (id BIGINT);`
		}
		s.exec(service, schema+rows[service])
	}
	// One that has neither books nor an outbox.
	s.cfg.Databases["user"] = url("user")
	s.exec("user", `CREATE TABLE users (id TEXT)`)
	for name, list := range effects {
		for _, e := range list {
			s.effect(name, e)
		}
	}
	return s
}

func (s *shop) exec(service, statements string) {
	s.t.Helper()
	driver, source := "pgx", s.cfg.Databases[service]
	if file, ok := strings.CutPrefix(source, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(statements); err != nil {
		s.t.Fatalf("%s: %v", service, err)
	}
}

func (s *shop) effect(name string, e sim.Entry) {
	s.t.Helper()
	line, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, string(line)+"\n")
}

func (s *shop) write(name, text string) {
	s.t.Helper()
	file, err := os.OpenFile(filepath.Join(s.cfg.Ledgers, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) audit() *audit.Report {
	s.t.Helper()
	report, err := audit.Run(s.t.Context(), s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func printed(t *testing.T, r *audit.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func red(r *audit.Report) (names []string) {
	for _, l := range r.Lines {
		if !l.OK() {
			names = append(names, l.Name)
		}
	}
	return names
}

func TestAShopAtRestIsGreen(t *testing.T) {
	t.Parallel()
	report := newShop(t).audit()
	text := printed(t, report)
	if !report.Green() {
		t.Fatalf("red:\n%s", text)
	}
	if !strings.HasSuffix(text, "\naudit: green\n") {
		t.Errorf("ends with %q", text[strings.LastIndex(text[:len(text)-1], "\n"):])
	}
	for _, want := range []string{
		"4 orders: 2 cancelled, 1 confirmed, 1 refunded",
		"1400 charged - 700 refunded = 700, 700 confirmed",
		"110 received - 3 confirmed = 107, 107 there, 3 products",
		"5 sagas: 2 compensated, 3 completed",
		"4 outboxes: 0 waiting, 0 dead",
		"1 parcels at the carrier, 1 orders confirmed",
		"7 mails sent, 7 expected",
		"17 effects: 6 card, 4 carrier, 7 mail",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestAShopOnPostgreSQL(t *testing.T) {
	t.Parallel()
	s := newShopOn(t, func(string) string { return testsvc.Postgres(t) })
	if report := s.audit(); !report.Green() {
		t.Errorf("red:\n%s", printed(t, report))
	}
	s.exec("inventory", `UPDATE stock SET on_hand = 8 WHERE product_id = 'pen'`)
	s.exec("user", `CREATE TABLE armature_outbox (id BIGINT); CREATE TABLE armature_outbox_dead (id BIGINT); INSERT INTO armature_outbox VALUES (1)`)
	if got := strings.Join(red(s.audit()), "; "); got != stock+"; "+outboxes {
		t.Errorf("red: %s", got)
	}
}

const (
	orders        = "orders are at rest"
	taken         = "money taken = orders confirmed"
	payments      = "payments agree with the processor"
	stock         = "stock = received - confirmed"
	sagas         = "sagas are finished"
	outboxes      = "outboxes are empty"
	parcels       = "one parcel per confirmed order"
	shipments     = "shipments agree with the carrier"
	mails         = "each mail once"
	notifications = "notifications agree with the mails"
	keys          = "one effect per key"
)

// Each thing that can be wrong turns its check red.
func TestEveryCheckCanGoRed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		service, sql string
		ledger       string
		effect       sim.Entry
		want         []string
	}{
		"an order is under way":              {service: "order", sql: `INSERT INTO orders VALUES ('new', 'c', 'pending', '', 0, 'EUR')`, want: []string{orders}},
		"a total is not its items":           {service: "order", sql: `UPDATE order_items SET quantity = 3 WHERE order_id = 'back'`, want: []string{orders}},
		"an order became free":               {service: "order", sql: `UPDATE orders SET total_minor = 0 WHERE id = 'good'`, want: []string{orders, taken}},
		"confirmed, never charged":           {service: "order", sql: `UPDATE orders SET status = 'confirmed' WHERE id = 'broke'`, want: []string{taken, stock, sagas, parcels, mails}},
		"cancelled, still charged":           {service: "order", sql: `UPDATE orders SET status = 'cancelled' WHERE id = 'good'`, want: []string{taken, stock, sagas, parcels, mails}},
		"the refund is missing":              {ledger: sim.CardLedger, effect: sim.Entry{Kind: sim.Charge, Key: "x", Ref: "broke", Amount: 500, Currency: "EUR"}, want: []string{taken, payments}},
		"charged twice":                      {ledger: sim.CardLedger, effect: sim.Entry{Kind: sim.Charge, Key: "x", Ref: "good", Amount: 700, Currency: "EUR"}, want: []string{taken, payments, keys}},
		"charged twice, given back once":     {ledger: sim.CardLedger, effect: sim.Entry{Kind: sim.Charge, Key: "x", Ref: "back", Amount: 200, Currency: "EUR"}, want: []string{taken, payments, keys}},
		"given back twice":                   {ledger: sim.CardLedger, effect: sim.Entry{Kind: sim.Refund, Key: "x", Of: "place-back/charge", Ref: "back", Amount: 200, Currency: "EUR"}, want: []string{taken, payments, keys}},
		"a charge for nobody":                {ledger: sim.CardLedger, effect: sim.Entry{Kind: sim.Charge, Key: "x", Ref: "ghost", Amount: 1, Currency: "EUR"}, want: []string{taken, payments}},
		"another currency":                   {service: "order", sql: `UPDATE orders SET currency = 'USD' WHERE id = 'good'`, want: []string{taken}},
		"a payment that says charged":        {service: "payment", sql: `UPDATE payments SET state = 'charged' WHERE order_id = 'ice'`, want: []string{payments}},
		"a payment under way":                {service: "payment", sql: `UPDATE payments SET state = 'refunding' WHERE order_id = 'ice'`, want: []string{payments}},
		"a payment is gone":                  {service: "payment", sql: `DELETE FROM payments WHERE order_id = 'good'`, want: []string{payments}},
		"a payment of another amount":        {service: "payment", sql: `UPDATE payments SET amount_minor = 1 WHERE order_id = 'good'`, want: []string{payments}},
		"stock was not put back":             {service: "inventory", sql: `UPDATE stock SET on_hand = 8 WHERE product_id = 'pen'; DELETE FROM stock_moves WHERE id = 'm4'`, want: []string{stock}},
		"stock was put back twice":           {service: "inventory", sql: `UPDATE stock SET on_hand = 10 WHERE product_id = 'pen'; INSERT INTO stock_moves VALUES ('x', 'pen', 'release', 1, 'ice')`, want: []string{stock}},
		"stock moved without a note":         {service: "inventory", sql: `DELETE FROM stock_moves WHERE id = 'm4'`, want: []string{stock}},
		"a product without stock was sold":   {service: "inventory", sql: `DELETE FROM stock WHERE product_id = 'tea'`, want: []string{stock}},
		"a saga runs":                        {service: "order", sql: `UPDATE armature_saga SET status = 'running' WHERE id = 'place-good'`, want: []string{sagas}},
		"a saga is parked":                   {service: "order", sql: `UPDATE armature_saga SET status = 'parked' WHERE id = 'place-ice'`, want: []string{sagas}},
		"a saga is missing":                  {service: "order", sql: `DELETE FROM armature_saga WHERE id = 'refund-back'`, want: []string{sagas}},
		"an event did not leave":             {service: "shipping", sql: `INSERT INTO armature_outbox VALUES (1)`, want: []string{outboxes}},
		"an event is dead":                   {service: "inventory", sql: `INSERT INTO armature_outbox_dead VALUES (1)`, want: []string{outboxes}},
		"an event of another service is out": {service: "user", sql: `CREATE TABLE armature_outbox (id BIGINT); CREATE TABLE armature_outbox_dead (id BIGINT); INSERT INTO armature_outbox VALUES (1)`, want: []string{outboxes}},
		"a parcel for a cancelled order":     {ledger: sim.CarrierLedger, effect: sim.Entry{Kind: sim.Shipment, Key: "x", Ref: "ice"}, want: []string{parcels, shipments}},
		"two parcels":                        {ledger: sim.CarrierLedger, effect: sim.Entry{Kind: sim.Shipment, Key: "x", Ref: "good"}, want: []string{parcels, shipments}},
		"the parcel was called back":         {ledger: sim.CarrierLedger, effect: sim.Entry{Kind: sim.Cancellation, Key: "x", Of: "place-good/ship", Ref: "good"}, want: []string{parcels, shipments}},
		"called back twice":                  {ledger: sim.CarrierLedger, effect: sim.Entry{Kind: sim.Cancellation, Key: "x", Of: "place-back/ship", Ref: "back"}, want: []string{parcels, shipments, keys}},
		"a parcel for nobody":                {ledger: sim.CarrierLedger, effect: sim.Entry{Kind: sim.Shipment, Key: "x", Ref: "ghost"}, want: []string{parcels, shipments}},
		"a shipment under way":               {service: "shipping", sql: `UPDATE shipments SET state = 'cancelling' WHERE order_id = 'back'`, want: []string{shipments}},
		"a shipment without tracking":        {service: "shipping", sql: `UPDATE shipments SET tracking = '' WHERE order_id = 'good'`, want: []string{shipments}},
		"a shipment is gone":                 {service: "shipping", sql: `DELETE FROM shipments WHERE order_id = 'good'`, want: []string{shipments}},
		"a mail twice under two keys":        {ledger: sim.MailLedger, effect: sim.Entry{Kind: sim.Mail, Key: "x", Ref: "good", Template: "confirmed"}, want: []string{mails, notifications}},
		"a mail nothing asks for":            {ledger: sim.MailLedger, effect: sim.Entry{Kind: sim.Mail, Key: "x", Ref: "good", Template: "cancelled"}, want: []string{mails, notifications}},
		"a mail about a parcel never booked": {ledger: sim.MailLedger, effect: sim.Entry{Kind: sim.Mail, Key: "x", Ref: "broke", Template: "shipped"}, want: []string{mails, notifications}},
		"a notification was not sent":        {service: "notification", sql: `UPDATE notifications SET state = 'pending' WHERE id = 'n1'`, want: []string{notifications}},
		"a notification is gone":             {service: "notification", sql: `DELETE FROM notifications WHERE id = 'n1'`, want: []string{notifications}},
		"a notification twice":               {service: "notification", sql: `INSERT INTO notifications VALUES ('x', 'good', 'confirmed', 'sent')`, want: []string{notifications}},
		"two effects of one key":             {ledger: sim.MailLedger, effect: mail("good", "confirmed"), want: []string{mails, notifications, keys}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			if c.sql != "" {
				s.exec(c.service, c.sql)
			} else {
				s.effect(c.ledger, c.effect)
			}
			report := s.audit()
			got := red(report)
			if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("red: %q, want %q\n%s", got, c.want, printed(t, report))
			}
			if text := printed(t, report); !strings.HasSuffix(text, "\naudit: red\n") || !strings.Contains(text, "FAIL") {
				t.Errorf("printed\n%s", text)
			}
		})
	}
}

// Without the mail that must be there, and with the whole ledger gone.
func TestMissingMailsAreRed(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	if err := os.Remove(filepath.Join(s.cfg.Ledgers, sim.MailLedger)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(red(s.audit()), "; "); got != mails+"; "+notifications {
		t.Errorf("red: %s", got)
	}
}

func TestRunWaitsForTheShop(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.cfg.Settle = time.Minute
	s.exec("order", `UPDATE armature_saga SET status = 'running' WHERE id = 'place-good'`)
	done := make(chan struct{})
	timer := time.AfterFunc(700*time.Millisecond, func() {
		defer close(done)
		s.exec("order", `UPDATE armature_saga SET status = 'completed' WHERE id = 'place-good'`)
	})
	defer timer.Stop()
	report := s.audit()
	<-done
	if !report.Green() {
		t.Errorf("did not wait:\n%s", printed(t, report))
	}
}

func TestRunGivesUpOnAShopThatStandsStill(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.cfg.Settle = 10 * time.Minute
	s.exec("inventory", `UPDATE stock SET on_hand = 1 WHERE product_id = 'tea'`)
	if got := strings.Join(red(s.audit()), "; "); got != stock {
		t.Errorf("red: %s", got)
	}
}

func TestRunHonoursItsContext(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.cfg.Settle = 10 * time.Minute
	s.exec("order", `UPDATE armature_saga SET status = 'running' WHERE id = 'place-good'`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if report, err := audit.Run(ctx, s.cfg); err == nil {
		t.Errorf("got %v", report)
	}
}

func TestRunReadsAndLeavesAlone(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	// A service that writes at the same time: the audit neither waits for it nor makes it wait.
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(s.cfg.Databases["payment"], "sqlite:")+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`UPDATE payments SET state = 'declined'`); err != nil {
		t.Fatal(err)
	}
	if report := s.audit(); !report.Green() {
		t.Errorf("saw what was not committed:\n%s", printed(t, report))
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*shop){
		"no database":      func(s *shop) { s.cfg.Databases["payment"] += ".gone" },
		"no table":         func(s *shop) { s.exec("payment", `DROP TABLE payments`) },
		"no outbox":        func(s *shop) { s.exec("payment", `DROP TABLE armature_outbox`) },
		"a ledger is torn": func(s *shop) { s.write(sim.CardLedger, "garbage\n") },
		"a service is missing": func(s *shop) {
			delete(s.cfg.Databases, "shipping")
		},
		"no ledgers":    func(s *shop) { s.cfg.Ledgers = "" },
		"negative time": func(s *shop) { s.cfg.Settle = -1 },
		"unknown move":  func(s *shop) { s.exec("inventory", `INSERT INTO stock_moves VALUES ('x', 'pen', 'theft', 1, '')`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			spoil(s)
			if report, err := audit.Run(t.Context(), s.cfg); err == nil {
				t.Errorf("no error, and\n%s", printed(t, report))
			}
		})
	}
}

func TestConfigComesBackAsWritten(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	path := filepath.Join(t.TempDir(), audit.FileName)
	if err := audit.WriteConfig(path, s.cfg); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := audit.ReadConfig(path)
	if err != nil || got.Ledgers != s.cfg.Ledgers || len(got.Databases) != len(s.cfg.Databases) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(`{"databases":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.ReadConfig(path); err == nil {
		t.Error("a config without databases was accepted")
	}
	if err := audit.WriteConfig(path, audit.Config{}); err == nil {
		t.Error("an empty config was written")
	}
}
