// Package api is the product service on gRPC.
//
//	productv1.RegisterProductServiceServer(svc.GRPC, api.New(products, svc.Logger))
//
// An unknown product is NOT_FOUND with reason PRODUCT_NOT_FOUND and the product as resource; more than app.MaxIDs ids
// are INVALID_ARGUMENT with reason TOO_MANY_IDS.
package api

import (
	"context"
	"errors"
	"log/slog"

	"github.com/armature-go/armature/examples/shop/product/app"
	"github.com/armature-go/armature/examples/shop/product/domain"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
	"github.com/armature-go/armature/transport"
)

// Server implements productv1.ProductServiceServer.
type Server struct {
	productv1.UnimplementedProductServiceServer
	products *app.Products
	log      *slog.Logger
}

// New returns the gRPC side of products.
func New(products *app.Products, log *slog.Logger) *Server {
	return &Server{products: products, log: log}
}

// ListProducts answers the catalogue.
func (s *Server) ListProducts(ctx context.Context, _ *productv1.ListProductsRequest) (*productv1.ListProductsResponse, error) {
	list, err := s.products.List(ctx)
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "catalogue read", "products", len(list))
	return &productv1.ListProductsResponse{Products: encode(list)}, nil
}

// GetProducts answers the products asked for.
func (s *Server) GetProducts(ctx context.Context, req *productv1.GetProductsRequest) (*productv1.GetProductsResponse, error) {
	if n := len(req.GetIds()); n > app.MaxIDs {
		return nil, transport.Errorf(transport.InvalidArgument, "TOO_MANY_IDS", "%d ids, at most %d", n, app.MaxIDs)
	}
	list, err := s.products.Get(ctx, req.GetIds())
	if missing, ok := errors.AsType[*app.MissingError](err); ok {
		return nil, transport.Errorf(transport.NotFound, "PRODUCT_NOT_FOUND", "there is no product %q", missing.ID).
			WithResource("product", missing.ID)
	}
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "products read", "products", len(list))
	return &productv1.GetProductsResponse{Products: encode(list)}, nil
}

func encode(list []domain.Product) []*productv1.Product {
	out := make([]*productv1.Product, len(list))
	for i, p := range list {
		out[i] = &productv1.Product{Id: p.ID, Name: p.Name, Price: &commonv1.Money{Minor: p.Price.Minor, Currency: p.Price.Currency}}
	}
	return out
}
