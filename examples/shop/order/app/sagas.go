package app

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/armature-go/armature/saga"
)

// Ledger is what the sagas write into the service's own database. Each method changes an order where its status allows
// that and does nothing where another attempt already did.
type Ledger interface {
	// Confirm, Cancel and FinishRefund write the status and its event with tx.
	Confirm(ctx context.Context, tx *sql.Tx, orderID string) error
	Cancel(ctx context.Context, tx *sql.Tx, orderID string) error
	FinishRefund(ctx context.Context, tx *sql.Tx, orderID string) error
	// NoteRefusal keeps why a pending order is about to be cancelled; the first reason stays.
	NoteRefusal(ctx context.Context, orderID, reason string) error
}

// The participants answer a *Refusal for a definitive no; any other error leaves the outcome unknown, and the saga asks
// again with the same key.
type (
	// Inventory sets goods aside.
	Inventory interface {
		Reserve(ctx context.Context, r Request) error
		Release(ctx context.Context, r Request) error
	}
	// Payments moves money.
	Payments interface {
		Charge(ctx context.Context, r Request) error
		Refund(ctx context.Context, r Request) error
	}
	// Shipping books parcels.
	Shipping interface {
		Create(ctx context.Context, r Request) error
		Cancel(ctx context.Context, r Request) error
	}
)

// Sagas is how an order is settled and how it is taken back.
type Sagas struct {
	// Place reserves, charges and ships; a failure undoes what was done, last first, and cancels the order.
	Place *saga.Definition[Request]
	// Refund only goes forward: parcel, money, stock, then the order is refunded.
	Refund *saga.Definition[Request]
}

// NewSagas returns the definitions over their participants.
func NewSagas(ledger Ledger, inventory Inventory, payments Payments, shipping Shipping) (Sagas, error) {
	// step turns a participant's no into a refusal whose reason survives in the order.
	step := func(call func(context.Context, Request) error) func(context.Context, *Request) error {
		return func(ctx context.Context, r *Request) error {
			err := call(ctx, *r)
			var no *Refusal
			if !errors.As(err, &no) {
				return err
			}
			if err := ledger.NoteRefusal(ctx, r.OrderID, no.Reason); err != nil {
				return err
			}
			return saga.Refuse(err)
		}
	}
	undo := func(call func(context.Context, Request) error) func(context.Context, *Request) error {
		return func(ctx context.Context, r *Request) error { return call(ctx, *r) }
	}
	local := func(write func(context.Context, *sql.Tx, string) error) func(context.Context, *sql.Tx, *Request) error {
		return func(ctx context.Context, tx *sql.Tx, r *Request) error { return write(ctx, tx, r.OrderID) }
	}
	// The order was stored by whoever started the saga.
	already := func(context.Context, *sql.Tx, *Request) error { return nil }

	// Some twenty seconds: a neighbour that restarts, or a company outside that is away for a moment, costs no order.
	patience := saga.Backoff{Max: 2 * time.Second, Attempts: 15}
	place, err := saga.Define("place-order", 1,
		saga.LocalStep("accept", already).UndoTx(local(ledger.Cancel)),
		saga.Step("reserve", step(inventory.Reserve)).Undo(undo(inventory.Release)).Retry(patience),
		saga.Step("charge", step(payments.Charge)).Undo(undo(payments.Refund)).Retry(patience),
		saga.Step("ship", step(shipping.Create)).Undo(undo(shipping.Cancel)).Retry(patience).Pivot(),
		saga.LocalStep("confirm", local(ledger.Confirm)),
	)
	if err != nil {
		return Sagas{}, err
	}
	refund, err := saga.Define("refund-order", 1,
		saga.LocalStep("begin", already).NoUndo().Pivot(),
		saga.Step("cancel-shipment", undo(shipping.Cancel)),
		saga.Step("refund", undo(payments.Refund)),
		saga.Step("release", undo(inventory.Release)),
		saga.LocalStep("finish", local(ledger.FinishRefund)),
	)
	if err != nil {
		return Sagas{}, err
	}
	return Sagas{Place: place, Refund: refund}, nil
}
