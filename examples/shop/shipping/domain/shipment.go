// Package domain holds what a shipment is and how it may change, free of databases and networks.
//
//	s := domain.Shipment{OrderID: "o-1", State: domain.Pending}
//	if s.State.CanBecome(domain.Created) {
//		s.State = domain.Created
//	}
//
// A shipment never leaves a final state (rejected, cancelled).
package domain

import (
	"slices"
	"time"
)

// State is where a shipment stands.
type State string

const (
	// Pending means the carrier was or will be asked, and its answer is not known yet.
	Pending State = "pending"
	// Created means the carrier booked the parcel.
	Created State = "created"
	// Rejected means the carrier does not deliver there; nothing was booked.
	Rejected State = "rejected"
	// Cancelling means the booking must be taken back; whether it had been made may still be unknown.
	Cancelling State = "cancelling"
	// Cancelled means the carrier took the booking back.
	Cancelled State = "cancelled"
)

// Before lists the states from which s can be reached; the guard of every conditional UPDATE.
func (s State) Before() []State {
	switch s {
	case Created:
		return []State{Pending}
	case Rejected:
		return []State{Pending, Cancelling}
	case Cancelling:
		return []State{Pending, Created}
	case Cancelled:
		return []State{Cancelling}
	default:
		return nil
	}
}

// CanBecome reports whether a shipment in s may move to next.
func (s State) CanBecome(next State) bool { return slices.Contains(next.Before(), s) }

// Final reports whether nothing can follow s.
func (s State) Final() bool { return s == Rejected || s == Cancelled }

// Address is where the parcel goes.
type Address struct {
	Name, Line1, City, Postcode, Country string
}

// Item is a quantity of one product in the parcel.
type Item struct {
	ProductID string
	Quantity  int64
}

// Shipment is the parcel of one order.
type Shipment struct {
	OrderID string
	Address Address
	Items   []Item
	State   State
	// Key names the call that opened the shipment; it is also the key the carrier knows the booking by.
	Key string
	// Tracking is the carrier's number, empty as long as the outcome of the booking is unknown.
	Tracking  string
	Reason    string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// CancelKey is the key the carrier knows the cancellation by. It hangs on the booking and not on the caller, so that
// two callers who cancel the same parcel make one cancellation.
func (s Shipment) CancelKey() string { return s.Key + "/cancel" }
