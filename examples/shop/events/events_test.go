package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/money"
)

var all = []events.Event{
	&events.OrderPlaced{OrderID: "o-1", CustomerID: "cust-01", Items: []events.Item{{ProductID: "sku-tea", Quantity: 2}}, Total: money.EUR(998)},
	&events.OrderConfirmed{OrderID: "o-1", CustomerID: "cust-01", Total: money.EUR(998)},
	&events.OrderCancelled{OrderID: "o-1", CustomerID: "cust-01", Reason: "CARD_DECLINED"},
	&events.OrderRefunded{OrderID: "o-1", CustomerID: "cust-01", Total: money.EUR(998)},
	&events.PaymentCharged{OrderID: "o-1", Amount: money.EUR(998)},
	&events.PaymentDeclined{OrderID: "o-1", Reason: "CARD_DECLINED"},
	&events.PaymentRefunded{OrderID: "o-1", Amount: money.EUR(998)},
	&events.ShipmentCreated{OrderID: "o-1", CustomerID: "cust-01", Tracking: "T1"},
	&events.ShipmentRejected{OrderID: "o-1", Reason: "UNSHIPPABLE"},
	&events.ShipmentCancelled{OrderID: "o-1", Tracking: "T1"},
	&events.InventoryReserved{OrderID: "o-1", Items: []events.Item{{ProductID: "sku-tea", Quantity: 2}}},
	&events.InventoryReleased{OrderID: "o-1", Items: []events.Item{{ProductID: "sku-tea", Quantity: 2}}},
}

func Example() {
	m, err := events.Message("order", events.OrderCancelled{OrderID: "o-1", CustomerID: "cust-01", Reason: "OUT_OF_STOCK"})
	if err != nil {
		panic(err)
	}
	payload, err := events.Decode(m.Type, m.Data)
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Type, m.Key, payload.(*events.OrderCancelled).Reason)
	// Output: shop.order.cancelled.v1 o-1 OUT_OF_STOCK
}

func TestEveryEventComesBackAsSent(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, e := range all {
		t.Run(e.Type(), func(t *testing.T) {
			if seen[e.Type()] {
				t.Fatal("two events share a type")
			}
			seen[e.Type()] = true
			m, err := events.Message("test", e)
			if err != nil {
				t.Fatal(err)
			}
			if m.ID == "" || m.Key != "o-1" || m.Subject != "o-1" || m.Source != "/shop/test" || m.Time.IsZero() {
				t.Errorf("message lacks an attribute: %+v", m)
			}
			got, err := events.Decode(m.Type, m.Data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Errorf("(-sent +read)\n%s", diff)
			}
			noun, _, _ := strings.Cut(strings.TrimPrefix(e.Type(), "shop."), ".")
			if !strings.HasPrefix(e.Topic(), "shop."+noun) {
				t.Errorf("%s goes to %s", e.Type(), e.Topic())
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		typ, data string
		want      error
	}{
		"another version":     {"shop.order.placed.v2", `{"order_id":"o-1"}`, events.ErrUnknownType},
		"no type":             {"", `{"order_id":"o-1"}`, events.ErrUnknownType},
		"no JSON":             {events.TypeOrderPlaced, `{`, events.ErrMalformed},
		"a list":              {events.TypeOrderPlaced, `[]`, events.ErrMalformed},
		"null":                {events.TypeOrderPlaced, `null`, events.ErrMalformed},
		"no order":            {events.TypeOrderPlaced, `{"customer_id":"c"}`, events.ErrMalformed},
		"a quantity in words": {events.TypeInventoryReserved, `{"order_id":"o-1","items":[{"quantity":"two"}]}`, events.ErrMalformed},
		"fractions of a cent": {events.TypePaymentCharged, `{"order_id":"o-1","amount":{"minor":0.5}}`, events.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e, err := events.Decode(c.typ, []byte(c.data)); !errors.Is(err, c.want) {
				t.Fatalf("got %v, %v; want %v", e, err, c.want)
			}
		})
	}
}

func TestNewMembersAreNoNewVersion(t *testing.T) {
	t.Parallel()
	if _, err := events.Decode(events.TypeOrderCancelled, []byte(`{"order_id":"o-1","channel":"web"}`)); err != nil {
		t.Fatal(err)
	}
}

func TestMessageNeedsAnOrder(t *testing.T) {
	t.Parallel()
	if _, err := events.Message("test", events.OrderPlaced{}); !errors.Is(err, events.ErrMalformed) {
		t.Fatalf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range all {
		data, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Type(), data)
	}
	f.Add("shop.order.placed.v9", []byte(`{}`))
	f.Add(events.TypeOrderPlaced, []byte(`{"order_id":"`+strings.Repeat("x", 1000)+`"}`))
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		e, err := events.Decode(typ, data)
		if err != nil {
			if !errors.Is(err, events.ErrUnknownType) && !errors.Is(err, events.ErrMalformed) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if e.Type() != typ || e.Order() == "" {
			t.Fatalf("decoded %q as %s of order %q", typ, e.Type(), e.Order())
		}
		m, err := events.Message("fuzz", e)
		if err != nil {
			t.Fatal(err)
		}
		again, err := events.Decode(m.Type, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("encoding lost something:\n%s", diff)
		}
	})
}
