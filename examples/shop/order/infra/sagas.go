package infra

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

// Sagas runs the sagas of this process's orders.
type Sagas struct {
	coordinator *saga.Coordinator
	definitions app.Sagas
}

// NewSagas opens the journal beside the orders and makes its coordinator a worker of svc. A saga that another process,
// or an earlier life of this one, left unfinished is taken over.
// One that ran under the same node is taken over at once, another when its lease has run out.
func NewSagas(ctx context.Context, svc *armature.Service, db *platform.Store, node string, definitions app.Sagas) (*Sagas, error) {
	journal, err := sqlstore.New(sqlstore.Config{DB: db.DB, Dialect: db.Dialect})
	if err != nil {
		return nil, fmt.Errorf("order: journal: %w", err)
	}
	if err := journal.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("order: migrate journal: %w", err)
	}
	coordinator, err := saga.NewCoordinator(saga.Config{
		Store: journal, Node: node, Logger: svc.Logger, TracerProvider: svc.TracerProvider,
	})
	if err != nil {
		return nil, fmt.Errorf("order: coordinator: %w", err)
	}
	for _, definition := range []*saga.Definition[app.Request]{definitions.Place, definitions.Refund} {
		if err := saga.Register(coordinator, definition); err != nil {
			return nil, fmt.Errorf("order: register %s: %w", definition.Name(), err)
		}
	}
	svc.Worker("sagas", coordinator.Run)
	return &Sagas{coordinator: coordinator, definitions: definitions}, nil
}

// The ids hang on the order: one placement and one refund each, whoever asks how often.
func (s *Sagas) startPlace(ctx context.Context, tx *sql.Tx, r app.Request) error {
	return saga.StartTx(ctx, tx, s.coordinator, s.definitions.Place, "place-"+r.OrderID, &r)
}

func (s *Sagas) startRefund(ctx context.Context, tx *sql.Tx, r app.Request) error {
	return saga.StartTx(ctx, tx, s.coordinator, s.definitions.Refund, "refund-"+r.OrderID, &r)
}

// wake is called after the commit of a start, so that the coordinator does not wait for its next look.
func (s *Sagas) wake() { s.coordinator.Wake() }
