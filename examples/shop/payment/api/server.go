// Package api serves the payment service over gRPC.
//
//	paymentv1.RegisterPaymentServiceServer(svc.GRPC, api.New(payments, svc.Logger))
//
// Refusals are FAILED_PRECONDITION. Unknown outcomes are ABORTED with reason OUTCOME_UNKNOWN: repeat with the same key.
// Charges that were undone before they came are ABORTED with reason UNDONE.
package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	paymentv1 "github.com/armature-go/armature/examples/shop/proto/payment/v1"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/transport"
)

// Server is the gRPC face of app.Payments. It is safe for concurrent use.
type Server struct {
	paymentv1.UnimplementedPaymentServiceServer
	payments *app.Payments
	log      *slog.Logger
}

// New returns a server over payments.
func New(payments *app.Payments, log *slog.Logger) *Server {
	return &Server{payments: payments, log: log}
}

// Charge implements paymentv1.PaymentServiceServer.
func (s *Server) Charge(ctx context.Context, req *paymentv1.ChargeRequest) (*paymentv1.ChargeResponse, error) {
	base, op, err := platform.Key(ctx)
	if err != nil {
		return nil, err
	}
	amount := money.Amount{Minor: req.GetAmount().GetMinor(), Currency: req.GetAmount().GetCurrency()}
	var wrong []transport.Violation
	if req.GetOrderId() == "" {
		wrong = append(wrong, transport.Violation{Pointer: "/order_id", Detail: "must not be empty"})
	}
	if req.GetCardToken() == "" {
		wrong = append(wrong, transport.Violation{Pointer: "/card_token", Detail: "must not be empty"})
	}
	if err := amount.Validate(); err != nil {
		wrong = append(wrong, transport.Violation{Pointer: "/amount", Detail: "must be an amount of a currency, not negative"})
	}
	if op != saga.OpDo {
		wrong = append(wrong, transport.Violation{Pointer: "", Detail: "the idempotency key is the key of an undo"})
	}
	if len(wrong) > 0 {
		return nil, transport.Invalid(wrong...)
	}
	p, err := s.payments.Charge(ctx, app.Call{Base: base}, domain.Payment{
		OrderID: req.GetOrderId(), CustomerID: req.GetCustomerId(), Amount: amount, Card: req.GetCardToken(),
	})
	if err != nil {
		s.log.InfoContext(ctx, "charge failed", "order_id", req.GetOrderId(), "error", err.Error())
		return nil, failure(err)
	}
	s.log.InfoContext(ctx, "charged", "order_id", p.OrderID, "amount", p.Amount.String())
	return &paymentv1.ChargeResponse{Payment: wire(p)}, nil
}

// Refund implements paymentv1.PaymentServiceServer.
func (s *Server) Refund(ctx context.Context, req *paymentv1.RefundRequest) (*paymentv1.RefundResponse, error) {
	base, op, err := platform.Key(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetOrderId() == "" {
		return nil, transport.Invalid(transport.Violation{Pointer: "/order_id", Detail: "must not be empty"})
	}
	call := app.Call{Base: base, Undo: op == saga.OpUndo}
	p, found, err := s.payments.Refund(ctx, call, req.GetOrderId(), req.GetReason())
	if err != nil {
		s.log.WarnContext(ctx, "refund failed", "order_id", req.GetOrderId(), "error", err.Error())
		return nil, failure(err)
	}
	if !found {
		s.log.InfoContext(ctx, "nothing to refund", "order_id", req.GetOrderId())
		return &paymentv1.RefundResponse{}, nil
	}
	s.log.InfoContext(ctx, "refunded", "order_id", p.OrderID, "state", string(p.State), "amount", p.Amount.String())
	return &paymentv1.RefundResponse{Payment: wire(p)}, nil
}

// GetPayment implements paymentv1.PaymentServiceServer.
func (s *Server) GetPayment(ctx context.Context, req *paymentv1.GetPaymentRequest) (*paymentv1.GetPaymentResponse, error) {
	p, err := s.payments.Get(ctx, req.GetOrderId())
	if err != nil {
		return nil, failure(err)
	}
	return &paymentv1.GetPaymentResponse{Payment: wire(p)}, nil
}

func failure(err error) error {
	switch {
	case errors.Is(err, app.ErrDeclined):
		return transport.Errorf(transport.FailedPrecondition, "CARD_DECLINED", "the card was declined").WithCause(err)
	case errors.Is(err, app.ErrUndone):
		return transport.Errorf(transport.Aborted, platform.ReasonUndone, "the charge was undone").WithCause(err)
	case errors.Is(err, app.ErrConflict):
		return transport.Errorf(transport.AlreadyExists, "PAYMENT_EXISTS", "the order already has a payment").WithCause(err)
	case errors.Is(err, app.ErrNotFound):
		return transport.Errorf(transport.NotFound, "PAYMENT_NOT_FOUND", "the order has no payment").WithCause(err)
	case errors.Is(err, app.ErrUnknown):
		// Not UNAVAILABLE: this service is well, and callers' breakers need not open.
		return transport.Errorf(transport.Aborted, "OUTCOME_UNKNOWN", "the card processor did not answer").WithCause(err)
	}
	return err
}

func wire(p domain.Payment) *paymentv1.Payment {
	return &paymentv1.Payment{
		OrderId: p.OrderID, CustomerId: p.CustomerID, State: wireState(p.State),
		Amount:    &commonv1.Money{Minor: p.Amount.Minor, Currency: p.Amount.Currency},
		CreatedAt: timestamppb.New(p.CreatedAt), UpdatedAt: timestamppb.New(p.UpdatedAt),
	}
}

func wireState(s domain.State) paymentv1.PaymentState {
	switch s {
	case domain.Pending:
		return paymentv1.PaymentState_PAYMENT_STATE_PENDING
	case domain.Charged:
		return paymentv1.PaymentState_PAYMENT_STATE_CHARGED
	case domain.Declined:
		return paymentv1.PaymentState_PAYMENT_STATE_DECLINED
	case domain.Refunding:
		return paymentv1.PaymentState_PAYMENT_STATE_REFUNDING
	case domain.Refunded:
		return paymentv1.PaymentState_PAYMENT_STATE_REFUNDED
	default:
		return paymentv1.PaymentState_PAYMENT_STATE_UNSPECIFIED
	}
}
