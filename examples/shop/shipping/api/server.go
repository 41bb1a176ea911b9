// Package api serves the shipping service over gRPC.
//
//	shippingv1.RegisterShippingServiceServer(svc.GRPC, api.New(shipments, svc.Logger))
//
// Refusals are FAILED_PRECONDITION. Unknown outcomes are ABORTED with reason OUTCOME_UNKNOWN: repeat with the same key.
// Bookings that were undone before they came are ABORTED with reason UNDONE. Addresses are never logged.
package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/armature-go/armature/examples/shop/platform"
	shippingv1 "github.com/armature-go/armature/examples/shop/proto/shipping/v1"
	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/domain"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/transport"
)

// Server is the gRPC face of app.Shipments. It is safe for concurrent use.
type Server struct {
	shippingv1.UnimplementedShippingServiceServer
	shipments *app.Shipments
	log       *slog.Logger
}

// New returns a server over shipments.
func New(shipments *app.Shipments, log *slog.Logger) *Server {
	return &Server{shipments: shipments, log: log}
}

// CreateShipment implements shippingv1.ShippingServiceServer.
func (s *Server) CreateShipment(ctx context.Context, req *shippingv1.CreateShipmentRequest) (*shippingv1.CreateShipmentResponse, error) {
	base, op, err := platform.Key(ctx)
	if err != nil {
		return nil, err
	}
	var wrong []transport.Violation
	if req.GetOrderId() == "" {
		wrong = append(wrong, transport.Violation{Pointer: "/order_id", Detail: "must not be empty"})
	}
	if req.GetAddress().GetCountry() == "" {
		wrong = append(wrong, transport.Violation{Pointer: "/address/country", Detail: "must not be empty"})
	}
	if len(req.GetItems()) == 0 {
		wrong = append(wrong, transport.Violation{Pointer: "/items", Detail: "must hold at least one item"})
	}
	if op != saga.OpDo {
		wrong = append(wrong, transport.Violation{Pointer: "", Detail: "the idempotency key is the key of an undo"})
	}
	if len(wrong) > 0 {
		return nil, transport.Invalid(wrong...)
	}
	ship := domain.Shipment{OrderID: req.GetOrderId(), Address: domain.Address{
		Name: req.GetAddress().GetName(), Line1: req.GetAddress().GetLine1(), City: req.GetAddress().GetCity(),
		Postcode: req.GetAddress().GetPostcode(), Country: req.GetAddress().GetCountry(),
	}}
	for _, item := range req.GetItems() {
		ship.Items = append(ship.Items, domain.Item{ProductID: item.GetProductId(), Quantity: item.GetQuantity()})
	}
	ship, err = s.shipments.Create(ctx, app.Call{Base: base}, ship)
	if err != nil {
		s.log.InfoContext(ctx, "shipment failed", "order_id", req.GetOrderId(), "error", err.Error())
		return nil, failure(err)
	}
	s.log.InfoContext(ctx, "shipment created", "order_id", ship.OrderID, "tracking", ship.Tracking)
	return &shippingv1.CreateShipmentResponse{Shipment: wire(ship)}, nil
}

// CancelShipment implements shippingv1.ShippingServiceServer.
func (s *Server) CancelShipment(ctx context.Context, req *shippingv1.CancelShipmentRequest) (*shippingv1.CancelShipmentResponse, error) {
	base, op, err := platform.Key(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetOrderId() == "" {
		return nil, transport.Invalid(transport.Violation{Pointer: "/order_id", Detail: "must not be empty"})
	}
	ship, found, err := s.shipments.Cancel(ctx, app.Call{Base: base, Undo: op == saga.OpUndo}, req.GetOrderId())
	if err != nil {
		s.log.WarnContext(ctx, "cancellation failed", "order_id", req.GetOrderId(), "error", err.Error())
		return nil, failure(err)
	}
	if !found {
		s.log.InfoContext(ctx, "nothing to cancel", "order_id", req.GetOrderId())
		return &shippingv1.CancelShipmentResponse{}, nil
	}
	s.log.InfoContext(ctx, "shipment taken back", "order_id", ship.OrderID, "state", string(ship.State))
	return &shippingv1.CancelShipmentResponse{Shipment: wire(ship)}, nil
}

// GetShipment implements shippingv1.ShippingServiceServer.
func (s *Server) GetShipment(ctx context.Context, req *shippingv1.GetShipmentRequest) (*shippingv1.GetShipmentResponse, error) {
	ship, err := s.shipments.Get(ctx, req.GetOrderId())
	if err != nil {
		return nil, failure(err)
	}
	return &shippingv1.GetShipmentResponse{Shipment: wire(ship)}, nil
}

func failure(err error) error {
	switch {
	case errors.Is(err, app.ErrUnshippable):
		return transport.Errorf(transport.FailedPrecondition, "UNSHIPPABLE", "the carrier does not deliver there").WithCause(err)
	case errors.Is(err, app.ErrUndone):
		return transport.Errorf(transport.Aborted, platform.ReasonUndone, "the booking was undone").WithCause(err)
	case errors.Is(err, app.ErrConflict):
		return transport.Errorf(transport.AlreadyExists, "SHIPMENT_EXISTS", "the order already has a shipment").WithCause(err)
	case errors.Is(err, app.ErrNotFound):
		return transport.Errorf(transport.NotFound, "SHIPMENT_NOT_FOUND", "the order has no shipment").WithCause(err)
	case errors.Is(err, app.ErrUnknown):
		// Not UNAVAILABLE: this service is well, and callers' breakers need not open.
		return transport.Errorf(transport.Aborted, "OUTCOME_UNKNOWN", "the carrier did not answer").WithCause(err)
	}
	return err
}

func wire(s domain.Shipment) *shippingv1.Shipment {
	return &shippingv1.Shipment{
		OrderId: s.OrderID, State: wireState(s.State), Tracking: s.Tracking,
		CreatedAt: timestamppb.New(s.CreatedAt), UpdatedAt: timestamppb.New(s.UpdatedAt),
	}
}

func wireState(s domain.State) shippingv1.ShipmentState {
	switch s {
	case domain.Pending:
		return shippingv1.ShipmentState_SHIPMENT_STATE_PENDING
	case domain.Created:
		return shippingv1.ShipmentState_SHIPMENT_STATE_CREATED
	case domain.Rejected:
		return shippingv1.ShipmentState_SHIPMENT_STATE_REJECTED
	case domain.Cancelling:
		return shippingv1.ShipmentState_SHIPMENT_STATE_CANCELLING
	case domain.Cancelled:
		return shippingv1.ShipmentState_SHIPMENT_STATE_CANCELLED
	default:
		return shippingv1.ShipmentState_SHIPMENT_STATE_UNSPECIFIED
	}
}
