package infra

import (
	"context"
	"database/sql"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
)

// Store is an app.Store: the ledger and the start of the sagas in one transaction. It is safe for concurrent use.
type Store struct {
	*Ledger
	sagas *Sagas
}

var _ app.Store = (*Store)(nil)

// NewStore returns a Store over ledger that starts sagas.
func NewStore(ledger *Ledger, sagas *Sagas) *Store { return &Store{Ledger: ledger, sagas: sagas} }

// Place is described by app.Store.
func (s *Store) Place(ctx context.Context, o domain.Order, p app.Placement) (stored domain.Order, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		inserted, err := s.insert(ctx, tx, o, p)
		if err != nil {
			return err
		}
		if !inserted {
			stored, err = s.byKey(ctx, tx, p)
			return err
		}
		stored = o
		placed := events.OrderPlaced{OrderID: o.ID, CustomerID: o.CustomerID, Total: o.Total}
		for _, line := range o.Lines {
			placed.Items = append(placed.Items, events.Item{ProductID: line.ProductID, Quantity: line.Quantity})
		}
		if err := s.db.Emit(ctx, tx, placed); err != nil {
			return err
		}
		return s.sagas.startPlace(ctx, tx, app.RequestOf(o, p.Card))
	})
	if err != nil {
		return domain.Order{}, err
	}
	s.sagas.wake()
	return stored, nil
}

// ByKey is described by app.Store.
func (s *Store) ByKey(ctx context.Context, p app.Placement) (domain.Order, error) {
	return s.byKey(ctx, s.db.DB, p)
}

// Get is described by app.Store.
func (s *Store) Get(ctx context.Context, id string) (domain.Order, error) {
	return s.get(ctx, s.db.DB, id)
}

// List is described by app.Store.
func (s *Store) List(ctx context.Context, customerID string, limit int) ([]domain.Order, error) {
	return s.query(ctx, s.db.DB,
		`SELECT * FROM orders WHERE customer_id = ? ORDER BY created_at DESC, id DESC LIMIT ?`, customerID, limit)
}

// BeginRefund is described by app.Store.
func (s *Store) BeginRefund(ctx context.Context, id string) (stored domain.Order, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		moved, err := s.move(ctx, tx, id, domain.Refunding)
		if err != nil {
			return err
		}
		stored, err = s.get(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case stored.Status != domain.Refunding && stored.Status != domain.Refunded:
			return app.ErrNotRefundable
		case !moved:
			return nil
		}
		return s.sagas.startRefund(ctx, tx, app.RequestOf(stored, ""))
	})
	if err != nil {
		return domain.Order{}, err
	}
	s.sagas.wake()
	return stored, nil
}
