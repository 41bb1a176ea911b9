package app_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/domain"
)

// table is a Store in memory with the guards a database gives.
type table struct {
	rows   map[string]domain.Payment
	done   map[string]bool
	undone map[string]bool
}

func newTable() *table {
	return &table{rows: map[string]domain.Payment{}, done: map[string]bool{}, undone: map[string]bool{}}
}

func (s *table) Open(_ context.Context, call app.Call, p domain.Payment) (domain.Payment, error) {
	if s.undone[call.Base] {
		return domain.Payment{}, app.ErrUndone
	}
	row, exists := s.rows[p.OrderID]
	if exists && row.Key != p.Key {
		return domain.Payment{}, app.ErrConflict
	}
	if !exists {
		s.done[call.Base] = true
		s.rows[p.OrderID] = p
	}
	return s.rows[p.OrderID], nil
}

func (s *table) BeginRefund(_ context.Context, call app.Call, orderID, reason string) (domain.Payment, error) {
	if call.Undo {
		s.undone[call.Base] = true
		if !s.done[call.Base] {
			return domain.Payment{}, app.ErrNotFound
		}
	}
	return s.move(orderID, domain.Refunding, func(p *domain.Payment) { p.Reason = reason })
}

func (s *table) SetCharged(ctx context.Context, orderID, chargeID string) (domain.Payment, error) {
	p, err := s.move(orderID, domain.Charged, func(p *domain.Payment) { p.ChargeID = chargeID })
	if err == nil && p.State == domain.Refunding && p.ChargeID == "" {
		p.ChargeID = chargeID
		s.rows[orderID] = p
	}
	return p, err
}

func (s *table) SetDeclined(_ context.Context, orderID, reason string) (domain.Payment, error) {
	return s.move(orderID, domain.Declined, func(p *domain.Payment) { p.Reason = reason })
}

func (s *table) SetRefunded(_ context.Context, orderID, refundID string) (domain.Payment, error) {
	return s.move(orderID, domain.Refunded, func(p *domain.Payment) { p.RefundID = refundID })
}

func (s *table) Get(_ context.Context, orderID string) (domain.Payment, error) {
	p, ok := s.rows[orderID]
	if !ok {
		return domain.Payment{}, app.ErrNotFound
	}
	return p, nil
}

func (s *table) move(orderID string, to domain.State, change func(*domain.Payment)) (domain.Payment, error) {
	p, ok := s.rows[orderID]
	if !ok {
		return domain.Payment{}, app.ErrNotFound
	}
	if slices.Contains(to.Before(), p.State) {
		p.State = to
		change(&p)
		s.rows[orderID] = p
	}
	return p, nil
}

var errLost = errors.New("connection reset")

// processor keeps a ledger by key and loses answers as told: 'b' before acting, 'a' after.
type processor struct {
	ledger map[string]int64
	faults []byte
}

func (p *processor) act(key string, minor int64) error {
	fault := byte(0)
	if len(p.faults) > 0 {
		fault, p.faults = p.faults[0], p.faults[1:]
	}
	if fault == 'b' {
		return errLost
	}
	p.ledger[key] = minor
	if fault == 'a' {
		return errLost
	}
	return nil
}

func (p *processor) Charge(_ context.Context, key string, pay domain.Payment) (string, error) {
	if pay.Card == "tok_declined" {
		return "", app.ErrDeclined
	}
	return "ch-" + key, p.act(key, pay.Amount.Minor)
}

func (p *processor) Refund(_ context.Context, key string, pay domain.Payment) (string, error) {
	return "re-" + key, p.act(key, -pay.Amount.Minor)
}

func (p *processor) balance() (sum int64) {
	for _, minor := range p.ledger {
		sum += minor
	}
	return sum
}

func order(card string) domain.Payment {
	return domain.Payment{OrderID: "1", CustomerID: "cust-01", Amount: money.Amount{Minor: 1999, Currency: "EUR"}, Card: card}
}

