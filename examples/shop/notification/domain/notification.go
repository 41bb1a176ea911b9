// Package domain holds what a notification is and which event of the shop asks for which, free of databases and
// networks.
//
//	kind, order, customer := domain.For(&events.OrderConfirmed{OrderID: "1", CustomerID: "cust-01"})
//	n := domain.Notification{OrderID: order, Kind: kind, State: domain.Pending}
//	fmt.Println(n.Key()) // confirmed/1
//
// One order gets each kind of mail at most once; Key is what makes the mail server hold that too.
package domain

import (
	"time"

	"github.com/armature-go/armature/examples/shop/events"
)

// Kind is the mail's template.
type Kind string

const (
	// Confirmed tells that the order stands.
	Confirmed Kind = "confirmed"
	// Cancelled tells that nothing will come of it.
	Cancelled Kind = "cancelled"
	// Refunded tells that the money is on its way back.
	Refunded Kind = "refunded"
	// Shipped tells that the parcel is on its way.
	Shipped Kind = "shipped"
	// None means that an event asks for no mail.
	None Kind = ""
)

// State is where a notification stands.
type State string

const (
	// Pending means the mail server did not take the mail yet, or its answer was lost.
	Pending State = "pending"
	// Sent means the mail server took it.
	Sent State = "sent"
)

// Notification is one mail about one order.
type Notification struct {
	ID         string
	OrderID    string
	CustomerID string
	Kind       Kind
	State      State
	CreatedAt  time.Time
	Origin     Origin
}

// Origin is the request that in the end asked for a mail, so that the mail shows up under its trace.
type Origin struct {
	TraceParent   string
	CorrelationID string
}

// Key names the mail towards the mail server, which has one effect per key.
func (n Notification) Key() string { return string(n.Kind) + "/" + n.OrderID }

// For says which mail an event asks for (None for most), about which order, and whose the order is; customerID is
// empty where the event does not say.
func For(e events.Event) (kind Kind, orderID, customerID string) {
	switch e := e.(type) {
	case *events.OrderPlaced:
		return None, e.OrderID, e.CustomerID
	case *events.OrderConfirmed:
		return Confirmed, e.OrderID, e.CustomerID
	case *events.OrderCancelled:
		return Cancelled, e.OrderID, e.CustomerID
	case *events.OrderRefunded:
		return Refunded, e.OrderID, e.CustomerID
	case *events.ShipmentCreated:
		return Shipped, e.OrderID, e.CustomerID
	default:
		return None, e.Order(), ""
	}
}
