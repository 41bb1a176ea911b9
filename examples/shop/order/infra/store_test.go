package infra_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
	"github.com/armature-go/armature/examples/shop/order/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// participants does whatever a saga asks, which is nothing: the coordinator does not run here.
type participants struct{}

func (participants) Reserve(context.Context, app.Request) error { return nil }
func (participants) Release(context.Context, app.Request) error { return nil }
func (participants) Charge(context.Context, app.Request) error  { return nil }
func (participants) Refund(context.Context, app.Request) error  { return nil }
func (participants) Create(context.Context, app.Request) error  { return nil }
func (participants) Cancel(context.Context, app.Request) error  { return nil }

type fixture struct {
	db     *platform.Store
	ledger *infra.Ledger
	store  *infra.Store
}

// onBoth runs test on stores in SQLite and in PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, f fixture)) {
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
			shared, err := platform.NewStore(t.Context(), db, dialect, "order", infra.Schema(), outbox.Config{Publisher: broker})
			if err != nil {
				t.Fatal(err)
			}
			svc, err := platform.NewService("order", platform.Config{Addr: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = svc.Close(context.Background()) })
			ledger := infra.NewLedger(shared, &app.Changes{})
			definitions, err := app.NewSagas(ledger, participants{}, participants{}, participants{})
			if err != nil {
				t.Fatal(err)
			}
			sagas, err := infra.NewSagas(t.Context(), svc, shared, "order", definitions)
			if err != nil {
				t.Fatal(err)
			}
			test(t, fixture{shared, ledger, infra.NewStore(ledger, sagas)})
		})
	}
}

func (f fixture) count(t *testing.T, table string) (n int) {
	t.Helper()
	if err := f.db.DB.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// settle runs one of the ledger's moves in a transaction of its own.
func (f fixture) settle(t *testing.T, move func(context.Context, *sql.Tx, string) error, id string) {
	t.Helper()
	err := f.db.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return move(ctx, tx, id) })
	if err != nil {
		t.Fatal(err)
	}
}

func order(t *testing.T, id string) domain.Order {
	t.Helper()
	o, err := domain.New(id, "cust-01", []domain.Line{
		{ProductID: "sku-tea", Quantity: 3, Price: money.EUR(875)},
		{ProductID: "sku-pen", Quantity: 1, Price: money.EUR(6900)},
	}, domain.Address{Name: "Ada", Line1: "1 Main Street", City: "Berlin", Postcode: "10115", Country: "DE"}, time.UnixMilli(1_700_000_000_000))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wish(key string) app.Placement {
	return app.Placement{Key: key, CustomerID: "cust-01", Card: "tok_visa", Lines: []domain.Line{{ProductID: "sku-tea", Quantity: 3}}}
}

func TestPlaceIsAllOrNothingAndOncePerKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f fixture) {
		var racers sync.WaitGroup
		ids := make(chan string, 8)
		for i := range 8 {
			o := order(t, fmt.Sprintf("o-%d", i))
			racers.Go(func() {
				stored, err := f.store.Place(t.Context(), o, wish("k"))
				if err != nil {
					t.Errorf("Place = %v", err)
				}
				ids <- stored.ID
			})
		}
		racers.Wait()
		close(ids)
		first := <-ids
		for id := range ids {
			if id != first {
				t.Errorf("one key made orders %s and %s", first, id)
			}
		}
		for table, want := range map[string]int{"orders": 1, "order_items": 2, "armature_saga": 1, "armature_outbox": 1} {
			if got := f.count(t, table); got != want {
				t.Errorf("%d rows in %s, want %d", got, table, want)
			}
		}
		got, err := f.store.Get(t.Context(), first)
		want := order(t, first)
		if err != nil || got.Total != want.Total || got.Address != want.Address || len(got.Lines) != 2 || got.Lines[1] != want.Lines[1] || !got.CreatedAt.Equal(want.CreatedAt) {
			t.Errorf("Get = %+v, %v, want %+v", got, err, want)
		}
		other := wish("k")
		other.Card = "tok_mastercard"
		if _, err := f.store.Place(t.Context(), order(t, "o-9"), other); !errors.Is(err, app.ErrKeyReused) {
			t.Errorf("Place of another wish under the key = %v, want %v", err, app.ErrKeyReused)
		}
	})
}

func TestACancelledOrderKeepsTheFirstReason(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f fixture) {
		for i, reasons := range [][]string{{"CARD_DECLINED", "UNDONE"}, nil} {
			id := fmt.Sprintf("o-%d", i)
			if _, err := f.store.Place(t.Context(), order(t, id), wish(id)); err != nil {
				t.Fatal(err)
			}
			want := "UNAVAILABLE"
			for _, reason := range reasons {
				if err := f.ledger.NoteRefusal(t.Context(), id, reason); err != nil {
					t.Fatal(err)
				}
				want = reasons[0]
			}
			f.settle(t, f.ledger.Cancel, id)
			f.settle(t, f.ledger.Cancel, id)
			f.settle(t, f.ledger.Confirm, id) // too late
			if o, err := f.store.Get(t.Context(), id); err != nil || o.Status != domain.Cancelled || o.Reason != want {
				t.Errorf("the order is %s %s, %v, want cancelled %s", o.Status, o.Reason, err, want)
			}
		}
		if n := f.count(t, "armature_outbox"); n != 4 {
			t.Errorf("%d events, want placed and cancelled of two orders", n)
		}
	})
}

func TestARefundBeginsOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f fixture) {
		if _, err := f.store.Place(t.Context(), order(t, "o-1"), wish("k")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.store.BeginRefund(t.Context(), "o-1"); !errors.Is(err, app.ErrNotRefundable) {
			t.Fatalf("BeginRefund of a pending order = %v, want %v", err, app.ErrNotRefundable)
		}
		if _, err := f.store.BeginRefund(t.Context(), "none"); !errors.Is(err, app.ErrNotFound) {
			t.Fatalf("BeginRefund of no order = %v, want %v", err, app.ErrNotFound)
		}
		f.settle(t, f.ledger.Confirm, "o-1")
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				if o, err := f.store.BeginRefund(t.Context(), "o-1"); err != nil || o.Status != domain.Refunding {
					t.Errorf("BeginRefund = %s, %v, want refunding", o.Status, err)
				}
			})
		}
		racers.Wait()
		if n := f.count(t, "armature_saga"); n != 2 {
			t.Errorf("%d sagas, want one placement and one refund", n)
		}
		f.settle(t, f.ledger.FinishRefund, "o-1")
		if o, err := f.store.BeginRefund(t.Context(), "o-1"); err != nil || o.Status != domain.Refunded {
			t.Errorf("BeginRefund of a refunded order = %s, %v, want it as it is", o.Status, err)
		}
	})
}

func TestListIsNewestFirstAndBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f fixture) {
		for i := range 5 {
			o := order(t, fmt.Sprintf("o-%d", i))
			o.CreatedAt = o.CreatedAt.Add(time.Duration(i) * time.Second)
			if _, err := f.store.Place(t.Context(), o, wish(o.ID)); err != nil {
				t.Fatal(err)
			}
		}
		list, err := f.store.List(t.Context(), "cust-01", 3)
		if err != nil || len(list) != 3 || list[0].ID != "o-4" || list[2].ID != "o-2" || len(list[0].Lines) != 2 {
			t.Errorf("List = %+v, %v, want o-4, o-3, o-2 with their lines", list, err)
		}
		if list, err := f.store.List(t.Context(), "nobody", 3); err != nil || len(list) != 0 {
			t.Errorf("List of nobody = %+v, %v", list, err)
		}
	})
}
