// Package app holds what the inventory service does: take stock for an order, all or nothing, and put it back.
//
//	inventory := app.New(store)
//	err := inventory.Reserve(ctx, order, items)     // domain.ErrOutOfStock takes nothing
//	back, err := inventory.Release(ctx, order)      // what the order held; nothing held is fine
//
// Both count once per idempotency key of the call in ctx, whatever is repeated and in whatever order calls arrive: the
// store keeps that promise in one transaction with the effect.
package app

import (
	"context"
	"fmt"

	"github.com/armature-go/armature/examples/shop/inventory/domain"
)

// Store keeps the stock.
type Store interface {
	// Reserve takes all lines for the order, or none. A refusal is kept: a repeat of the key is refused again.
	Reserve(ctx context.Context, orderID string, lines []domain.Item) error
	// Release puts back what the order holds and answers it.
	Release(ctx context.Context, orderID string) ([]domain.Item, error)
	// Stock answers domain.ErrNoProduct for an unknown product.
	Stock(ctx context.Context, productID string) (domain.Stock, error)
	// All answers all stock by ascending product.
	All(ctx context.Context) ([]domain.Stock, error)
}

// Inventory is the use cases. It is safe for concurrent use.
type Inventory struct{ store Store }

// New returns the use cases over store.
func New(store Store) *Inventory { return &Inventory{store: store} }

// Reserve takes items for an order, all or none.
func (s *Inventory) Reserve(ctx context.Context, orderID string, items []domain.Item) error {
	if err := checkOrder(orderID); err != nil {
		return err
	}
	lines, err := domain.Lines(items)
	if err != nil {
		return err
	}
	return s.store.Reserve(ctx, orderID, lines)
}

// Release puts back what an order holds.
func (s *Inventory) Release(ctx context.Context, orderID string) ([]domain.Item, error) {
	if err := checkOrder(orderID); err != nil {
		return nil, err
	}
	return s.store.Release(ctx, orderID)
}

// Stock answers what is there of one product.
func (s *Inventory) Stock(ctx context.Context, productID string) (domain.Stock, error) {
	return s.store.Stock(ctx, productID)
}

// All answers what is there of every product.
func (s *Inventory) All(ctx context.Context) ([]domain.Stock, error) { return s.store.All(ctx) }

func checkOrder(id string) error {
	if id == "" || len(id) > 128 {
		return fmt.Errorf("%w: order id must have 1 to 128 characters", domain.ErrInvalid)
	}
	return nil
}
