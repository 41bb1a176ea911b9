// Package infra connects the shipping service to its database and to the carrier.
//
//	shared, err := platform.OpenStore(ctx, svc, cfg, "shipping", infra.Schema())
//	store := infra.NewStore(shared)
//	carrier, err := infra.NewCarrier(svc, cfg.CarrierURL)
//	shipments := app.New(store, carrier)
//
// Every change of state is one transaction: a conditional UPDATE, the event that tells it, and the mark of the call that
// asked for it. The carrier is only ever called between transactions.
package infra

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/domain"
	"github.com/armature-go/armature/saga"
)

// Schema is the service's own tables, append-only, one statement a step.
func Schema() []string {
	return []string{
		`CREATE TABLE shipments (
			order_id   TEXT   NOT NULL PRIMARY KEY,
			state      TEXT   NOT NULL,
			book_key   TEXT   NOT NULL UNIQUE,
			tracking   TEXT   NOT NULL DEFAULT '',
			reason     TEXT   NOT NULL DEFAULT '',
			address    TEXT   NOT NULL,
			items      TEXT   NOT NULL,
			created_at BIGINT NOT NULL,
			updated_at BIGINT NOT NULL)`,
	}
}

// Store is an app.Store on SQL. It is safe for concurrent use.
type Store struct{ db *platform.Store }

var _ app.Store = (*Store)(nil)

// NewStore returns a Store in a database that has the Schema.
func NewStore(db *platform.Store) *Store { return &Store{db: db} }

// Open is described by app.Store.
func (s *Store) Open(ctx context.Context, call app.Call, ship domain.Shipment) (row domain.Shipment, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := s.db.Barrier.Do(ctx, tx, call.Base, saga.OpDo, func(ctx context.Context) ([]byte, error) {
			return nil, s.insert(ctx, tx, ship)
		})
		if errors.Is(err, saga.ErrUndone) {
			return app.ErrUndone
		}
		if err != nil {
			return err
		}
		row, err = s.load(ctx, tx, ship.OrderID)
		if err == nil && row.Key != ship.Key {
			return app.ErrConflict
		}
		return err
	})
	return row, err
}

// What the columns hold keeps its names when the domain changes one.
type (
	addressColumn struct {
		Name     string `json:"Name"`
		Line1    string `json:"Line1"`
		City     string `json:"City"`
		Postcode string `json:"Postcode"`
		Country  string `json:"Country"`
	}
	itemColumn struct {
		ProductID string `json:"ProductID"`
		Quantity  int64  `json:"Quantity"`
	}
)

func (s *Store) insert(ctx context.Context, tx *sql.Tx, ship domain.Shipment) error {
	address, err := json.Marshal(addressColumn(ship.Address))
	if err != nil {
		return fmt.Errorf("shipping: encode address of order %s: %w", ship.OrderID, err)
	}
	var rows []itemColumn
	for _, item := range ship.Items {
		rows = append(rows, itemColumn(item))
	}
	items, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("shipping: encode items of order %s: %w", ship.OrderID, err)
	}
	now := time.Now().UnixMilli()
	_, err = tx.ExecContext(ctx, s.db.Dialect.Rebind(`INSERT INTO shipments
		(order_id, state, book_key, address, items, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (order_id) DO NOTHING`),
		ship.OrderID, string(ship.State), ship.Key, string(address), string(items), now, now)
	if err != nil {
		return fmt.Errorf("shipping: insert order %s: %w", ship.OrderID, err)
	}
	return nil
}

