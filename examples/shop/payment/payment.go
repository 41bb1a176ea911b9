// Package payment is the service that owns what was charged and refunded.
//
//	svc, err := payment.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url, Broker: broker, Registry: registry, CardURL: card})
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It answers ABORTED with reason OUTCOME_UNKNOWN while the card processor does not answer and keeps what it intended, so that a repeat with the
// same key goes on from there.
package payment

import (
	"context"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/payment/api"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	paymentv1 "github.com/armature-go/armature/examples/shop/proto/payment/v1"
)

// New opens the service's database and returns the service, ready to Run. It uses Addr, DB, Broker, Registry and CardURL
// of cfg.
func New(ctx context.Context, cfg platform.Config) (_ *armature.Service, err error) {
	svc, err := platform.NewService("payment", cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = platform.Abandon(ctx, svc, err)
		}
	}()
	processor, err := infra.NewProcessor(svc, cfg.CardURL)
	if err != nil {
		return nil, err
	}
	db, err := platform.OpenStore(ctx, svc, cfg, "payment", infra.Schema())
	if err != nil {
		return nil, err
	}
	svc.Check("broker", cfg.Broker.Ping)
	paymentv1.RegisterPaymentServiceServer(svc.GRPC, api.New(app.New(infra.NewStore(db), processor), svc.Logger))
	return svc, nil
}
