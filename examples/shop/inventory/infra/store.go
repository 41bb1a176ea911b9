// Package infra keeps the stock in the inventory service's own database.
//
//	kit, err := platform.OpenStore(ctx, svc, cfg, "inventory", infra.Schema)
//	store, err := infra.NewStore(ctx, kit)     // seeds an empty database
//	inventory := app.New(store)
//
// Taking and putting back are one transaction each with the barrier's mark, the line in stock_moves and the event in
// the outbox: all of it happens, or nothing does.
package infra

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/inventory/app"
	"github.com/armature-go/armature/examples/shop/inventory/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// Schema is the steps of the service's own tables. stock is what is there, holds is what each order has of it,
// stock_moves is how it came to that, never changed and never deleted.
var Schema = []string{
	`CREATE TABLE stock (product_id TEXT PRIMARY KEY, on_hand BIGINT NOT NULL CHECK (on_hand >= 0))`,
	`CREATE TABLE holds (order_id TEXT NOT NULL, product_id TEXT NOT NULL, quantity BIGINT NOT NULL CHECK (quantity > 0),
		PRIMARY KEY (order_id, product_id))`,
	`CREATE TABLE stock_moves (id TEXT PRIMARY KEY, product_id TEXT NOT NULL, kind TEXT NOT NULL,
		quantity BIGINT NOT NULL CHECK (quantity > 0), order_id TEXT NOT NULL, at BIGINT NOT NULL)`,
	`CREATE INDEX stock_moves_order ON stock_moves (order_id)`,
}

// Reasons of the refusals.
const (
	ReasonOutOfStock = "OUT_OF_STOCK"
	ReasonNoProduct  = "PRODUCT_NOT_FOUND"
	ReasonHeld       = "ALREADY_RESERVED"
)

// Store is an app.Store on SQL.
type Store struct {
	kit *platform.Store
	sql statements
}

type statements struct{ take, put, hold, drop, move, receipt, insert, get string }

var _ app.Store = (*Store)(nil)

// NewStore puts the first stock into an empty database.
func NewStore(ctx context.Context, kit *platform.Store) (*Store, error) {
	r := kit.Dialect.Rebind
	s := &Store{kit: kit, sql: statements{
		take:    r(`UPDATE stock SET on_hand = on_hand - ? WHERE product_id = ? AND on_hand >= ?`),
		put:     r(`UPDATE stock SET on_hand = on_hand + ? WHERE product_id = ?`),
		hold:    r(`INSERT INTO holds (order_id, product_id, quantity) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`),
		drop:    r(`DELETE FROM holds WHERE order_id = ? RETURNING product_id, quantity`),
		move:    r(`INSERT INTO stock_moves (id, product_id, kind, quantity, order_id, at) VALUES (?, ?, ?, ?, ?, ?)`),
		receipt: r(`INSERT INTO stock_moves (id, product_id, kind, quantity, order_id, at) VALUES (?, ?, ?, ?, '', ?)`),
		insert:  r(`INSERT INTO stock (product_id, on_hand) VALUES (?, ?) ON CONFLICT (product_id) DO NOTHING`),
		get:     r(`SELECT on_hand FROM stock WHERE product_id = ?`),
	}}
	if err := s.seed(ctx); err != nil {
		return nil, fmt.Errorf("inventory: seed: %w", err)
	}
	return s, nil
}

