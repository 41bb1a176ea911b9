// Package shipping is the service that owns the shipments.
//
//	svc, err := shipping.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url, Broker: broker, Registry: registry, CarrierURL: carrier})
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It answers ABORTED with reason OUTCOME_UNKNOWN while the carrier does not answer and keeps what it intended, so that a repeat with the same key
// goes on from there.
package shipping

import (
	"context"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	shippingv1 "github.com/armature-go/armature/examples/shop/proto/shipping/v1"
	"github.com/armature-go/armature/examples/shop/shipping/api"
	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/infra"
)

// New opens the service's database and returns the service, ready to Run. It uses Addr, DB, Broker, Registry and
// CarrierURL of cfg.
func New(ctx context.Context, cfg platform.Config) (_ *armature.Service, err error) {
	svc, err := platform.NewService("shipping", cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = platform.Abandon(ctx, svc, err)
		}
	}()
	carrier, err := infra.NewCarrier(svc, cfg.CarrierURL)
	if err != nil {
		return nil, err
	}
	db, err := platform.OpenStore(ctx, svc, cfg, "shipping", infra.Schema())
	if err != nil {
		return nil, err
	}
	svc.Check("broker", cfg.Broker.Ping)
	shippingv1.RegisterShippingServiceServer(svc.GRPC, api.New(app.New(infra.NewStore(db), carrier), svc.Logger))
	return svc, nil
}
