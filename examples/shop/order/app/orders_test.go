package app_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
)

// table is a Store in memory.
type table struct {
	mu     sync.Mutex
	orders map[string]domain.Order
	keys   map[string]string // customer and key -> order
	prints map[string]string // order -> fingerprint
}

func newTable() *table {
	return &table{orders: map[string]domain.Order{}, keys: map[string]string{}, prints: map[string]string{}}
}

func (s *table) ByKey(_ context.Context, p app.Placement) (domain.Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.keys[p.CustomerID+" "+p.Key]
	switch {
	case !ok:
		return domain.Order{}, app.ErrNotFound
	case s.prints[id] != p.Fingerprint():
		return domain.Order{}, app.ErrKeyReused
	}
	return s.orders[id], nil
}

func (s *table) Place(ctx context.Context, o domain.Order, p app.Placement) (domain.Order, error) {
	if o, err := s.ByKey(ctx, p); !errors.Is(err, app.ErrNotFound) {
		return o, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[o.ID], s.prints[o.ID] = o, p.Fingerprint()
	s.keys[p.CustomerID+" "+p.Key] = o.ID
	return o, nil
}

func (s *table) Get(_ context.Context, id string) (domain.Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders[id]
	if !ok {
		return domain.Order{}, app.ErrNotFound
	}
	return o, nil
}

func (s *table) List(context.Context, string, int) ([]domain.Order, error) { return nil, nil }

func (s *table) BeginRefund(context.Context, string) (domain.Order, error) {
	return domain.Order{}, app.ErrNotRefundable
}

func (s *table) set(id string, status domain.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[id]
	o.ID, o.Status = id, status
	s.orders[id] = o
}

type customers struct{}

func (customers) Check(_ context.Context, id string) error {
	if id != "cust-01" {
		return &domain.RuleError{Pointer: "/customer_id", Rule: "must be a known customer"}
	}
	return nil
}

// catalog sells everything for one euro, until it is closed.
type catalog struct{ closed bool }

func (c *catalog) Prices(_ context.Context, lines []domain.Line) ([]domain.Line, error) {
	if c.closed {
		return nil, errors.New("catalog is closed")
	}
	priced := make([]domain.Line, len(lines))
	for i, line := range lines {
		line.Price = money.EUR(100)
		priced[i] = line
	}
	return priced, nil
}

func newOrders(prices *catalog) (*app.Orders, *table, *app.Changes) {
	store, changes, ids := newTable(), &app.Changes{}, 0
	return app.New(app.Config{
		Store: store, Customers: customers{}, Catalog: prices, Changes: changes,
		NewID: func() string { ids++; return "o-" + strconv.Itoa(ids) },
	}), store, changes
}

func wish(key string, quantity int64) app.Placement {
	return app.Placement{
		Key: key, CustomerID: "cust-01", Card: "tok_visa",
		Lines:   []domain.Line{{ProductID: "sku-mug", Quantity: quantity}},
		Address: domain.Address{Name: "Ada", Country: "DE"},
	}
}

func TestPlaceIsOneOrderPerKey(t *testing.T) {
	t.Parallel()
	prices := &catalog{}
	orders, store, _ := newOrders(prices)
	first, err := orders.Place(t.Context(), wish("k1", 2))
	if err != nil {
		t.Fatal(err)
	}
	if first.Status != domain.Pending || first.Total != money.EUR(200) {
		t.Errorf("Place = %s %s, want pending 2.00 EUR", first.Status, first.Total)
	}
	prices.closed = true // a repeat needs no prices
	again, err := orders.Place(t.Context(), wish("k1", 2))
	if err != nil || again.ID != first.ID {
		t.Errorf("repeated Place = %s, %v, want %s", again.ID, err, first.ID)
	}
	if _, err := orders.Place(t.Context(), wish("k1", 3)); !errors.Is(err, app.ErrKeyReused) {
		t.Errorf("Place of another wish under the same key = %v, want %v", err, app.ErrKeyReused)
	}
	if len(store.orders) != 1 {
		t.Errorf("%d orders are stored, want 1", len(store.orders))
	}
}

func TestPlaceStoresNothingForABadWish(t *testing.T) {
	t.Parallel()
	stranger := wish("k", 1)
	stranger.CustomerID = "nobody"
	for name, p := range map[string]app.Placement{"stranger": stranger, "negative quantity": wish("k", -1), "no items": {CustomerID: "cust-01", Key: "k"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			orders, store, _ := newOrders(&catalog{})
			var rule *domain.RuleError
			if _, err := orders.Place(t.Context(), p); !errors.As(err, &rule) {
				t.Errorf("Place = %v, want a rule", err)
			}
			if len(store.orders) != 0 {
				t.Errorf("%d orders are stored, want 0", len(store.orders))
			}
		})
	}
}

func TestWaitReturnsWhenTheOrderRests(t *testing.T) {
	t.Parallel()
	for _, status := range []domain.Status{domain.Confirmed, domain.Cancelled, domain.Refunded} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				orders, store, changes := newOrders(&catalog{})
				store.set("o-1", domain.Pending)
				start := time.Now()
				time.AfterFunc(3*time.Second, func() {
					store.set("o-1", status)
					changes.Announce("o-1")
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				o, err := orders.Wait(ctx, "o-1")
				if err != nil || o.Status != status {
					t.Errorf("Wait = %s, %v, want %s", o.Status, err, status)
				}
				if waited := time.Since(start); waited != 3*time.Second {
					t.Errorf("Wait took %s, want 3s: the announcement must wake it", waited)
				}
			})
		})
	}
}

func TestWaitFindsChangesOfOtherProcesses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		orders, store, _ := newOrders(&catalog{})
		store.set("o-1", domain.Pending)
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { store.set("o-1", domain.Confirmed) })
		if o, err := orders.Wait(t.Context(), "o-1"); err != nil || o.Status != domain.Confirmed {
			t.Errorf("Wait = %s, %v, want confirmed", o.Status, err)
		}
		if waited := time.Since(start); waited > 3*time.Second+250*time.Millisecond {
			t.Errorf("Wait took %s, want at most one poll after 3s", waited)
		}
	})
}

func TestWaitAnswersBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{50 * time.Millisecond, time.Second, 30 * time.Second} {
		t.Run(limit.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				orders, store, _ := newOrders(&catalog{})
				store.set("o-1", domain.Pending)
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				o, err := orders.Wait(ctx, "o-1")
				if err != nil || o.Status != domain.Pending {
					t.Errorf("Wait = %s, %v, want pending", o.Status, err)
				}
				if ctx.Err() != nil {
					t.Error("Wait returned after the deadline")
				}
			})
		})
	}
}

func TestWaitForAnUnknownOrder(t *testing.T) {
	t.Parallel()
	orders, _, _ := newOrders(&catalog{})
	if _, err := orders.Wait(t.Context(), "o-9"); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("Wait = %v, want %v", err, app.ErrNotFound)
	}
}

func TestChangesForgetsWatchers(t *testing.T) {
	t.Parallel()
	var changes app.Changes
	a, stopA := changes.Watch("1")
	b, stopB := changes.Watch("1")
	stopA()
	changes.Announce("1")
	changes.Announce("1") // a second announcement must not block
	stopB()
	changes.Announce("1")
	select {
	case <-a:
		t.Error("a stopped watcher was woken")
	default:
	}
	select {
	case <-b:
	default:
		t.Error("the watcher was not woken")
	}
}
