package app_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/domain"
)

// table is a Store in memory with the guards a database gives.
type table struct {
	rows   map[string]domain.Shipment
	done   map[string]bool
	undone map[string]bool
}

func newTable() *table {
	return &table{rows: map[string]domain.Shipment{}, done: map[string]bool{}, undone: map[string]bool{}}
}

func (s *table) Open(_ context.Context, call app.Call, ship domain.Shipment) (domain.Shipment, error) {
	if s.undone[call.Base] {
		return domain.Shipment{}, app.ErrUndone
	}
	row, exists := s.rows[ship.OrderID]
	if exists && row.Key != ship.Key {
		return domain.Shipment{}, app.ErrConflict
	}
	if !exists {
		s.done[call.Base] = true
		s.rows[ship.OrderID] = ship
	}
	return s.rows[ship.OrderID], nil
}

func (s *table) BeginCancel(_ context.Context, call app.Call, orderID string) (domain.Shipment, error) {
	if call.Undo {
		s.undone[call.Base] = true
		if !s.done[call.Base] {
			return domain.Shipment{}, app.ErrNotFound
		}
	}
	return s.move(orderID, domain.Cancelling, func(*domain.Shipment) {})
}

func (s *table) SetCreated(_ context.Context, orderID, tracking string) (domain.Shipment, error) {
	ship, err := s.move(orderID, domain.Created, func(ship *domain.Shipment) { ship.Tracking = tracking })
	if err == nil && ship.State == domain.Cancelling && ship.Tracking == "" {
		ship.Tracking = tracking
		s.rows[orderID] = ship
	}
	return ship, err
}

func (s *table) SetRejected(_ context.Context, orderID, reason string) (domain.Shipment, error) {
	return s.move(orderID, domain.Rejected, func(ship *domain.Shipment) { ship.Reason = reason })
}

func (s *table) SetCancelled(_ context.Context, orderID string) (domain.Shipment, error) {
	return s.move(orderID, domain.Cancelled, func(*domain.Shipment) {})
}

func (s *table) Get(_ context.Context, orderID string) (domain.Shipment, error) {
	ship, ok := s.rows[orderID]
	if !ok {
		return domain.Shipment{}, app.ErrNotFound
	}
	return ship, nil
}

func (s *table) move(orderID string, to domain.State, change func(*domain.Shipment)) (domain.Shipment, error) {
	ship, ok := s.rows[orderID]
	if !ok {
		return domain.Shipment{}, app.ErrNotFound
	}
	if slices.Contains(to.Before(), ship.State) {
		ship.State = to
		change(&ship)
		s.rows[orderID] = ship
	}
	return ship, nil
}

var errLost = errors.New("connection reset")

// carrier keeps a ledger by key and loses answers as told: 'b' before acting, 'a' after.
type carrier struct {
	ledger map[string]int
	faults []byte
}

func (c *carrier) act(key string, parcels int) error {
	fault := byte(0)
	if len(c.faults) > 0 {
		fault, c.faults = c.faults[0], c.faults[1:]
	}
	if fault == 'b' {
		return errLost
	}
	c.ledger[key] = parcels
	if fault == 'a' {
		return errLost
	}
	return nil
}

func (c *carrier) Book(_ context.Context, key string, ship domain.Shipment) (string, error) {
	if ship.Address.Country == "AQ" {
		return "", app.ErrUnshippable
	}
	return "track-" + key, c.act(key, 1)
}

func (c *carrier) Cancel(_ context.Context, key string, _ domain.Shipment) error {
	return c.act(key, -1)
}

func (c *carrier) standing() (sum int) {
	for _, parcels := range c.ledger {
		sum += parcels
	}
	return sum
}

