package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/sim"
)

// books is everything the checks look at, as read at one time.
type books struct {
	orders        map[string]order
	payments      map[string]payment
	shipments     map[string]shipment
	notifications []notification
	onHand        map[string]int64
	moves         map[string]moves
	sagas         map[saga]int
	outboxes      map[string]outbox
	card, carrier []sim.Entry
	mail          []sim.Entry
}

type order struct {
	status   string
	total    money.Amount
	items    map[string]int64
	itemsSum money.Amount
}

type payment struct {
	state  string
	amount money.Amount
}

type shipment struct{ state, tracking string }

type notification struct{ id, order, kind, state string }

type moves struct{ received, reserved, released int64 }

type saga struct{ name, status string }

type outbox struct{ pending, dead int64 }

// ledger is the database of a service, open for reading.
type ledger struct {
	service string
	db      *sql.DB
	dialect armature.Dialect
}

// openLedgers opens the databases; the caller closes them with closeLedgers, also after an error.
func openLedgers(ctx context.Context, urls map[string]string) (list []ledger, err error) {
	for _, service := range slices.Sorted(maps.Keys(urls)) {
		url := urls[service]
		if strings.HasPrefix(url, "sqlite:") {
			url, _, _ = strings.Cut(url, "?")
			url += "?mode=ro"
		}
		db, dialect, err := armature.OpenDB(ctx, url)
		if err != nil {
			return list, fmt.Errorf("audit: open database of %s: %w", service, err)
		}
		list = append(list, ledger{service, db, dialect})
	}
	return list, nil
}

func closeLedgers(list []ledger) error {
	var errs []error
	for _, l := range list {
		errs = append(errs, l.db.Close())
	}
	return errors.Join(errs...)
}

// readBooks reads the outside last: what the shop noted after acting is then in both.
func readBooks(ctx context.Context, databases []ledger, dir string) (*books, error) {
	b := &books{outboxes: map[string]outbox{}}
	for _, l := range databases {
		if err := b.readDatabase(ctx, l); err != nil {
			return nil, fmt.Errorf("audit: read database of %s: %w", l.service, err)
		}
	}
	for name, into := range map[string]*[]sim.Entry{sim.CardLedger: &b.card, sim.CarrierLedger: &b.carrier, sim.MailLedger: &b.mail} {
		var err error
		if *into, err = sim.ReadLedger(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *books) readDatabase(ctx context.Context, l ledger) (err error) {
	switch l.service {
	case "order":
		err = errors.Join(b.readOrders(ctx, l), b.readSagas(ctx, l))
	case "payment":
		b.payments = map[string]payment{}
		err = l.each(ctx, `SELECT order_id, state, amount_minor, currency FROM payments`, func(scan scanner) error {
			var id string
			var p payment
			err := scan(&id, &p.state, &p.amount.Minor, &p.amount.Currency)
			b.payments[id] = p
			return err
		})
	case "shipping":
		b.shipments = map[string]shipment{}
		err = l.each(ctx, `SELECT order_id, state, tracking FROM shipments`, func(scan scanner) error {
			var id string
			var s shipment
			err := scan(&id, &s.state, &s.tracking)
			b.shipments[id] = s
			return err
		})
	case "notification":
		err = l.each(ctx, `SELECT id, order_id, kind, state FROM notifications`, func(scan scanner) error {
			var n notification
			err := scan(&n.id, &n.order, &n.kind, &n.state)
			b.notifications = append(b.notifications, n)
			return err
		})
	case "inventory":
		err = b.readStock(ctx, l)
	}
	if err != nil {
		return err
	}
	return b.readOutbox(ctx, l)
}

func (b *books) readOrders(ctx context.Context, l ledger) error {
	b.orders = map[string]order{}
	err := l.each(ctx, `SELECT id, status, total_minor, currency FROM orders`, func(scan scanner) error {
		var id string
		o := order{items: map[string]int64{}}
		err := scan(&id, &o.status, &o.total.Minor, &o.total.Currency)
		b.orders[id] = o
		return err
	})
	if err != nil {
		return err
	}
	return l.each(ctx, `SELECT order_id, product_id, quantity, price_minor FROM order_items`, func(scan scanner) error {
		var id, product string
		var quantity, price int64
		if err := scan(&id, &product, &quantity, &price); err != nil {
			return err
		}
		o, ok := b.orders[id]
		if !ok {
			return nil // placed after the orders were read: the next look sees it whole
		}
		line, err := money.Amount{Minor: price, Currency: o.total.Currency}.Times(quantity)
		if err != nil {
			return err
		}
		o.items[product] += quantity
		if o.itemsSum, err = o.itemsSum.Plus(line); err != nil {
			return err
		}
		b.orders[id] = o
		return nil
	})
}

func (b *books) readSagas(ctx context.Context, l ledger) error {
	b.sagas = map[saga]int{}
	return l.each(ctx, `SELECT name, status, COUNT(*) FROM armature_saga GROUP BY name, status`, func(scan scanner) error {
		var s saga
		var n int
		err := scan(&s.name, &s.status, &n)
		b.sagas[s] = n
		return err
	})
}

func (b *books) readStock(ctx context.Context, l ledger) error {
	b.onHand, b.moves = map[string]int64{}, map[string]moves{}
	err := l.each(ctx, `SELECT product_id, on_hand FROM stock`, func(scan scanner) error {
		var id string
		var n int64
		err := scan(&id, &n)
		b.onHand[id] = n
		return err
	})
	if err != nil {
		return err
	}
	// Whole numbers of any size come back from SUM as NUMERIC on PostgreSQL.
	return l.each(ctx, `SELECT product_id, kind, CAST(SUM(quantity) AS BIGINT) FROM stock_moves GROUP BY product_id, kind`, func(scan scanner) error {
		var id, kind string
		var n int64
		if err := scan(&id, &kind, &n); err != nil {
			return err
		}
		m := b.moves[id]
		switch kind {
		case "receipt":
			m.received = n
		case "reserve":
			m.reserved = n
		case "release":
			m.released = n
		default:
			return fmt.Errorf("stock_moves has a move of kind %q", kind)
		}
		b.moves[id] = m
		return nil
	})
}

// readOutbox reads the outbox of every database that must or does have one.
func (b *books) readOutbox(ctx context.Context, l ledger) error {
	must := slices.Contains([]string{"order", "payment", "inventory", "shipping"}, l.service)
	if !must {
		exists := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'armature_outbox'`
		if l.dialect == armature.PostgreSQL {
			exists = `SELECT COUNT(to_regclass('armature_outbox'))`
		}
		var n int
		if err := l.db.QueryRowContext(ctx, exists).Scan(&n); err != nil || n == 0 {
			return err
		}
	}
	var o outbox
	if err := l.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM armature_outbox`).Scan(&o.pending); err != nil {
		return err
	}
	if err := l.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM armature_outbox_dead`).Scan(&o.dead); err != nil {
		return err
	}
	b.outboxes[l.service] = o
	return nil
}

type scanner func(...any) error

func (l ledger) each(ctx context.Context, query string, row func(scan scanner) error) error {
	rows, err := l.db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
