// Package api is the inventory service on gRPC.
//
//	inventoryv1.RegisterInventoryServiceServer(svc.GRPC, api.New(inventory, svc.Logger))
//
// A refusal is FAILED_PRECONDITION with reason OUT_OF_STOCK, PRODUCT_NOT_FOUND or ALREADY_RESERVED and is final for its
// key; a call that comes after its own undo is ABORTED with UNDONE; a bad request is INVALID_ARGUMENT; any other error
// leaves the outcome open, and a repeat with the same key settles it.
package api

import (
	"context"
	"errors"
	"log/slog"

	"github.com/armature-go/armature/examples/shop/inventory/app"
	"github.com/armature-go/armature/examples/shop/inventory/domain"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
	"github.com/armature-go/armature/transport"
)

// Server implements inventoryv1.InventoryServiceServer.
type Server struct {
	inventoryv1.UnimplementedInventoryServiceServer
	inventory *app.Inventory
	log       *slog.Logger
}

// New returns the gRPC side of inventory.
func New(inventory *app.Inventory, log *slog.Logger) *Server {
	return &Server{inventory: inventory, log: log}
}

// GetStock answers the stock of one product.
func (s *Server) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	stock, err := s.inventory.Stock(ctx, req.GetProductId())
	if errors.Is(err, domain.ErrNoProduct) {
		return nil, transport.Errorf(transport.NotFound, "PRODUCT_NOT_FOUND", "there is no product %q", req.GetProductId()).
			WithResource("product", req.GetProductId()).WithCause(err)
	}
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "stock read", "product_id", stock.ProductID)
	return &inventoryv1.GetStockResponse{Stock: encodeStock(stock)}, nil
}

// ListStock answers the stock of every product.
func (s *Server) ListStock(ctx context.Context, _ *inventoryv1.ListStockRequest) (*inventoryv1.ListStockResponse, error) {
	all, err := s.inventory.All(ctx)
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "stock listed", "products", len(all))
	out := make([]*inventoryv1.Stock, len(all))
	for i, stock := range all {
		out[i] = encodeStock(stock)
	}
	return &inventoryv1.ListStockResponse{Stock: out}, nil
}

// Reserve takes stock for an order, all items or none.
func (s *Server) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	items := make([]domain.Item, len(req.GetItems()))
	for i, item := range req.GetItems() {
		items[i] = domain.Item{ProductID: item.GetProductId(), Quantity: item.GetQuantity()}
	}
	if err := s.inventory.Reserve(ctx, req.GetOrderId(), items); err != nil {
		s.log.InfoContext(ctx, "stock not reserved", "order_id", req.GetOrderId(), "error", err)
		return nil, explain(err)
	}
	s.log.InfoContext(ctx, "stock reserved", "order_id", req.GetOrderId(), "items", len(items))
	return &inventoryv1.ReserveResponse{}, nil
}

// Release puts back what an order holds.
func (s *Server) Release(ctx context.Context, req *inventoryv1.ReleaseRequest) (*inventoryv1.ReleaseResponse, error) {
	back, err := s.inventory.Release(ctx, req.GetOrderId())
	if err != nil {
		return nil, explain(err)
	}
	s.log.InfoContext(ctx, "stock released", "order_id", req.GetOrderId(), "items", len(back))
	out := make([]*commonv1.Item, len(back))
	for i, item := range back {
		out[i] = &commonv1.Item{ProductId: item.ProductID, Quantity: item.Quantity}
	}
	return &inventoryv1.ReleaseResponse{Items: out}, nil
}

func encodeStock(s domain.Stock) *inventoryv1.Stock {
	return &inventoryv1.Stock{ProductId: s.ProductID, OnHand: s.OnHand}
}

func explain(err error) error {
	if errors.Is(err, domain.ErrInvalid) {
		return transport.Errorf(transport.InvalidArgument, "RESERVATION_INVALID", "%s", err.Error()).WithCause(err)
	}
	return err
}