func parcel(country string) domain.Shipment {
	return domain.Shipment{
		OrderID: "1",
		Address: domain.Address{Name: "Ada", Line1: "1 Main St", City: "Berlin", Postcode: "10115", Country: country},
		Items:   []domain.Item{{ProductID: "sku-mug", Quantity: 1}},
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	book := app.Call{Base: "place-1/ship"}
	tests := map[string]struct {
		country  string
		faults   string
		calls    int
		want     error
		state    domain.State
		standing int
	}{
		"books the parcel":                 {country: "DE", calls: 1, state: domain.Created, standing: 1},
		"books it once for a repeated key": {country: "DE", calls: 3, state: domain.Created, standing: 1},
		"rejected is definitive":           {country: "AQ", calls: 2, want: app.ErrUnshippable, state: domain.Rejected},
		"lost before acting is unknown":    {country: "DE", faults: "b", calls: 1, want: app.ErrUnknown, state: domain.Pending},
		"lost after acting is unknown":     {country: "DE", faults: "a", calls: 1, want: app.ErrUnknown, state: domain.Pending, standing: 1},
		"a repeat learns the lost outcome": {country: "DE", faults: "ab", calls: 3, state: domain.Created, standing: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, outside := newTable(), &carrier{ledger: map[string]int{}, faults: []byte(test.faults)}
			shipments := app.New(store, outside)
			var err error
			for range test.calls {
				_, err = shipments.Create(t.Context(), book, parcel(test.country))
			}
			if !errors.Is(err, test.want) {
				t.Errorf("last Create = %v, want %v", err, test.want)
			}
			if got := store.rows["1"].State; got != test.state {
				t.Errorf("state = %s, want %s", got, test.state)
			}
			if got := outside.standing(); got != test.standing {
				t.Errorf("carrier has %d parcels, want %d", got, test.standing)
			}
		})
	}
}

func TestCreateOfAnotherKeyConflicts(t *testing.T) {
	t.Parallel()
	shipments := app.New(newTable(), &carrier{ledger: map[string]int{}})
	if _, err := shipments.Create(t.Context(), app.Call{Base: "a/ship"}, parcel("DE")); err != nil {
		t.Fatal(err)
	}
	if _, err := shipments.Create(t.Context(), app.Call{Base: "b/ship"}, parcel("DE")); !errors.Is(err, app.ErrConflict) {
		t.Errorf("second Create = %v, want %v", err, app.ErrConflict)
	}
}

func TestUndoBeforeCreateLeavesATombstone(t *testing.T) {
	t.Parallel()
	outside := &carrier{ledger: map[string]int{}}
	shipments := app.New(newTable(), outside)
	_, found, err := shipments.Cancel(t.Context(), app.Call{Base: "place-1/ship", Undo: true}, "1")
	if err != nil || found {
		t.Fatalf("Cancel = %t, %v, want not found and no error", found, err)
	}
	if _, err := shipments.Create(t.Context(), app.Call{Base: "place-1/ship"}, parcel("DE")); !errors.Is(err, app.ErrUndone) {
		t.Errorf("late Create = %v, want %v", err, app.ErrUndone)
	}
	if got := outside.standing(); got != 0 {
		t.Errorf("carrier has %d parcels, want 0", got)
	}
}

// Whatever answers are lost, a cancellation that ends leaves no parcel at the carrier, and it is made once although an
// undo and a refund both ask for it.
func TestCancelAlwaysTakesTheParcelBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		faults := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b'}), 0, 8).Draw(t, "faults")
		country := rapid.SampledFrom([]string{"DE", "AQ"}).Draw(t, "country")
		bookings := rapid.IntRange(0, 3).Draw(t, "bookings")
		late := rapid.Bool().Draw(t, "late booking")
		ctx := context.Background()
		book := app.Call{Base: "place-1/ship"}
		outside := &carrier{ledger: map[string]int{}, faults: faults}
		shipments := app.New(newTable(), outside)
		for range bookings {
			_, _ = shipments.Create(ctx, book, parcel(country))
		}
		for _, call := range []app.Call{{Base: book.Base, Undo: true}, {Base: "refund-1/cancel-shipment"}} {
			var err error
			for range 20 {
				if late {
					_, _ = shipments.Create(ctx, book, parcel(country))
				}
				if _, _, err = shipments.Cancel(ctx, call, "1"); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("Cancel %v never ended: %v", call, err)
			}
		}
		if got := outside.standing(); got != 0 {
			t.Fatalf("carrier has %d parcels after the cancellation, want 0; ledger %v", got, outside.ledger)
		}
		if len(outside.ledger) > 2 {
			t.Fatalf("carrier saw %v, want at most one booking and one cancellation", outside.ledger)
		}
	})
}
