// Package product is the service that owns the catalogue.
//
//	svc, err := product.New(ctx, cfg)
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It calls nobody and emits nothing; it is ready while its database answers.
package product

import (
	"context"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/product/api"
	"github.com/armature-go/armature/examples/shop/product/app"
	"github.com/armature-go/armature/examples/shop/product/infra"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
)

// New assembles the service; its Run serves until the context ends, and closes the database.
func New(ctx context.Context, cfg platform.Config) (*armature.Service, error) {
	svc, err := platform.NewService("product", cfg)
	if err != nil {
		return nil, err
	}
	db, dialect, err := platform.AttachDB(ctx, svc, cfg, "product")
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	store, err := infra.NewStore(ctx, db, dialect)
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	productv1.RegisterProductServiceServer(svc.GRPC, api.New(app.New(store), svc.Logger))
	return svc, nil
}