// BeginCancel is described by app.Store.
func (s *Store) BeginCancel(ctx context.Context, call app.Call, orderID string) (row domain.Shipment, err error) {
	op := saga.OpDo
	if call.Undo {
		op = saga.OpUndo
	}
	found := true
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := s.db.Barrier.Do(ctx, tx, call.Base, op, func(ctx context.Context) ([]byte, error) {
			_, err := s.move(ctx, tx, orderID, domain.Cancelling, "", "")
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
		return domain.Shipment{}, app.ErrNotFound
	}
	return row, err
}

// SetCreated is described by app.Store.
func (s *Store) SetCreated(ctx context.Context, orderID, tracking string) (domain.Shipment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		moved, err := s.move(ctx, tx, orderID, domain.Created, "tracking", tracking)
		if moved || err != nil {
			return moved, err
		}
		_, err = tx.ExecContext(ctx, s.db.Dialect.Rebind(
			`UPDATE shipments SET tracking = ? WHERE order_id = ? AND state = ? AND tracking = ''`),
			tracking, orderID, string(domain.Cancelling))
		return false, err
	}, func(ship domain.Shipment) events.Event {
		return events.ShipmentCreated{OrderID: ship.OrderID, Tracking: ship.Tracking}
	})
}

// SetRejected is described by app.Store.
func (s *Store) SetRejected(ctx context.Context, orderID, reason string) (domain.Shipment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		return s.move(ctx, tx, orderID, domain.Rejected, "reason", reason)
	}, func(ship domain.Shipment) events.Event {
		return events.ShipmentRejected{OrderID: ship.OrderID, Reason: ship.Reason}
	})
}

// SetCancelled is described by app.Store.
func (s *Store) SetCancelled(ctx context.Context, orderID string) (domain.Shipment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx *sql.Tx) (bool, error) {
		return s.move(ctx, tx, orderID, domain.Cancelled, "", "")
	}, func(ship domain.Shipment) events.Event {
		return events.ShipmentCancelled{OrderID: ship.OrderID, Tracking: ship.Tracking}
	})
}

// Get is described by app.Store.
func (s *Store) Get(ctx context.Context, orderID string) (domain.Shipment, error) {
	return s.load(ctx, s.db.DB, orderID)
}

// change commits one move with its event and answers the shipment as it stands, moved or not.
func (s *Store) change(ctx context.Context, orderID string,
	move func(context.Context, *sql.Tx) (bool, error), event func(domain.Shipment) events.Event,
) (row domain.Shipment, err error) {
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

// move changes the state, and one column with it unless that is "", where the domain allows that. column is never input.
func (s *Store) move(ctx context.Context, tx *sql.Tx, orderID string, to domain.State, column, value string) (bool, error) {
	set, args := "state = ?, updated_at = ?", []any{string(to), time.Now().UnixMilli()}
	if column != "" {
		set, args = set+", "+column+" = ?", append(args, value)
	}
	args = append(args, orderID)
	before := to.Before()
	for _, state := range before {
		args = append(args, string(state))
	}
	result, err := tx.ExecContext(ctx, s.db.Dialect.Rebind(fmt.Sprintf(
		`UPDATE shipments SET %s WHERE order_id = ? AND state IN (?%s)`,
		set, strings.Repeat(", ?", len(before)-1))), args...)
	if err != nil {
		return false, fmt.Errorf("shipping: move order %s to %s: %w", orderID, to, err)
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) load(ctx context.Context, db querier, orderID string) (ship domain.Shipment, err error) {
	var (
		created, updated int64
		address, items   string
	)
	err = db.QueryRowContext(ctx, s.db.Dialect.Rebind(`SELECT order_id, state, book_key, tracking, reason, address, items,
		created_at, updated_at FROM shipments WHERE order_id = ?`), orderID).
		Scan(&ship.OrderID, &ship.State, &ship.Key, &ship.Tracking, &ship.Reason, &address, &items, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Shipment{}, app.ErrNotFound
	}
	var (
		to   addressColumn
		rows []itemColumn
	)
	if err == nil {
		err = errors.Join(json.Unmarshal([]byte(address), &to), json.Unmarshal([]byte(items), &rows))
	}
	if err != nil {
		return domain.Shipment{}, fmt.Errorf("shipping: load order %s: %w", orderID, err)
	}
	ship.Address = domain.Address(to)
	for _, row := range rows {
		ship.Items = append(ship.Items, domain.Item(row))
	}
	ship.CreatedAt, ship.UpdatedAt = time.UnixMilli(created), time.UnixMilli(updated)
	return ship, nil
}
