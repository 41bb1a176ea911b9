// Package inventory is the service that owns the stock.
//
//	svc, err := inventory.New(ctx, cfg)
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It takes part in the sagas of the order service: what it does counts once per idempotency key and can be undone in any
// order. It emits shop.inventory.reserved and shop.inventory.released through its outbox.
package inventory

import (
	"context"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/inventory/api"
	"github.com/armature-go/armature/examples/shop/inventory/app"
	"github.com/armature-go/armature/examples/shop/inventory/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
)

// New assembles the service; its Run serves until the context ends, and closes the database.
func New(ctx context.Context, cfg platform.Config) (*armature.Service, error) {
	svc, err := platform.NewService("inventory", cfg)
	if err != nil {
		return nil, err
	}
	kit, err := platform.OpenStore(ctx, svc, cfg, "inventory", infra.Schema)
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	store, err := infra.NewStore(ctx, kit)
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	inventoryv1.RegisterInventoryServiceServer(svc.GRPC, api.New(app.New(store), svc.Logger))
	return svc, nil
}
