// Package infra connects the payment service to its database and to the card processor.
//
//	shared, err := platform.OpenStore(ctx, svc, cfg, "payment", infra.Schema())
//	store := infra.NewStore(shared)
//	processor, err := infra.NewProcessor(svc, cfg.CardURL)
//	payments := app.New(store, processor)
//
// Every change of state is one transaction: a conditional UPDATE, the event that tells it, and the mark of the call that
// asked for it. The processor is only ever called between transactions.
package infra

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/saga"
)

// Schema is the service's own tables, append-only, one statement a step.
func Schema() []string {
	return []string{
		`CREATE TABLE payments (
			order_id     TEXT   NOT NULL PRIMARY KEY,
			customer_id  TEXT   NOT NULL,
			state        TEXT   NOT NULL,
			amount_minor BIGINT NOT NULL CHECK (amount_minor >= 0),
			currency     TEXT   NOT NULL,
			card         TEXT   NOT NULL,
			charge_key   TEXT   NOT NULL UNIQUE,
			charge_id    TEXT   NOT NULL DEFAULT '',
			refund_id    TEXT   NOT NULL DEFAULT '',
			reason       TEXT   NOT NULL DEFAULT '',
			created_at   BIGINT NOT NULL,
			updated_at   BIGINT NOT NULL)`,
	}
}

// Store is an app.Store on SQL. It is safe for concurrent use.
type Store struct{ db *platform.Store }

var _ app.Store = (*Store)(nil)

// NewStore returns a Store in a database that has the Schema.
func NewStore(db *platform.Store) *Store { return &Store{db: db} }

// Open is described by app.Store.
func (s *Store) Open(ctx context.Context, call app.Call, p domain.Payment) (row domain.Payment, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := s.db.Barrier.Do(ctx, tx, call.Base, saga.OpDo, func(ctx context.Context) ([]byte, error) {
			return nil, s.insert(ctx, tx, p)
		})
		if errors.Is(err, saga.ErrUndone) {
			return app.ErrUndone
		}
		if err != nil {
			return err
		}
		row, err = s.load(ctx, tx, p.OrderID)
		if err == nil && row.Key != p.Key {
			return app.ErrConflict
		}
		return err
	})
	return row, err
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, p domain.Payment) error {
	now := time.Now().UnixMilli()
	_, err := tx.ExecContext(ctx, s.db.Dialect.Rebind(`INSERT INTO payments
		(order_id, customer_id, state, amount_minor, currency, card, charge_key, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (order_id) DO NOTHING`),
		p.OrderID, p.CustomerID, string(p.State), p.Amount.Minor, p.Amount.Currency, p.Card, p.Key, now, now)
	if err != nil {
		return fmt.Errorf("payment: insert order %s: %w", p.OrderID, err)
	}
	return nil
}

// BeginRefund is described by app.Store.
func (s *Store) BeginRefund(ctx context.Context, call app.Call, orderID, reason string) (row domain.Payment, err error) {
	op := saga.OpDo
	if call.Undo {
		op = saga.OpUndo
	}
	found := true
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := s.db.Barrier.Do(ctx, tx, call.Base, op, func(ctx context.Context) ([]byte, error) {
			_, err := s.move(ctx, tx, orderID, domain.Refunding, "reason", reason)
			return nil, err
		})
		if err != nil {
			return err
		}
		row, err = s.load(ctx, tx, orderID)
		// Not an error of the transaction: the barrier's mark of an undo that came first must stay.
		if errors.Is(err, app.ErrNotFound) || err == nil && call.Undo && row.Key != call.Base {
			found = false
			return nil
		}
		return err
	})
	if err == nil && !found {
		return domain.Payment{}, app.ErrNotFound
	}
	return row, err
}

// SetCharged is described by app.Store.
func (s *Store) SetCharged(ctx context.Context, orderID, chargeID string) (domain.Payment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		moved, err := s.move(ctx, tx, orderID, domain.Charged, "charge_id", chargeID)
		if moved || err != nil {
			return moved, err
		}
		_, err = tx.ExecContext(ctx, s.db.Dialect.Rebind(
			`UPDATE payments SET charge_id = ? WHERE order_id = ? AND state = ? AND charge_id = ''`),
			chargeID, orderID, string(domain.Refunding))
		return false, err
	}, func(p domain.Payment) events.Event {
		return events.PaymentCharged{OrderID: p.OrderID, Amount: p.Amount}
	})
}

// SetDeclined is described by app.Store.
func (s *Store) SetDeclined(ctx context.Context, orderID, reason string) (domain.Payment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		return s.move(ctx, tx, orderID, domain.Declined, "reason", reason)
	}, func(p domain.Payment) events.Event {
		return events.PaymentDeclined{OrderID: p.OrderID, Reason: p.Reason}
	})
}

// SetRefunded is described by app.Store.
func (s *Store) SetRefunded(ctx context.Context, orderID, refundID string) (domain.Payment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		return s.move(ctx, tx, orderID, domain.Refunded, "refund_id", refundID)
	}, func(p domain.Payment) events.Event {
		return events.PaymentRefunded{OrderID: p.OrderID, Amount: p.Amount}
	})
}

// Get is described by app.Store.
func (s *Store) Get(ctx context.Context, orderID string) (domain.Payment, error) {
	return s.load(ctx, s.db.DB, orderID)
}

// change commits one move with its event and answers the payment as it stands, moved or not.
func (s *Store) change(ctx context.Context, orderID string,
	move func(context.Context, *sql.Tx) (bool, error), event func(domain.Payment) events.Event,
) (row domain.Payment, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		moved, err := move(ctx, tx)
		if err != nil {
			return err
		}
		if row, err = s.load(ctx, tx, orderID); err != nil || !moved {
			return err
		}
		return s.db.Emit(ctx, tx, event(row))
	})
	return row, err
}

// move changes the state, and one column with it, where the domain allows that. column is never input.
func (s *Store) move(ctx context.Context, tx *sql.Tx, orderID string, to domain.State, column, value string) (bool, error) {
	before := to.Before()
	args := []any{string(to), value, time.Now().UnixMilli(), orderID}
	for _, state := range before {
		args = append(args, string(state))
	}
	result, err := tx.ExecContext(ctx, s.db.Dialect.Rebind(fmt.Sprintf(
		`UPDATE payments SET state = ?, %s = ?, updated_at = ? WHERE order_id = ? AND state IN (?%s)`,
		column, strings.Repeat(", ?", len(before)-1))), args...)
	if err != nil {
		return false, fmt.Errorf("payment: move order %s to %s: %w", orderID, to, err)
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) load(ctx context.Context, db querier, orderID string) (p domain.Payment, err error) {
	var created, updated int64
	err = db.QueryRowContext(ctx, s.db.Dialect.Rebind(`SELECT order_id, customer_id, state, amount_minor, currency, card,
		charge_key, charge_id, refund_id, reason, created_at, updated_at FROM payments WHERE order_id = ?`), orderID).
		Scan(&p.OrderID, &p.CustomerID, &p.State, &p.Amount.Minor, &p.Amount.Currency, &p.Card,
			&p.Key, &p.ChargeID, &p.RefundID, &p.Reason, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Payment{}, app.ErrNotFound
	}
	if err != nil {
		return domain.Payment{}, fmt.Errorf("payment: load order %s: %w", orderID, err)
	}
	p.CreatedAt, p.UpdatedAt = time.UnixMilli(created), time.UnixMilli(updated)
	return p, nil
}
