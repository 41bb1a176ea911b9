// Package events names the shop's topics and holds the payloads that travel on them. A payload's type carries its
// version; a reader that meets a type it does not know says so instead of guessing.
//
//	m, err := events.Message("order", events.OrderConfirmed{OrderID: id, CustomerID: customer, Total: total})
//	err = outbox.Publish(ctx, tx, events.TopicOrders, m)               // the producer
//	payload, err := events.Decode(delivery.Message.Type, delivery.Message.Data)
//	switch e := payload.(type) { case *events.OrderConfirmed: ... }    // the consumer
//
// Decode fails with ErrUnknownType for a type of another version and with ErrMalformed for a payload that does not
// hold what its type promises: both are permanent, a redelivery does not help. Unknown members are ignored, so that a
// producer may add one without a new version.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/messaging"
)

// Topics: one per service that emits.
const (
	TopicOrders    = "shop.orders"
	TopicPayments  = "shop.payments"
	TopicShipments = "shop.shipments"
	TopicInventory = "shop.inventory"
)

// Types of the events.
const (
	TypeOrderPlaced       = "shop.order.placed.v1"
	TypeOrderConfirmed    = "shop.order.confirmed.v1"
	TypeOrderCancelled    = "shop.order.cancelled.v1"
	TypeOrderRefunded     = "shop.order.refunded.v1"
	TypePaymentCharged    = "shop.payment.charged.v1"
	TypePaymentDeclined   = "shop.payment.declined.v1"
	TypePaymentRefunded   = "shop.payment.refunded.v1"
	TypeShipmentCreated   = "shop.shipment.created.v1"
	TypeShipmentRejected  = "shop.shipment.rejected.v1"
	TypeShipmentCancelled = "shop.shipment.cancelled.v1"
	TypeInventoryReserved = "shop.inventory.reserved.v1"
	TypeInventoryReleased = "shop.inventory.released.v1"
)

// Errors of Decode, for errors.Is.
var (
	// ErrUnknownType says that the type, or its version, is not one of this package.
	ErrUnknownType = errors.New("events: unknown type")
	// ErrMalformed says that the payload is not JSON or lacks what its type promises.
	ErrMalformed = errors.New("events: malformed payload")
)

// Event is a payload of this package: a pointer when it comes from Decode.
type Event interface {
	// Type is the versioned name, TypeOrderPlaced and so on.
	Type() string
	// Topic is where the event is published.
	Topic() string
	// Order is the id of the order it is about: the message's key, so that one order's events stay in order.
	Order() string
}

// Item is a quantity of a product.
type Item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

// OrderPlaced says that an order was stored and its saga started.
type OrderPlaced struct {
	OrderID    string       `json:"order_id"`
	CustomerID string       `json:"customer_id"`
	Items      []Item       `json:"items"`
	Total      money.Amount `json:"total"`
}

// Type implements [Event].
func (OrderPlaced) Type() string { return TypeOrderPlaced }

// Topic implements [Event].
func (OrderPlaced) Topic() string { return TopicOrders }

// Order implements [Event].
func (e OrderPlaced) Order() string { return e.OrderID }

// OrderConfirmed says that the order is paid and on its way.
type OrderConfirmed struct {
	OrderID    string       `json:"order_id"`
	CustomerID string       `json:"customer_id"`
	Total      money.Amount `json:"total"`
}

// Type implements [Event].
func (OrderConfirmed) Type() string { return TypeOrderConfirmed }

// Topic implements [Event].
func (OrderConfirmed) Topic() string { return TopicOrders }

// Order implements [Event].
func (e OrderConfirmed) Order() string { return e.OrderID }

// OrderCancelled says that the order failed and everything done for it was undone.
type OrderCancelled struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Reason     string `json:"reason"`
}

// Type implements [Event].
func (OrderCancelled) Type() string { return TypeOrderCancelled }

// Topic implements [Event].
func (OrderCancelled) Topic() string { return TopicOrders }

// Order implements [Event].
func (e OrderCancelled) Order() string { return e.OrderID }

// OrderRefunded says that a confirmed order was taken back.
type OrderRefunded struct {
	OrderID    string       `json:"order_id"`
	CustomerID string       `json:"customer_id"`
	Total      money.Amount `json:"total"`
}

// Type implements [Event].
func (OrderRefunded) Type() string { return TypeOrderRefunded }

// Topic implements [Event].
func (OrderRefunded) Topic() string { return TopicOrders }

// Order implements [Event].
func (e OrderRefunded) Order() string { return e.OrderID }

// PaymentCharged says that the card was charged.
type PaymentCharged struct {
	OrderID string       `json:"order_id"`
	Amount  money.Amount `json:"amount"`
}

// Type implements [Event].
func (PaymentCharged) Type() string { return TypePaymentCharged }

// Topic implements [Event].
func (PaymentCharged) Topic() string { return TopicPayments }

// Order implements [Event].
func (e PaymentCharged) Order() string { return e.OrderID }

// PaymentDeclined says that the card was refused.
type PaymentDeclined struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// Type implements [Event].
func (PaymentDeclined) Type() string { return TypePaymentDeclined }

