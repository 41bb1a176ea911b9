// Package order is the service that owns the orders and drives their sagas.
//
//	svc, err := order.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url, Broker: broker, Registry: registry})
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It finds user, product, inventory, payment and shipping through the registry. A neighbour that is away delays an order
// and in the end cancels it; what was begun is undone, by this process or by the one that takes over.
package order

import (
	"cmp"
	"context"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/order/api"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	orderv1 "github.com/armature-go/armature/examples/shop/proto/order/v1"
	"github.com/armature-go/armature/flow"
)

// New opens the service's database and returns the service, ready to Run. It uses Addr, DB, Broker, Registry and
// Intercept of cfg.
func New(ctx context.Context, cfg platform.Config) (_ *armature.Service, err error) {
	svc, err := platform.NewService("order", cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = platform.Abandon(ctx, svc, err)
		}
	}()
	neighbours := map[string]*grpc.ClientConn{}
	for _, name := range []string{"user", "product", "inventory", "payment", "shipping"} {
		if neighbours[name], err = svc.Dial(name, armature.WithIntercept(cfg.Intercept...)); err != nil {
			return nil, err
		}
	}
	db, err := platform.OpenStore(ctx, svc, cfg, "order", infra.Schema())
	if err != nil {
		return nil, err
	}
	svc.Check("broker", cfg.Broker.Ping)

	changes := &app.Changes{}
	ledger := infra.NewLedger(db, changes)
	definitions, err := app.NewSagas(ledger,
		infra.NewInventory(neighbours["inventory"]), infra.NewPayments(neighbours["payment"]), infra.NewShipping(neighbours["shipping"]))
	if err != nil {
		return nil, err
	}
	sagas, err := infra.NewSagas(ctx, svc, db, cmp.Or(cfg.Node, "order"), definitions)
	if err != nil {
		return nil, err
	}
	orders := app.New(app.Config{
		Store: infra.NewStore(ledger, sagas), Changes: changes, NewID: flow.NewID,
		Customers: infra.NewCustomers(neighbours["user"]), Catalog: infra.NewCatalog(neighbours["product"]),
	})
	orderv1.RegisterOrderServiceServer(svc.GRPC, api.New(orders, svc.Logger))
	return svc, nil
}
