package infra_test

import (
	"database/sql"
	"errors"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/domain"
	"github.com/armature-go/armature/examples/shop/shipping/infra"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var book = app.Call{Base: "place-1/ship"}

func pending() domain.Shipment {
	return domain.Shipment{
		OrderID: "1", State: domain.Pending, Key: book.Base,
		Address: domain.Address{Name: "Ada", Line1: "1 Main Street", City: "Berlin", Postcode: "10115", Country: "DE"},
		Items:   []domain.Item{{ProductID: "sku-tea", Quantity: 3}},
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
			shared, err := platform.NewStore(t.Context(), db, dialect, "shipping", infra.Schema(), outbox.Config{Publisher: broker})
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

func TestAShipmentGoesItsWay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		ctx := t.Context()
		if s, err := store.Open(ctx, book, pending()); err != nil || s.State != domain.Pending ||
			s.Address != pending().Address || len(s.Items) != 1 || s.Items[0] != pending().Items[0] {
			t.Fatalf("Open = %+v, %v", s, err)
		}
		for range 2 { // the second time changes and tells nothing
			if s, err := store.SetCreated(ctx, "1", "TRK1"); err != nil || s.State != domain.Created || s.Tracking != "TRK1" {
				t.Fatalf("SetCreated = %+v, %v", s, err)
			}
		}
		if s, err := store.SetRejected(ctx, "1", "late"); err != nil || s.State != domain.Created {
			t.Fatalf("SetRejected of a created shipment = %+v, %v, want it created", s, err)
		}
		if s, err := store.BeginCancel(ctx, app.Call{Base: "refund-1/cancel-shipment"}, "1"); err != nil || s.State != domain.Cancelling {
			t.Fatalf("BeginCancel = %+v, %v", s, err)
		}
		for range 2 {
			if s, err := store.SetCancelled(ctx, "1"); err != nil || s.State != domain.Cancelled || s.Tracking != "TRK1" {
				t.Fatalf("SetCancelled = %+v, %v", s, err)
			}
		}
		if n := events(t, db); n != 2 {
			t.Errorf("%d events, want created and cancelled, once each", n)
		}
	})
}

func TestAnUndoThatComesFirstIsRemembered(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		undo := app.Call{Base: book.Base, Undo: true}
		for range 2 {
			if _, err := store.BeginCancel(t.Context(), undo, "1"); !errors.Is(err, app.ErrNotFound) {
				t.Fatalf("BeginCancel = %v, want %v", err, app.ErrNotFound)
			}
		}
		if _, err := store.Open(t.Context(), book, pending()); !errors.Is(err, app.ErrUndone) {
			t.Errorf("Open = %v, want %v", err, app.ErrUndone)
		}
		if _, err := store.Get(t.Context(), "1"); !errors.Is(err, app.ErrNotFound) {
			t.Errorf("Get = %v, want %v", err, app.ErrNotFound)
		}
	})
}

func TestAnUndoCallsNobodyElsesParcelBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		if _, err := store.Open(t.Context(), book, pending()); err != nil {
			t.Fatal(err)
		}
		other := pending()
		other.Key = "other/ship"
		if _, err := store.Open(t.Context(), app.Call{Base: other.Key}, other); !errors.Is(err, app.ErrConflict) {
			t.Errorf("Open of another key = %v, want %v", err, app.ErrConflict)
		}
		if _, err := store.BeginCancel(t.Context(), app.Call{Base: other.Key, Undo: true}, "1"); !errors.Is(err, app.ErrNotFound) {
			t.Errorf("undo of the other key = %v, want %v", err, app.ErrNotFound)
		}
		if s, err := store.Get(t.Context(), "1"); err != nil || s.State != domain.Pending {
			t.Errorf("the shipment is %s, %v, want pending", s.State, err)
		}
	})
}

func TestABookingThatIsLearntDuringTheCancellationIsKept(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, store *infra.Store, db *sql.DB) {
		if _, err := store.Open(t.Context(), book, pending()); err != nil {
			t.Fatal(err)
		}
		if _, err := store.BeginCancel(t.Context(), app.Call{Base: book.Base, Undo: true}, "1"); err != nil {
			t.Fatal(err)
		}
		if s, err := store.SetCreated(t.Context(), "1", "TRK1"); err != nil || s.State != domain.Cancelling || s.Tracking != "TRK1" {
			t.Errorf("SetCreated = %+v, %v, want cancelling with the number", s, err)
		}
		if n := events(t, db); n != 0 {
			t.Errorf("%d events, want none: nobody is told of a parcel that is on its way back", n)
		}
	})
}