// Topic implements [Event].
func (PaymentDeclined) Topic() string { return TopicPayments }

// Order implements [Event].
func (e PaymentDeclined) Order() string { return e.OrderID }

// PaymentRefunded says that the charge was given back.
type PaymentRefunded struct {
	OrderID string       `json:"order_id"`
	Amount  money.Amount `json:"amount"`
}

// Type implements [Event].
func (PaymentRefunded) Type() string { return TypePaymentRefunded }

// Topic implements [Event].
func (PaymentRefunded) Topic() string { return TopicPayments }

// Order implements [Event].
func (e PaymentRefunded) Order() string { return e.OrderID }

// ShipmentCreated says that the carrier took the parcel. CustomerID lets a reader address the customer without asking
// another service.
type ShipmentCreated struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id,omitempty"`
	Tracking   string `json:"tracking"`
}

// Type implements [Event].
func (ShipmentCreated) Type() string { return TypeShipmentCreated }

// Topic implements [Event].
func (ShipmentCreated) Topic() string { return TopicShipments }

// Order implements [Event].
func (e ShipmentCreated) Order() string { return e.OrderID }

// ShipmentRejected says that the carrier does not go to the address.
type ShipmentRejected struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason"`
}

// Type implements [Event].
func (ShipmentRejected) Type() string { return TypeShipmentRejected }

// Topic implements [Event].
func (ShipmentRejected) Topic() string { return TopicShipments }

// Order implements [Event].
func (e ShipmentRejected) Order() string { return e.OrderID }

// ShipmentCancelled says that the parcel was taken back.
type ShipmentCancelled struct {
	OrderID  string `json:"order_id"`
	Tracking string `json:"tracking"`
}

// Type implements [Event].
func (ShipmentCancelled) Type() string { return TypeShipmentCancelled }

// Topic implements [Event].
func (ShipmentCancelled) Topic() string { return TopicShipments }

// Order implements [Event].
func (e ShipmentCancelled) Order() string { return e.OrderID }

// InventoryReserved says that the items were taken from the stock.
type InventoryReserved struct {
	OrderID string `json:"order_id"`
	Items   []Item `json:"items"`
}

// Type implements [Event].
func (InventoryReserved) Type() string { return TypeInventoryReserved }

// Topic implements [Event].
func (InventoryReserved) Topic() string { return TopicInventory }

// Order implements [Event].
func (e InventoryReserved) Order() string { return e.OrderID }

// InventoryReleased says that the items went back to the stock.
type InventoryReleased struct {
	OrderID string `json:"order_id"`
	Items   []Item `json:"items"`
}

// Type implements [Event].
func (InventoryReleased) Type() string { return TypeInventoryReleased }

// Topic implements [Event].
func (InventoryReleased) Topic() string { return TopicInventory }

// Order implements [Event].
func (e InventoryReleased) Order() string { return e.OrderID }

// Message is the event on its way to the broker: a fresh id, now, the order as key and subject. Source names the
// service that emits ("order"). It fails when the event names no order.
func Message(source string, e Event) (*messaging.Message, error) {
	if e.Order() == "" {
		return nil, fmt.Errorf("events: make message %s: order id is empty: %w", e.Type(), ErrMalformed)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("events: encode %s: %w", e.Type(), err)
	}
	return &messaging.Message{
		ID:          flow.NewID(),
		Type:        e.Type(),
		Source:      "/shop/" + source,
		Subject:     e.Order(),
		Key:         e.Order(),
		ContentType: "application/json",
		Time:        time.Now().UTC(),
		Data:        data,
	}, nil
}

// Decode reads a payload by the type of its message. The result is a pointer to one of this package's structs.
func Decode(typ string, data []byte) (Event, error) {
	e, ok := empty(typ)
	if !ok {
		return nil, fmt.Errorf("events: decode %q: %w", typ, ErrUnknownType)
	}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("events: decode %s: %w: %w", typ, ErrMalformed, err)
	}
	if e.Order() == "" {
		return nil, fmt.Errorf("events: decode %s: order_id is missing: %w", typ, ErrMalformed)
	}
	return e, nil
}

func empty(typ string) (Event, bool) {
	switch typ {
	case TypeOrderPlaced:
		return new(OrderPlaced), true
	case TypeOrderConfirmed:
		return new(OrderConfirmed), true
	case TypeOrderCancelled:
		return new(OrderCancelled), true
	case TypeOrderRefunded:
		return new(OrderRefunded), true
	case TypePaymentCharged:
		return new(PaymentCharged), true
	case TypePaymentDeclined:
		return new(PaymentDeclined), true
	case TypePaymentRefunded:
		return new(PaymentRefunded), true
	case TypeShipmentCreated:
		return new(ShipmentCreated), true
	case TypeShipmentRejected:
		return new(ShipmentRejected), true
	case TypeShipmentCancelled:
		return new(ShipmentCancelled), true
	case TypeInventoryReserved:
		return new(InventoryReserved), true
	case TypeInventoryReleased:
		return new(InventoryReleased), true
	}
	return nil, false
}
