package inventory_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/inventory"
	"github.com/armature-go/armature/examples/shop/platform"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The service as others see it: over gRPC, and through the broker.
func TestService(t *testing.T) {
	t.Parallel()
	broker, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := broker.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	heard := make(chan string, 10)
	if _, err := broker.Subscribe(t.Context(), events.TopicInventory, "test", func(_ context.Context, d *messaging.Delivery) error {
		heard <- d.Message.Type + " " + d.Message.Key
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	svc, err := inventory.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: testsvc.SQLite(t), Broker: broker})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- svc.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-svc.Ready():
	case err := <-ran:
		t.Fatal(err)
	}
	conn, err := grpcx.NewClient(grpcx.ClientConfig{Target: svc.GRPCAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := inventoryv1.NewInventoryServiceClient(conn)

	stock := func(product string) int64 {
		t.Helper()
		got, err := client.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: product})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetStock().GetOnHand()
	}
	before := stock("sku-tea")
	reserve := &inventoryv1.ReserveRequest{OrderId: "o1", Items: []*commonv1.Item{{ProductId: "sku-tea", Quantity: 2}}}
	for range 2 {
		if _, err := client.Reserve(flow.WithOutgoingIdempotencyKey(ctx, "place-o1/reserve"), reserve); err != nil {
			t.Fatal(err)
		}
	}
	if got := stock("sku-tea"); got != before-2 {
		t.Errorf("%d there, want %d", got, before-2)
	}
	back, err := client.Release(flow.WithOutgoingIdempotencyKey(ctx, "place-o1/reserve/undo"), &inventoryv1.ReleaseRequest{OrderId: "o1"})
	if err != nil || len(back.GetItems()) != 1 || back.GetItems()[0].GetQuantity() != 2 {
		t.Errorf("released %v, %v", back, err)
	}
	if got := stock("sku-tea"); got != before {
		t.Errorf("%d there, want %d", got, before)
	}
	for _, want := range []string{events.TypeInventoryReserved + " o1", events.TypeInventoryReleased + " o1"} {
		if got := <-heard; got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}

	all, err := client.ListStock(ctx, &inventoryv1.ListStockRequest{})
	if err != nil || len(all.GetStock()) != 20 {
		t.Errorf("%d products, %v", len(all.GetStock()), err)
	}
	for name, c := range map[string]struct {
		code   transport.Code
		reason string
		call   func() error
	}{
		"an unknown product": {transport.NotFound, "PRODUCT_NOT_FOUND", func() error {
			_, err := client.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "sku-unicorn"})
			return err
		}},
		"no key": {transport.InvalidArgument, platform.ReasonKeyMissing, func() error {
			_, err := client.Reserve(ctx, reserve)
			return err
		}},
		"nothing asked for": {transport.InvalidArgument, "RESERVATION_INVALID", func() error {
			_, err := client.Reserve(flow.WithOutgoingIdempotencyKey(ctx, "x/reserve"), &inventoryv1.ReserveRequest{OrderId: "x"})
			return err
		}},
		"no order": {transport.InvalidArgument, "RESERVATION_INVALID", func() error {
			_, err := client.Release(flow.WithOutgoingIdempotencyKey(ctx, "x/release"), &inventoryv1.ReleaseRequest{})
			return err
		}},
		"nothing left": {transport.FailedPrecondition, "OUT_OF_STOCK", func() error {
			_, err := client.Reserve(flow.WithOutgoingIdempotencyKey(ctx, "y/reserve"),
				&inventoryv1.ReserveRequest{OrderId: "y", Items: []*commonv1.Item{{ProductId: "sku-sextant", Quantity: 1}}})
			return err
		}},
	} {
		err := transport.AsError(c.call())
		if err == nil || err.Code != c.code || err.Reason != c.reason {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestNewNeedsABroker(t *testing.T) {
	t.Parallel()
	if _, err := inventory.New(t.Context(), platform.Config{Addr: "127.0.0.1:0", DB: testsvc.SQLite(t)}); err == nil {
		t.Fatal("events would have nowhere to go")
	}
}
