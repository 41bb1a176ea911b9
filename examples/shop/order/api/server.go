// Package api serves the order service over gRPC.
//
//	orderv1.RegisterOrderServiceServer(svc.GRPC, api.New(orders, svc.Logger))
//
// A request that cannot be an order is INVALID_ARGUMENT with the JSON pointers of what is wrong; an unknown order is
// NOT_FOUND.
package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	orderv1 "github.com/armature-go/armature/examples/shop/proto/order/v1"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// listLimit bounds one answer of ListOrders.
const listLimit = 100

// Server is the gRPC face of app.Orders. It is safe for concurrent use.
type Server struct {
	orderv1.UnimplementedOrderServiceServer
	orders *app.Orders
	log    *slog.Logger
}

// New returns a server over orders.
func New(orders *app.Orders, log *slog.Logger) *Server {
	return &Server{orders: orders, log: log}
}

// PlaceOrder implements orderv1.OrderServiceServer.
func (s *Server) PlaceOrder(ctx context.Context, req *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	key := flow.IdempotencyKey(ctx)
	if key == "" {
		return nil, transport.Errorf(transport.InvalidArgument, platform.ReasonKeyMissing, "the call needs an idempotency key")
	}
	if wrong := missing(req); len(wrong) > 0 {
		return nil, transport.Invalid(wrong...)
	}
	p := app.Placement{Key: key, CustomerID: req.GetCustomerId(), Card: req.GetCardToken(), Address: address(req.GetAddress())}
	for _, item := range req.GetItems() {
		p.Lines = append(p.Lines, domain.Line{ProductID: item.GetProductId(), Quantity: item.GetQuantity()})
	}
	o, err := s.orders.Place(ctx, p)
	if err != nil {
		s.log.InfoContext(ctx, "order not placed", "customer_id", p.CustomerID, "error", err.Error())
		return nil, failure(err)
	}
	s.log.InfoContext(ctx, "order placed", "order_id", o.ID, "customer_id", o.CustomerID, "total", o.Total.String())
	return &orderv1.PlaceOrderResponse{Order: wire(o)}, nil
}

func missing(req *orderv1.PlaceOrderRequest) (wrong []transport.Violation) {
	to := req.GetAddress()
	for _, field := range []struct{ pointer, value string }{
		{"/customer_id", req.GetCustomerId()},
		{"/card", req.GetCardToken()},
		{"/address/name", to.GetName()},
		{"/address/line1", to.GetLine1()},
		{"/address/city", to.GetCity()},
		{"/address/postcode", to.GetPostcode()},
		{"/address/country", to.GetCountry()},
	} {
		if field.value == "" {
			wrong = append(wrong, transport.Violation{Pointer: field.pointer, Detail: "must not be empty"})
		}
	}
	return wrong
}

// GetOrder implements orderv1.OrderServiceServer.
func (s *Server) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	o, err := s.orders.Get(ctx, req.GetId())
	if err != nil {
		return nil, failure(err)
	}
	return &orderv1.GetOrderResponse{Order: wire(o)}, nil
}

// ListOrders implements orderv1.OrderServiceServer.
func (s *Server) ListOrders(ctx context.Context, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	orders, err := s.orders.List(ctx, req.GetCustomerId(), listLimit)
	if err != nil {
		return nil, failure(err)
	}
	answer := &orderv1.ListOrdersResponse{}
	for _, o := range orders {
		answer.Orders = append(answer.Orders, wire(o))
	}
	return answer, nil
}

// WaitOrder implements orderv1.OrderServiceServer.
func (s *Server) WaitOrder(ctx context.Context, req *orderv1.WaitOrderRequest) (*orderv1.WaitOrderResponse, error) {
	o, err := s.orders.Wait(ctx, req.GetId())
	if err != nil {
		return nil, failure(err)
	}
	return &orderv1.WaitOrderResponse{Order: wire(o)}, nil
}

// RefundOrder implements orderv1.OrderServiceServer.
func (s *Server) RefundOrder(ctx context.Context, req *orderv1.RefundOrderRequest) (*orderv1.RefundOrderResponse, error) {
	o, err := s.orders.Refund(ctx, req.GetId())
	if err != nil {
		return nil, failure(err)
	}
	s.log.InfoContext(ctx, "refund asked for", "order_id", o.ID, "status", string(o.Status))
	return &orderv1.RefundOrderResponse{Order: wire(o)}, nil
}

func failure(err error) error {
	var rule *domain.RuleError
	switch {
	case errors.As(err, &rule):
		e := transport.Errorf(transport.InvalidArgument, rule.Reason, "the request is invalid")
		return e.WithViolations(transport.Violation{Pointer: rule.Pointer, Detail: rule.Rule})
	case errors.Is(err, money.ErrOverflow), errors.Is(err, money.ErrCurrency):
		e := transport.Errorf(transport.InvalidArgument, "TOTAL_OUT_OF_RANGE", "the total cannot be charged").WithCause(err)
		return e.WithViolations(transport.Violation{Pointer: "/items", Detail: "must add up to an amount in one currency"})
	case errors.Is(err, app.ErrNotFound):
		return transport.Errorf(transport.NotFound, "ORDER_NOT_FOUND", "there is no such order").WithCause(err)
	case errors.Is(err, app.ErrKeyReused):
		return transport.Errorf(transport.Aborted, "IDEMPOTENCY_KEY_REUSED",
			"the idempotency key belongs to another request").WithCause(err)
	case errors.Is(err, app.ErrNotRefundable):
		return transport.Errorf(transport.FailedPrecondition, "ORDER_NOT_REFUNDABLE",
			"only a confirmed order can be refunded").WithCause(err)
	}
	return err
}

func address(a *commonv1.Address) domain.Address {
	return domain.Address{
		Name: a.GetName(), Line1: a.GetLine1(), City: a.GetCity(), Postcode: a.GetPostcode(), Country: a.GetCountry(),
	}
}

func amount(a money.Amount) *commonv1.Money {
	return &commonv1.Money{Minor: a.Minor, Currency: a.Currency}
}

func wire(o domain.Order) *orderv1.Order {
	out := &orderv1.Order{
		Id: o.ID, CustomerId: o.CustomerID, Status: wireStatus(o.Status), Reason: o.Reason, Total: amount(o.Total),
		Address: &commonv1.Address{
			Name: o.Address.Name, Line1: o.Address.Line1, City: o.Address.City,
			Postcode: o.Address.Postcode, Country: o.Address.Country,
		},
		CreatedAt: timestamppb.New(o.CreatedAt), UpdatedAt: timestamppb.New(o.UpdatedAt),
	}
	for _, line := range o.Lines {
		out.Lines = append(out.Lines, &orderv1.Line{
			ProductId: line.ProductID, Quantity: line.Quantity, Price: amount(line.Price),
		})
	}
	return out
}

func wireStatus(s domain.Status) orderv1.OrderStatus {
	switch s {
	case domain.Pending:
		return orderv1.OrderStatus_ORDER_STATUS_PENDING
	case domain.Confirmed:
		return orderv1.OrderStatus_ORDER_STATUS_CONFIRMED
	case domain.Cancelled:
		return orderv1.OrderStatus_ORDER_STATUS_CANCELLED
	case domain.Refunding:
		return orderv1.OrderStatus_ORDER_STATUS_REFUNDING
	case domain.Refunded:
		return orderv1.OrderStatus_ORDER_STATUS_REFUNDED
	default:
		return orderv1.OrderStatus_ORDER_STATUS_UNSPECIFIED
	}
}