func TestCharge(t *testing.T) {
	t.Parallel()
	charge := app.Call{Base: "place-1/charge"}
	tests := map[string]struct {
		card    string
		faults  string
		calls   int
		want    error
		state   domain.State
		balance int64
	}{
		"takes the money":                  {card: "tok_visa", calls: 1, state: domain.Charged, balance: 1999},
		"takes it once for a repeated key": {card: "tok_visa", calls: 3, state: domain.Charged, balance: 1999},
		"declined is definitive":           {card: "tok_declined", calls: 2, want: app.ErrDeclined, state: domain.Declined},
		"lost before acting is unknown":    {card: "tok_visa", faults: "b", calls: 1, want: app.ErrUnknown, state: domain.Pending},
		"lost after acting is unknown":     {card: "tok_visa", faults: "a", calls: 1, want: app.ErrUnknown, state: domain.Pending, balance: 1999},
		"a repeat learns the lost outcome": {card: "tok_visa", faults: "ab", calls: 3, state: domain.Charged, balance: 1999},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, outside := newTable(), &processor{ledger: map[string]int64{}, faults: []byte(test.faults)}
			payments := app.New(store, outside)
			var err error
			for range test.calls {
				_, err = payments.Charge(t.Context(), charge, order(test.card))
			}
			if !errors.Is(err, test.want) {
				t.Errorf("last Charge = %v, want %v", err, test.want)
			}
			if got := store.rows["1"].State; got != test.state {
				t.Errorf("state = %s, want %s", got, test.state)
			}
			if got := outside.balance(); got != test.balance {
				t.Errorf("processor holds %d, want %d", got, test.balance)
			}
		})
	}
}

func TestChargeOfAnotherKeyConflicts(t *testing.T) {
	t.Parallel()
	payments := app.New(newTable(), &processor{ledger: map[string]int64{}})
	if _, err := payments.Charge(t.Context(), app.Call{Base: "a/charge"}, order("tok_visa")); err != nil {
		t.Fatal(err)
	}
	if _, err := payments.Charge(t.Context(), app.Call{Base: "b/charge"}, order("tok_visa")); !errors.Is(err, app.ErrConflict) {
		t.Errorf("second Charge = %v, want %v", err, app.ErrConflict)
	}
}

func TestUndoBeforeChargeLeavesATombstone(t *testing.T) {
	t.Parallel()
	outside := &processor{ledger: map[string]int64{}}
	payments := app.New(newTable(), outside)
	_, found, err := payments.Refund(t.Context(), app.Call{Base: "place-1/charge", Undo: true}, "1", "CANCELLED")
	if err != nil || found {
		t.Fatalf("Refund = %t, %v, want not found and no error", found, err)
	}
	if _, err := payments.Charge(t.Context(), app.Call{Base: "place-1/charge"}, order("tok_visa")); !errors.Is(err, app.ErrUndone) {
		t.Errorf("late Charge = %v, want %v", err, app.ErrUndone)
	}
	if got := outside.balance(); got != 0 {
		t.Errorf("processor holds %d, want 0", got)
	}
}

// Whatever answers are lost, an undo that ends leaves no money at the processor, and a refund is made once although
// an undo and a refund of the customer both ask for it.
func TestRefundAlwaysReturnsTheMoney(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		faults := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b'}), 0, 8).Draw(t, "faults")
		card := rapid.SampledFrom([]string{"tok_visa", "tok_declined"}).Draw(t, "card")
		charges := rapid.IntRange(0, 3).Draw(t, "charges")
		late := rapid.Bool().Draw(t, "late charge")
		ctx := context.Background()
		charge := app.Call{Base: "place-1/charge"}
		outside := &processor{ledger: map[string]int64{}, faults: faults}
		payments := app.New(newTable(), outside)
		for range charges {
			_, _ = payments.Charge(ctx, charge, order(card))
		}
		for _, call := range []app.Call{{Base: charge.Base, Undo: true}, {Base: "refund-1/refund"}} {
			var err error
			for range 20 {
				if late {
					_, _ = payments.Charge(ctx, charge, order(card))
				}
				if _, _, err = payments.Refund(ctx, call, "1", "CANCELLED"); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("Refund %v never ended: %v", call, err)
			}
		}
		if got := outside.balance(); got != 0 {
			t.Fatalf("processor holds %d after the refund, want 0; ledger %v", got, outside.ledger)
		}
		if len(outside.ledger) > 2 {
			t.Fatalf("processor saw %v, want at most one charge and one refund", outside.ledger)
		}
	})
}
