package infra_test

import (
	"database/sql"
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/domain"
	"github.com/armature-go/armature/examples/shop/payment/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var charge = app.Call{Base: "place-1/charge"}

func pending() domain.Payment {
	return domain.Payment{
		OrderID: "1", CustomerID: "cust-01", Amount: money.EUR(1999), Card: "tok_visa", State: domain.Pending, Key: charge.Base,
	}
}

// onBoth runs test on a store in SQLite and in PostgreSQL; db is to look behind it.
func onBoth(t *testing.T, test func(t *testing.T, store *infra.Store, db *sql.DB)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, dialect, err := armature.OpenDB(t.Context(), url(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			broker, err := memory.New(memory.Config{})
			if err != nil {
				t.Fatal(err)
			}
			shared, err := platform.NewStore(t.Context(), db, dialect, "payment", infra.Schema(), outbox.Config{Publisher: broker})
			if err != nil {
				t.Fatal(err)
			}
			test(t, infra.NewStore(shared), db)
		})
	}
}

func events(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM armature_outbox`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAPaymentGoesItsWay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		ctx := t.Context()
		if p, err := store.Open(ctx, charge, pending()); err != nil || p.State != domain.Pending || p.Amount != money.EUR(1999) || p.Card != "tok_visa" {
			t.Fatalf("Open = %+v, %v", p, err)
		}
		for range 2 { // the second time changes and tells nothing
			if p, err := store.SetCharged(ctx, "1", "ch_1"); err != nil || p.State != domain.Charged || p.ChargeID != "ch_1" {
				t.Fatalf("SetCharged = %+v, %v", p, err)
			}
		}
		if p, err := store.Open(ctx, charge, pending()); err != nil || p.State != domain.Charged {
			t.Fatalf("repeated Open = %+v, %v", p, err)
		}
		if p, err := store.SetDeclined(ctx, "1", "late"); err != nil || p.State != domain.Charged {
			t.Fatalf("SetDeclined of a charged payment = %+v, %v, want it charged", p, err)
		}
		if p, err := store.BeginRefund(ctx, app.Call{Base: charge.Base, Undo: true}, "1", "WHY"); err != nil || p.State != domain.Refunding || p.Reason != "WHY" {
			t.Fatalf("BeginRefund = %+v, %v", p, err)
		}
		for range 2 {
			if p, err := store.SetRefunded(ctx, "1", "re_1"); err != nil || p.State != domain.Refunded || p.RefundID != "re_1" {
				t.Fatalf("SetRefunded = %+v, %v", p, err)
			}
		}
		if n := events(t, db); n != 2 {
			t.Errorf("%d events, want charged and refunded, once each", n)
		}
		if _, err := store.Open(ctx, charge, pending()); !errors.Is(err, app.ErrUndone) {
			t.Errorf("Open after the undo = %v, want %v", err, app.ErrUndone)
		}
	})
}

func TestAnUndoThatComesFirstIsRemembered(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		undo := app.Call{Base: charge.Base, Undo: true}
		for range 2 {
			if _, err := store.BeginRefund(t.Context(), undo, "1", "WHY"); !errors.Is(err, app.ErrNotFound) {
				t.Fatalf("BeginRefund = %v, want %v", err, app.ErrNotFound)
			}
		}
		if _, err := store.Open(t.Context(), charge, pending()); !errors.Is(err, app.ErrUndone) {
			t.Errorf("Open = %v, want %v", err, app.ErrUndone)
		}
		if _, err := store.Get(t.Context(), "1"); !errors.Is(err, app.ErrNotFound) {
			t.Errorf("Get = %v, want %v", err, app.ErrNotFound)
		}
	})
}

func TestAnUndoTakesNobodyElsesMoney(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		if _, err := store.Open(t.Context(), charge, pending()); err != nil {
			t.Fatal(err)
		}
		if _, err := store.SetCharged(t.Context(), "1", "ch_1"); err != nil {
			t.Fatal(err)
		}
		other := pending()
		other.Key = "other/charge"
		if _, err := store.Open(t.Context(), app.Call{Base: other.Key}, other); !errors.Is(err, app.ErrConflict) {
			t.Errorf("Open of another key = %v, want %v", err, app.ErrConflict)
		}
		if _, err := store.BeginRefund(t.Context(), app.Call{Base: other.Key, Undo: true}, "1", "WHY"); !errors.Is(err, app.ErrNotFound) {
			t.Errorf("undo of the other key = %v, want %v", err, app.ErrNotFound)
		}
		if p, err := store.Get(t.Context(), "1"); err != nil || p.State != domain.Charged {
			t.Errorf("the payment is %s, %v, want charged", p.State, err)
		}
	})
}

func TestAChargeThatIsLearntDuringTheRefundIsKept(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		if _, err := store.Open(t.Context(), charge, pending()); err != nil {
			t.Fatal(err)
		}
		if p, err := store.BeginRefund(t.Context(), app.Call{Base: charge.Base, Undo: true}, "1", ""); err != nil || p.State != domain.Refunding || p.ChargeID != "" {
			t.Fatalf("BeginRefund = %+v, %v", p, err)
		}
		if p, err := store.SetCharged(t.Context(), "1", "ch_1"); err != nil || p.State != domain.Refunding || p.ChargeID != "ch_1" {
			t.Errorf("SetCharged = %+v, %v, want refunding with the charge", p, err)
		}
		if n := events(t, db); n != 0 {
			t.Errorf("%d events, want none: the shop never counted this charge", n)
		}
	})
}

func TestRacingCallersChangeARowOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				if _, err := store.Open(t.Context(), charge, pending()); err != nil {
					t.Errorf("Open = %v", err)
				}
				if p, err := store.SetCharged(t.Context(), "1", "ch_1"); err != nil || p.State != domain.Charged {
					t.Errorf("SetCharged = %s, %v", p.State, err)
				}
			})
		}
		racers.Wait()
		if n := events(t, db); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}
