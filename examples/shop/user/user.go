// Package user is the service that owns the customers.
//
//	svc, err := user.New(ctx, cfg)
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It calls nobody and emits nothing; it is ready while its database answers.
package user

import (
	"context"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/examples/shop/user/api"
	"github.com/armature-go/armature/examples/shop/user/app"
	"github.com/armature-go/armature/examples/shop/user/infra"
)

// New assembles the service; its Run serves until the context ends, and closes the database.
func New(ctx context.Context, cfg platform.Config) (*armature.Service, error) {
	svc, err := platform.NewService("user", cfg)
	if err != nil {
		return nil, err
	}
	db, dialect, err := platform.AttachDB(ctx, svc, cfg, "user")
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	store, err := infra.NewStore(ctx, db, dialect)
	if err != nil {
		return nil, platform.Abandon(ctx, svc, err)
	}
	userv1.RegisterUserServiceServer(svc.GRPC, api.New(app.New(store), svc.Logger))
	return svc, nil
}