func (s *Store) seed(ctx context.Context) error {
	if all, err := s.All(ctx); err != nil || len(all) > 0 {
		return err
	}
	return s.kit.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, stock := range domain.Seed() {
			// Another process may be seeding too: who inserts the row also writes its receipt.
			mine, err := changed(tx.ExecContext(ctx, s.sql.insert, stock.ProductID, stock.OnHand))
			if err != nil {
				return err
			}
			if !mine || stock.OnHand == 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, s.sql.receipt, flow.NewID(), stock.ProductID, domain.Receipt, stock.OnHand, time.Now().UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}

type nothing struct{}

// Reserve implements app.Store.
func (s *Store) Reserve(ctx context.Context, orderID string, lines []domain.Item) error {
	_, err := platform.Once(ctx, s.kit, func(ctx context.Context, tx *sql.Tx) (nothing, error) {
		for _, line := range lines {
			if err := s.take(ctx, tx, orderID, line); err != nil {
				return nothing{}, err
			}
		}
		return nothing{}, s.kit.Emit(ctx, tx, events.InventoryReserved{OrderID: orderID, Items: items(lines)})
	})
	return err
}

func (s *Store) take(ctx context.Context, tx *sql.Tx, orderID string, line domain.Item) error {
	taken, err := changed(tx.ExecContext(ctx, s.sql.take, line.Quantity, line.ProductID, line.Quantity))
	if err != nil {
		return fmt.Errorf("inventory: take %s: %w", line.ProductID, err)
	}
	if !taken {
		return s.refuse(ctx, tx, line)
	}
	held, err := changed(tx.ExecContext(ctx, s.sql.hold, orderID, line.ProductID, line.Quantity))
	if err != nil {
		return fmt.Errorf("inventory: hold %s: %w", line.ProductID, err)
	}
	if !held {
		return transport.Errorf(transport.FailedPrecondition, ReasonHeld, "the order holds %s already", line.ProductID).WithCause(domain.ErrHeld)
	}
	return s.write(ctx, tx, domain.Reserve, orderID, line)
}

func (s *Store) refuse(ctx context.Context, tx *sql.Tx, line domain.Item) error {
	var onHand int64
	switch err := tx.QueryRowContext(ctx, s.sql.get, line.ProductID).Scan(&onHand); {
	case errors.Is(err, sql.ErrNoRows):
		return transport.Errorf(transport.FailedPrecondition, ReasonNoProduct, "there is no product %q", line.ProductID).WithCause(domain.ErrNoProduct)
	case err != nil:
		return fmt.Errorf("inventory: look at %s: %w", line.ProductID, err)
	}
	return transport.Errorf(transport.FailedPrecondition, ReasonOutOfStock, "%s: %d asked for, %d there", line.ProductID, line.Quantity, onHand).
		WithCause(domain.ErrOutOfStock)
}

// Release implements app.Store. Deleting the holds is what makes the release count once: of two racing calls with
// different keys one gets the rows.
func (s *Store) Release(ctx context.Context, orderID string) ([]domain.Item, error) {
	return platform.Once(ctx, s.kit, func(ctx context.Context, tx *sql.Tx) ([]domain.Item, error) {
		held, err := s.drop(ctx, tx, orderID)
		if err != nil || len(held) == 0 {
			return nil, err
		}
		for _, line := range held {
			if _, err := tx.ExecContext(ctx, s.sql.put, line.Quantity, line.ProductID); err != nil {
				return nil, fmt.Errorf("inventory: put back %s: %w", line.ProductID, err)
			}
			if err := s.write(ctx, tx, domain.Release, orderID, line); err != nil {
				return nil, err
			}
		}
		return held, s.kit.Emit(ctx, tx, events.InventoryReleased{OrderID: orderID, Items: items(held)})
	})
}

func (s *Store) drop(ctx context.Context, tx *sql.Tx, orderID string) (held []domain.Item, err error) {
	rows, err := tx.QueryContext(ctx, s.sql.drop, orderID)
	if err != nil {
		return nil, fmt.Errorf("inventory: drop the holds of %s: %w", orderID, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line domain.Item
		if err := rows.Scan(&line.ProductID, &line.Quantity); err != nil {
			return nil, fmt.Errorf("inventory: drop the holds of %s: %w", orderID, err)
		}
		held = append(held, line)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("inventory: drop the holds of %s: %w", orderID, err)
	}
	domain.Sort(held)
	return held, nil
}

func (s *Store) write(ctx context.Context, tx *sql.Tx, kind domain.MoveKind, orderID string, line domain.Item) error {
	if _, err := tx.ExecContext(ctx, s.sql.move, flow.NewID(), line.ProductID, kind, line.Quantity, orderID, time.Now().UnixMilli()); err != nil {
		return fmt.Errorf("inventory: write the move of %s: %w", line.ProductID, err)
	}
	return nil
}

// Stock implements app.Store.
func (s *Store) Stock(ctx context.Context, productID string) (domain.Stock, error) {
	stock := domain.Stock{ProductID: productID}
	err := s.kit.DB.QueryRowContext(ctx, s.sql.get, productID).Scan(&stock.OnHand)
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Stock{}, fmt.Errorf("%w: %s", domain.ErrNoProduct, productID)
	}
	if err != nil {
		return domain.Stock{}, fmt.Errorf("inventory: stock of %s: %w", productID, err)
	}
	return stock, nil
}

// All implements app.Store.
func (s *Store) All(ctx context.Context) (list []domain.Stock, err error) {
	rows, err := s.kit.DB.QueryContext(ctx, `SELECT product_id, on_hand FROM stock ORDER BY product_id`)
	if err != nil {
		return nil, fmt.Errorf("inventory: list stock: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var stock domain.Stock
		if err := rows.Scan(&stock.ProductID, &stock.OnHand); err != nil {
			return nil, fmt.Errorf("inventory: list stock: %w", err)
		}
		list = append(list, stock)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("inventory: list stock: %w", err)
	}
	return list, nil
}

func items(lines []domain.Item) []events.Item {
	out := make([]events.Item, len(lines))
	for i, line := range lines {
		out[i] = events.Item(line)
	}
	return out
}

func changed(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}
