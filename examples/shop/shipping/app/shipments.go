// Package app holds what the shipping service does: book one parcel for an order and take the booking back once,
// whatever is lost on the way to the carrier.
//
//	shipments := app.New(store, carrier)
//	s, err := shipments.Create(ctx, app.Call{Base: "place-1/ship"}, domain.Shipment{OrderID: "1", Address: to})
//	if errors.Is(err, app.ErrUnknown) {
//		// ask again with the same key: the carrier answers what it did the first time
//	}
//
// The carrier is never called inside a database transaction: an intent is committed first, then the carrier is asked
// under a stable key, then the answer is committed. A crash between any two of these leaves a state from which a
// repeated call goes on.
package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/armature-go/armature/examples/shop/shipping/domain"
)

var (
	// ErrUnshippable means the carrier does not deliver there: repeating cannot help and nothing is to be undone.
	ErrUnshippable = errors.New("shipping: address rejected")
	// ErrUnknown means the carrier did not answer: the effect may have happened, and a repeat with the same key finds
	// out.
	ErrUnknown = errors.New("shipping: outcome unknown")
	// ErrUndone means the booking was already taken back, so that it must not happen any more.
	ErrUndone = errors.New("shipping: booking already undone")
	// ErrNotFound means the order has no shipment.
	ErrNotFound = errors.New("shipping: not found")
	// ErrConflict means the order already has a shipment under another key.
	ErrConflict = errors.New("shipping: order already has a shipment")
)

// Call identifies one call of a participant: the key without its direction, and whether the call takes back what the
// same key did.
type Call struct {
	Base string
	Undo bool
}

// Store keeps shipments. Every method commits before it returns, and every change is guarded by the state it starts
// from, so that of two racing callers one changes the row and the other reads what it became.
type Store interface {
	// Open records a pending shipment once per call key and answers the order's shipment as it stands. It fails with
	// ErrUndone when the call was undone before it came, and ErrConflict when another key opened the shipment.
	Open(ctx context.Context, call Call, s domain.Shipment) (domain.Shipment, error)
	// BeginCancel moves the order's shipment to cancelling once per call key, where its state allows that, and answers
	// the shipment as it stands; ErrNotFound when there is none.
	BeginCancel(ctx context.Context, call Call, orderID string) (domain.Shipment, error)
	// SetCreated, SetRejected and SetCancelled commit the carrier's answer with the event that tells it. SetCreated
	// keeps the tracking number of a shipment that is being cancelled without moving it.
	SetCreated(ctx context.Context, orderID, tracking string) (domain.Shipment, error)
	SetRejected(ctx context.Context, orderID, reason string) (domain.Shipment, error)
	SetCancelled(ctx context.Context, orderID string) (domain.Shipment, error)
	// Get answers ErrNotFound for an order without a shipment.
	Get(ctx context.Context, orderID string) (domain.Shipment, error)
}

// Carrier is the company outside the shop that moves parcels. It has one effect per key and answers a repeated key as
// the first time. An error that is not ErrUnshippable leaves the outcome unknown.
type Carrier interface {
	Book(ctx context.Context, key string, s domain.Shipment) (tracking string, err error)
	Cancel(ctx context.Context, key string, s domain.Shipment) error
}

// Shipments is the use cases. It is safe for concurrent use.
type Shipments struct {
	store   Store
	carrier Carrier
}

// New returns the use cases over store and carrier.
func New(store Store, carrier Carrier) *Shipments {
	return &Shipments{store: store, carrier: carrier}
}

// Create books the parcel, once per key. It returns ErrUnshippable for a refusal, ErrUnknown when the same call has to
// be repeated, ErrUndone when the booking was taken back already.
func (s *Shipments) Create(ctx context.Context, call Call, ship domain.Shipment) (domain.Shipment, error) {
	ship.State, ship.Key = domain.Pending, call.Base
	ship, err := s.store.Open(ctx, call, ship)
	if err != nil {
		return domain.Shipment{}, err
	}
	if ship.State == domain.Pending {
		if ship, err = s.settle(ctx, ship); err != nil {
			return domain.Shipment{}, err
		}
	}
	switch ship.State {
	case domain.Created:
		return ship, nil
	case domain.Rejected:
		return ship, fmt.Errorf("%w: %s", ErrUnshippable, ship.Reason)
	default:
		return ship, ErrUndone
	}
}

// settle learns from the carrier what became of the booking and commits it.
func (s *Shipments) settle(ctx context.Context, ship domain.Shipment) (domain.Shipment, error) {
	tracking, err := s.carrier.Book(ctx, ship.Key, ship)
	switch {
	case errors.Is(err, ErrUnshippable):
		return s.store.SetRejected(ctx, ship.OrderID, "UNSHIPPABLE")
	case err != nil:
		return ship, fmt.Errorf("%w: book order %s: %w", ErrUnknown, ship.OrderID, err)
	default:
		return s.store.SetCreated(ctx, ship.OrderID, tracking)
	}
}

// Cancel takes the order's booking back and reports found = false when there is none. A booking whose outcome nobody
// knows is repeated first, with its own key, to learn it. ErrUnknown asks for a repeat.
func (s *Shipments) Cancel(ctx context.Context, call Call, orderID string) (ship domain.Shipment, found bool, err error) {
	ship, err = s.store.BeginCancel(ctx, call, orderID)
	if errors.Is(err, ErrNotFound) {
		return domain.Shipment{}, false, nil
	}
	if err != nil {
		return domain.Shipment{}, false, err
	}
	if ship.State == domain.Cancelling && ship.Tracking == "" {
		if ship, err = s.settle(ctx, ship); err != nil {
			return domain.Shipment{}, true, err
		}
	}
	if ship.State == domain.Cancelling {
		if err := s.carrier.Cancel(ctx, ship.CancelKey(), ship); err != nil {
			return domain.Shipment{}, true, fmt.Errorf("%w: cancel order %s: %w", ErrUnknown, orderID, err)
		}
		if ship, err = s.store.SetCancelled(ctx, orderID); err != nil {
			return domain.Shipment{}, true, err
		}
	}
	if !ship.State.Final() {
		return domain.Shipment{}, true, fmt.Errorf("%w: order %s is %s", ErrUnknown, orderID, ship.State)
	}
	return ship, true, nil
}

// Get returns the shipment of an order, or ErrNotFound.
func (s *Shipments) Get(ctx context.Context, orderID string) (domain.Shipment, error) {
	return s.store.Get(ctx, orderID)
}
