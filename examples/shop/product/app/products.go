// Package app holds what the product service does.
//
//	products := app.New(store)
//	list, err := products.Get(ctx, []string{"sku-tea", "sku-pen"})   // in the order asked
//	var missing *app.MissingError
//	if errors.As(err, &missing) { ... missing.ID ... }
package app

import (
	"context"
	"fmt"

	"github.com/armature-go/armature/examples/shop/product/domain"
)

// MaxIDs is how many products one Get may ask for.
const MaxIDs = 200

// MissingError says which product does not exist.
type MissingError struct{ ID string }

// Error names the product.
func (e *MissingError) Error() string { return fmt.Sprintf("product: %q not found", e.ID) }

// Store keeps the catalogue.
type Store interface {
	// All answers every product by ascending id.
	All(ctx context.Context) ([]domain.Product, error)
	// ByID answers those of ids that exist, in any order.
	ByID(ctx context.Context, ids []string) ([]domain.Product, error)
}

// Products is the use cases. It is safe for concurrent use.
type Products struct{ store Store }

// New returns the use cases over store.
func New(store Store) *Products { return &Products{store: store} }

// List answers every product by ascending id.
func (s *Products) List(ctx context.Context) ([]domain.Product, error) { return s.store.All(ctx) }

// Get answers the products of ids in their order, or a *MissingError for the first that does not exist. An id may come
// twice.
func (s *Products) Get(ctx context.Context, ids []string) ([]domain.Product, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := s.store.ByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]domain.Product, len(found))
	for _, p := range found {
		byID[p.ID] = p
	}
	list := make([]domain.Product, len(ids))
	for i, id := range ids {
		p, ok := byID[id]
		if !ok {
			return nil, &MissingError{ID: id}
		}
		list[i] = p
	}
	return list, nil
}
