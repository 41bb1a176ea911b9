// Package domain holds what a payment is and how it may change, free of databases and networks.
//
//	p := domain.Payment{OrderID: "o-1", State: domain.Pending}
//	if p.State.CanBecome(domain.Charged) {
//		p.State = domain.Charged
//	}
//
// A payment never leaves a final state (declined, refunded).
package domain

import (
	"slices"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
)

// State is where a payment stands.
type State string

const (
	// Pending means the processor was or will be asked, and its answer is not known yet.
	Pending State = "pending"
	// Charged means the processor took the money.
	Charged State = "charged"
	// Declined means the processor refused; no money moved.
	Declined State = "declined"
	// Refunding means the money must go back; whether it had been taken may still be unknown.
	Refunding State = "refunding"
	// Refunded means the processor gave the money back.
	Refunded State = "refunded"
)

// Before lists the states from which s can be reached; the guard of every conditional UPDATE.
func (s State) Before() []State {
	switch s {
	case Charged:
		return []State{Pending}
	case Declined:
		return []State{Pending, Refunding}
	case Refunding:
		return []State{Pending, Charged}
	case Refunded:
		return []State{Refunding}
	default:
		return nil
	}
}

// CanBecome reports whether a payment in s may move to next.
func (s State) CanBecome(next State) bool { return slices.Contains(next.Before(), s) }

// Final reports whether nothing can follow s.
func (s State) Final() bool { return s == Declined || s == Refunded }

// Payment is what one order owes and what became of it.
type Payment struct {
	OrderID    string
	CustomerID string
	Amount     money.Amount
	// Card is the processor's token of the card, never its number.
	Card  string
	State State
	// Key names the call that opened the payment; it is also the key the processor knows the charge by.
	Key string
	// ChargeID is the processor's name for the charge, empty as long as its outcome is unknown.
	ChargeID string
	// RefundID is the processor's name for the refund.
	RefundID string
	// Reason says why the payment was declined or given back.
	Reason    string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// RefundKey is the key the processor knows the refund by. It hangs on the charge and not on the caller, so that two
// callers who want the same money back get one refund.
func (p Payment) RefundKey() string { return p.Key + "/refund" }
