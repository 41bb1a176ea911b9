// Package infra connects the order service to its database, its sagas and the services it asks.
//
//	shared, err := platform.OpenStore(ctx, svc, cfg, "order", infra.Schema())
//	ledger := infra.NewLedger(shared, changes)
//	sagas, err := infra.NewSagas(ctx, svc, shared, ledger, inventory, payments, shipping)
//	store := infra.NewStore(ledger, sagas)
//
// The journal of the sagas lives in the same database as the orders, so that an order and its saga begin, and a saga and
// its order end, in one transaction.
package infra

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
	"github.com/armature-go/armature/examples/shop/platform"
)

// Schema is the service's own tables, append-only, one statement a step.
func Schema() []string {
	return []string{
		`CREATE TABLE orders (
			id              TEXT   NOT NULL PRIMARY KEY,
			customer_id     TEXT   NOT NULL,
			status          TEXT   NOT NULL,
			reason          TEXT   NOT NULL DEFAULT '',
			total_minor     BIGINT NOT NULL CHECK (total_minor >= 0),
			currency        TEXT   NOT NULL,
			name            TEXT   NOT NULL,
			line1           TEXT   NOT NULL,
			city            TEXT   NOT NULL,
			postcode        TEXT   NOT NULL,
			country         TEXT   NOT NULL,
			idempotency_key TEXT   NOT NULL,
			fingerprint     TEXT   NOT NULL,
			created_at      BIGINT NOT NULL,
			updated_at      BIGINT NOT NULL,
			UNIQUE (customer_id, idempotency_key))`,
		`CREATE TABLE order_items (
			order_id    TEXT   NOT NULL REFERENCES orders (id),
			position    BIGINT NOT NULL,
			product_id  TEXT   NOT NULL,
			quantity    BIGINT NOT NULL CHECK (quantity > 0),
			price_minor BIGINT NOT NULL CHECK (price_minor >= 0),
			PRIMARY KEY (order_id, position))`,
		`CREATE INDEX orders_by_customer ON orders (customer_id, created_at, id)`,
	}
}

// Ledger is the orders on SQL. It is safe for concurrent use.
type Ledger struct {
	db      *platform.Store
	changes *app.Changes
}

var _ app.Ledger = (*Ledger)(nil)

// NewLedger returns a Ledger in a database that has the Schema. It announces what it changes.
func NewLedger(db *platform.Store, changes *app.Changes) *Ledger {
	return &Ledger{db: db, changes: changes}
}

// Confirm is described by app.Ledger.
func (l *Ledger) Confirm(ctx context.Context, tx *sql.Tx, id string) error {
	return l.settle(ctx, tx, id, domain.Confirmed, func(o domain.Order) events.Event {
		return events.OrderConfirmed{OrderID: o.ID, CustomerID: o.CustomerID, Total: o.Total}
	})
}

// Cancel is described by app.Ledger.
func (l *Ledger) Cancel(ctx context.Context, tx *sql.Tx, id string) error {
	return l.settle(ctx, tx, id, domain.Cancelled, func(o domain.Order) events.Event {
		return events.OrderCancelled{OrderID: o.ID, CustomerID: o.CustomerID, Reason: o.Reason}
	})
}

// FinishRefund is described by app.Ledger.
func (l *Ledger) FinishRefund(ctx context.Context, tx *sql.Tx, id string) error {
	return l.settle(ctx, tx, id, domain.Refunded, func(o domain.Order) events.Event {
		return events.OrderRefunded{OrderID: o.ID, CustomerID: o.CustomerID, Total: o.Total}
	})
}

// NoteRefusal is described by app.Ledger.
func (l *Ledger) NoteRefusal(ctx context.Context, id, reason string) error {
	_, err := l.db.DB.ExecContext(ctx, l.db.Dialect.Rebind(
		`UPDATE orders SET reason = ? WHERE id = ? AND status = ? AND reason = ''`), reason, id, string(domain.Pending))
	if err != nil {
		return fmt.Errorf("order: note why %s is refused: %w", id, err)
	}
	return nil
}

// settle moves the order with the event that tells it, or does nothing where it cannot move.
func (l *Ledger) settle(ctx context.Context, tx *sql.Tx, id string, to domain.Status, event func(domain.Order) events.Event) error {
	moved, err := l.move(ctx, tx, id, to)
	if err != nil || !moved {
		return err
	}
	o, err := l.get(ctx, tx, id)
	if err != nil {
		return err
	}
	return l.db.Emit(ctx, tx, event(o))
}

