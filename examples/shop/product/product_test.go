package product_test

import (
	"context"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/product"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestService(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			svc, err := product.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url(t)})
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
			client := productv1.NewProductServiceClient(conn)

			all, err := client.ListProducts(ctx, &productv1.ListProductsRequest{})
			if err != nil || len(all.GetProducts()) != 20 {
				t.Fatalf("%d products, %v", len(all.GetProducts()), err)
			}
			got, err := client.GetProducts(ctx, &productv1.GetProductsRequest{Ids: []string{"sku-tea", "sku-bell", "sku-tea"}})
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, p := range got.GetProducts() {
				ids = append(ids, p.GetId())
				if p.GetPrice().GetMinor() <= 0 || p.GetPrice().GetCurrency() != "EUR" {
					t.Errorf("%s costs %v", p.GetId(), p.GetPrice())
				}
			}
			if strings.Join(ids, " ") != "sku-tea sku-bell sku-tea" {
				t.Errorf("got %v", ids)
			}
			if none, err := client.GetProducts(ctx, &productv1.GetProductsRequest{}); err != nil || len(none.GetProducts()) != 0 {
				t.Errorf("asked for none, got %v, %v", none, err)
			}
			_, err = client.GetProducts(ctx, &productv1.GetProductsRequest{Ids: []string{"sku-tea", "sku-unicorn"}})
			if e := transport.AsError(err); e == nil || e.Code != transport.NotFound || e.Reason != "PRODUCT_NOT_FOUND" ||
				e.Details.Resource == nil || e.Details.Resource.Name != "sku-unicorn" {
				t.Errorf("got %v", err)
			}
			_, err = client.GetProducts(ctx, &productv1.GetProductsRequest{Ids: make([]string, 201)})
			if e := transport.AsError(err); e == nil || e.Code != transport.InvalidArgument || e.Reason != "TOO_MANY_IDS" {
				t.Errorf("got %v", err)
			}
		})
	}
}
