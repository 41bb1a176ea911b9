package domain_test

import (
	"testing"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/notification/domain"
)

func TestForNamesTheMailOfEachEvent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		event    events.Event
		kind     domain.Kind
		customer string
	}{
		"placed only tells whose it is": {&events.OrderPlaced{OrderID: "1", CustomerID: "c"}, domain.None, "c"},
		"confirmed":                     {&events.OrderConfirmed{OrderID: "1", CustomerID: "c"}, domain.Confirmed, "c"},
		"cancelled":                     {&events.OrderCancelled{OrderID: "1", CustomerID: "c"}, domain.Cancelled, "c"},
		"refunded":                      {&events.OrderRefunded{OrderID: "1", CustomerID: "c"}, domain.Refunded, "c"},
		"shipped":                       {&events.ShipmentCreated{OrderID: "1"}, domain.Shipped, ""},
		"a cancelled parcel is silent":  {&events.ShipmentCancelled{OrderID: "1"}, domain.None, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind, order, customer := domain.For(test.event)
			if kind != test.kind || order != "1" || customer != test.customer {
				t.Errorf("For = %q, %q, %q, want %q, 1, %q", kind, order, customer, test.kind, test.customer)
			}
		})
	}
}

func TestKeyIsOnePerOrderAndKind(t *testing.T) {
	t.Parallel()
	n := domain.Notification{ID: "x", OrderID: "1", Kind: domain.Confirmed}
	if got := n.Key(); got != "confirmed/1" {
		t.Errorf("Key() = %q, want confirmed/1", got)
	}
}