// move changes the status where the domain allows that and reports whether it did. An order that is cancelled without
// anybody's refusal was UNAVAILABLE.
func (l *Ledger) move(ctx context.Context, tx *sql.Tx, id string, to domain.Status) (bool, error) {
	before := to.Before()
	args := []any{string(to), string(to), string(domain.Cancelled), time.Now().UnixMilli(), id}
	for _, status := range before {
		args = append(args, string(status))
	}
	result, err := tx.ExecContext(ctx, l.db.Dialect.Rebind(fmt.Sprintf(`UPDATE orders SET status = ?,
		reason = CASE WHEN ? = ? AND reason = '' THEN 'UNAVAILABLE' ELSE reason END, updated_at = ?
		WHERE id = ? AND status IN (?%s)`, strings.Repeat(", ?", len(before)-1))), args...)
	if err != nil {
		return false, fmt.Errorf("order: move %s to %s: %w", id, to, err)
	}
	n, err := result.RowsAffected()
	if err != nil || n == 0 {
		return false, err
	}
	l.changes.Announce(id)
	return true, nil
}

// insert stores a new order and reports false when the customer's key is taken.
func (l *Ledger) insert(ctx context.Context, tx *sql.Tx, o domain.Order, p app.Placement) (bool, error) {
	result, err := tx.ExecContext(ctx, l.db.Dialect.Rebind(`INSERT INTO orders
		(id, customer_id, status, reason, total_minor, currency, name, line1, city, postcode, country,
		 idempotency_key, fingerprint, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (customer_id, idempotency_key) DO NOTHING`),
		o.ID, o.CustomerID, string(o.Status), o.Reason, o.Total.Minor, o.Total.Currency,
		o.Address.Name, o.Address.Line1, o.Address.City, o.Address.Postcode, o.Address.Country,
		p.Key, p.Fingerprint(), o.CreatedAt.UnixMilli(), o.UpdatedAt.UnixMilli())
	if err != nil {
		return false, fmt.Errorf("order: insert %s: %w", o.ID, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	for i, line := range o.Lines {
		_, err := tx.ExecContext(ctx, l.db.Dialect.Rebind(
			`INSERT INTO order_items (order_id, position, product_id, quantity, price_minor) VALUES (?, ?, ?, ?, ?)`),
			o.ID, i, line.ProductID, line.Quantity, line.Price.Minor)
		if err != nil {
			return false, fmt.Errorf("order: insert line %d of %s: %w", i, o.ID, err)
		}
	}
	return true, nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (l *Ledger) byKey(ctx context.Context, db querier, p app.Placement) (domain.Order, error) {
	var id, fingerprint string
	err := db.QueryRowContext(ctx, l.db.Dialect.Rebind(
		`SELECT id, fingerprint FROM orders WHERE customer_id = ? AND idempotency_key = ?`), p.CustomerID, p.Key).
		Scan(&id, &fingerprint)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return domain.Order{}, app.ErrNotFound
	case err != nil:
		return domain.Order{}, fmt.Errorf("order: look up key: %w", err)
	case fingerprint != p.Fingerprint():
		return domain.Order{}, app.ErrKeyReused
	}
	return l.get(ctx, db, id)
}

func (l *Ledger) get(ctx context.Context, db querier, id string) (domain.Order, error) {
	orders, err := l.query(ctx, db, `SELECT * FROM orders WHERE id = ?`, id)
	switch {
	case err != nil:
		return domain.Order{}, err
	case len(orders) == 0:
		return domain.Order{}, app.ErrNotFound
	}
	return orders[0], nil
}

// query loads the orders that selection names, newest first. selection is never input.
func (l *Ledger) query(ctx context.Context, db querier, selection string, args ...any) (orders []domain.Order, err error) {
	rows, err := db.QueryContext(ctx, l.db.Dialect.Rebind(fmt.Sprintf(`SELECT o.id, o.customer_id, o.status, o.reason,
		o.total_minor, o.currency, o.name, o.line1, o.city, o.postcode, o.country, o.created_at, o.updated_at,
		i.product_id, i.quantity, i.price_minor
		FROM (%s) o JOIN order_items i ON i.order_id = o.id
		ORDER BY o.created_at DESC, o.id DESC, i.position`, selection)), args...)
	if err != nil {
		return nil, fmt.Errorf("order: load: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			o                domain.Order
			line             domain.Line
			created, updated int64
		)
		if err := rows.Scan(&o.ID, &o.CustomerID, &o.Status, &o.Reason, &o.Total.Minor, &o.Total.Currency,
			&o.Address.Name, &o.Address.Line1, &o.Address.City, &o.Address.Postcode, &o.Address.Country,
			&created, &updated, &line.ProductID, &line.Quantity, &line.Price.Minor); err != nil {
			return nil, fmt.Errorf("order: load: %w", err)
		}
		line.Price.Currency = o.Total.Currency
		if last := len(orders) - 1; last >= 0 && orders[last].ID == o.ID {
			orders[last].Lines = append(orders[last].Lines, line)
			continue
		}
		o.CreatedAt, o.UpdatedAt = time.UnixMilli(created), time.UnixMilli(updated)
		o.Lines = []domain.Line{line}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}
