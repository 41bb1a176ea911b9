// Package app holds what the payment service does: charge an order once and give the money back once, whatever is
// lost on the way to the card processor.
//
//	payments := app.New(store, processor)
//	p, err := payments.Charge(ctx, "place-1/charge", domain.Payment{OrderID: "1", Amount: total, Card: "tok_visa"})
//	if errors.Is(err, app.ErrUnknown) {
//		// ask again with the same key: the processor answers what it did the first time
//	}
//
// The processor is never called inside a database transaction: an intent is committed first, then the processor is
// asked under a stable key, then the answer is committed. A crash between any two of these leaves a state from which
// a repeated call goes on.
package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/armature-go/armature/examples/shop/payment/domain"
)

var (
	// ErrDeclined means the processor refused the card: repeating cannot help and nothing is to be undone.
	ErrDeclined = errors.New("payment: card declined")
	// ErrUnknown means the processor did not answer: the effect may have happened, and a repeat with the same key
	// finds out.
	ErrUnknown = errors.New("payment: outcome unknown")
	// ErrUndone means the charge was already taken back, so that it must not happen any more.
	ErrUndone = errors.New("payment: charge already undone")
	// ErrNotFound means the order has no payment.
	ErrNotFound = errors.New("payment: not found")
	// ErrConflict means the order already has a payment under another key.
	ErrConflict = errors.New("payment: order already has a payment")
)

// Call identifies one call of a participant: the key without its direction, and whether the call takes back what the
// same key did.
type Call struct {
	Base string
	Undo bool
}

// Store keeps payments. Every method commits before it returns, and every change is guarded by the state it starts
// from, so that of two racing callers one changes the row and the other reads what it became.
type Store interface {
	// Open records a pending payment once per call key and answers the order's payment as it stands. It fails with
	// ErrUndone when the call was undone before it came, and ErrConflict when another key opened the payment.
	Open(ctx context.Context, call Call, p domain.Payment) (domain.Payment, error)
	// BeginRefund moves the order's payment to refunding once per call key, where its state allows that, and answers
	// the payment as it stands; ErrNotFound when there is none.
	BeginRefund(ctx context.Context, call Call, orderID, reason string) (domain.Payment, error)
	// SetCharged, SetDeclined and SetRefunded commit the processor's answer with the event that tells it. SetCharged
	// keeps the charge of a payment that is being refunded without moving it.
	SetCharged(ctx context.Context, orderID, chargeID string) (domain.Payment, error)
	SetDeclined(ctx context.Context, orderID, reason string) (domain.Payment, error)
	SetRefunded(ctx context.Context, orderID, refundID string) (domain.Payment, error)
	// Get answers ErrNotFound for an order without a payment.
	Get(ctx context.Context, orderID string) (domain.Payment, error)
}

// Processor is the card processor outside the shop. It has one effect per key and answers a repeated key as the first
// time. An error that is not ErrDeclined leaves the outcome unknown.
type Processor interface {
	Charge(ctx context.Context, key string, p domain.Payment) (chargeID string, err error)
	Refund(ctx context.Context, key string, p domain.Payment) (refundID string, err error)
}

// Payments is the use cases. It is safe for concurrent use.
type Payments struct {
	store     Store
	processor Processor
}

// New returns the use cases over store and processor.
func New(store Store, processor Processor) *Payments {
	return &Payments{store: store, processor: processor}
}

// Charge takes the amount of p from its card, once per key. It returns ErrDeclined for a refusal, ErrUnknown when the
// same call has to be repeated, ErrUndone when the money was asked back already.
func (s *Payments) Charge(ctx context.Context, call Call, p domain.Payment) (domain.Payment, error) {
	p.State, p.Key = domain.Pending, call.Base
	p, err := s.store.Open(ctx, call, p)
	if err != nil {
		return domain.Payment{}, err
	}
	if p.State == domain.Pending {
		if p, err = s.settle(ctx, p); err != nil {
			return domain.Payment{}, err
		}
	}
	return p, chargeResult(p)
}

func chargeResult(p domain.Payment) error {
	switch p.State {
	case domain.Charged:
		return nil
	case domain.Declined:
		return fmt.Errorf("%w: %s", ErrDeclined, p.Reason)
	default:
		return ErrUndone
	}
}

// settle learns from the processor what became of the charge and commits it.
func (s *Payments) settle(ctx context.Context, p domain.Payment) (domain.Payment, error) {
	id, err := s.processor.Charge(ctx, p.Key, p)
	switch {
	case errors.Is(err, ErrDeclined):
		return s.store.SetDeclined(ctx, p.OrderID, "CARD_DECLINED")
	case err != nil:
		return p, fmt.Errorf("%w: charge order %s: %w", ErrUnknown, p.OrderID, err)
	default:
		return s.store.SetCharged(ctx, p.OrderID, id)
	}
}

// Refund gives back what the order was charged and reports found = false when there is no payment to give back. A
// charge whose outcome nobody knows is repeated first, with its own key, to learn it. ErrUnknown asks for a repeat.
func (s *Payments) Refund(ctx context.Context, call Call, orderID, reason string) (p domain.Payment, found bool, err error) {
	p, err = s.store.BeginRefund(ctx, call, orderID, reason)
	if errors.Is(err, ErrNotFound) {
		return domain.Payment{}, false, nil
	}
	if err != nil {
		return domain.Payment{}, false, err
	}
	if p.State == domain.Refunding && p.ChargeID == "" {
		if p, err = s.settle(ctx, p); err != nil {
			return domain.Payment{}, true, err
		}
	}
	if p.State == domain.Refunding {
		id, err := s.processor.Refund(ctx, p.RefundKey(), p)
		if err != nil {
			return domain.Payment{}, true, fmt.Errorf("%w: refund order %s: %w", ErrUnknown, orderID, err)
		}
		if p, err = s.store.SetRefunded(ctx, orderID, id); err != nil {
			return domain.Payment{}, true, err
		}
	}
	if !p.State.Final() {
		return domain.Payment{}, true, fmt.Errorf("%w: order %s is %s", ErrUnknown, orderID, p.State)
	}
	return p, true, nil
}

// Get returns the payment of an order, or ErrNotFound.
func (s *Payments) Get(ctx context.Context, orderID string) (domain.Payment, error) {
	return s.store.Get(ctx, orderID)
}
