package infra_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/examples/shop/inventory/domain"
	"github.com/armature-go/armature/examples/shop/inventory/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/outbox"
	"github.com/armature-go/armature/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func onBoth(t *testing.T, test func(t *testing.T, kit *platform.Store, store *infra.Store)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, dialect, err := platform.OpenDB(t.Context(), platform.Config{DB: url(t)}, "inventory")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			kit, err := platform.NewStore(t.Context(), db, dialect, "inventory", infra.Schema, outbox.Config{})
			if err != nil {
				t.Fatal(err)
			}
			store, err := infra.NewStore(t.Context(), kit)
			if err != nil {
				t.Fatal(err)
			}
			test(t, kit, store)
		})
	}
}

func keyed(ctx context.Context, key string) context.Context { return flow.WithIdempotencyKey(ctx, key) }

func count(t *testing.T, kit *platform.Store, query string, args ...any) (n int64) {
	t.Helper()
	if err := kit.DB.QueryRowContext(t.Context(), kit.Dialect.Rebind(query), args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func onHand(t *testing.T, store *infra.Store, product string) int64 {
	t.Helper()
	s, err := store.Stock(t.Context(), product)
	if err != nil {
		t.Fatal(err)
	}
	return s.OnHand
}

func reason(err error) string {
	if e, ok := errors.AsType[*transport.Error](err); ok {
		return e.Reason
	}
	return ""
}

const plenty = 1_000_000

func TestSeedIsSownOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, kit *platform.Store, store *infra.Store) {
		if err := store.Reserve(keyed(t.Context(), "a/reserve"), "a", []domain.Item{{ProductID: "sku-tea", Quantity: 3}}); err != nil {
			t.Fatal(err)
		}
		again, err := infra.NewStore(t.Context(), kit)
		if err != nil {
			t.Fatal(err)
		}
		if n := onHand(t, again, "sku-tea"); n != plenty-3 {
			t.Errorf("%d there after a restart", n)
		}
		if n := count(t, kit, `SELECT COUNT(*) FROM stock_moves WHERE kind = 'receipt'`); n != 17 {
			t.Errorf("%d receipts, want one for each product that is there", n)
		}
		all, err := again.All(t.Context())
		if err != nil || len(all) != len(domain.Seed()) {
			t.Errorf("%d products, %v", len(all), err)
		}
	})
}

func TestReserveAndRelease(t *testing.T) {
	t.Parallel()
	lines := []domain.Item{{ProductID: "sku-pen", Quantity: 1}, {ProductID: "sku-tea", Quantity: 2}}
	onBoth(t, func(t *testing.T, kit *platform.Store, store *infra.Store) {
		for range 2 {
			if err := store.Reserve(keyed(t.Context(), "place-o/reserve"), "o", lines); err != nil {
				t.Fatal(err)
			}
		}
		if pen, tea := onHand(t, store, "sku-pen"), onHand(t, store, "sku-tea"); pen != plenty-1 || tea != plenty-2 {
			t.Errorf("%d pens, %d teas there", pen, tea)
		}
		// The undo of the same step, repeated, and another saga that wants to release too.
		for _, key := range []string{"place-o/reserve/undo", "place-o/reserve/undo"} {
			back, err := store.Release(keyed(t.Context(), key), "o")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(lines, back); diff != "" {
				t.Errorf("%s (-want +got)\n%s", key, diff)
			}
		}
		if back, err := store.Release(keyed(t.Context(), "refund-o/release"), "o"); err != nil || len(back) != 0 {
			t.Errorf("a second release gave back %v, %v", back, err)
		}
		if pen, tea := onHand(t, store, "sku-pen"), onHand(t, store, "sku-tea"); pen != plenty || tea != plenty {
			t.Errorf("%d pens, %d teas there", pen, tea)
		}
		if n := count(t, kit, `SELECT COUNT(*) FROM stock_moves WHERE order_id = 'o'`); n != 4 {
			t.Errorf("%d moves, want 2 taken and 2 put back", n)
		}
		if n := count(t, kit, `SELECT COUNT(*) FROM armature_outbox`); n != 2 {
			t.Errorf("%d events, want reserved and released", n)
		}
		if err := store.Reserve(keyed(t.Context(), "place-o/reserve"), "o", lines); reason(err) != platform.ReasonUndone {
			t.Errorf("a late reserve got %v", err)
		}
	})
}

func TestARefusalTakesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		last   domain.Item
		reason string
	}{
		"none there":      {domain.Item{ProductID: "sku-sextant", Quantity: 1}, infra.ReasonOutOfStock},
		"not enough":      {domain.Item{ProductID: "sku-tea", Quantity: plenty + 1}, infra.ReasonOutOfStock},
		"no such product": {domain.Item{ProductID: "sku-unicorn", Quantity: 1}, infra.ReasonNoProduct},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, kit *platform.Store, store *infra.Store) {
				lines := []domain.Item{{ProductID: "sku-pen", Quantity: 5}, c.last}
				if err := store.Reserve(keyed(t.Context(), "a/reserve"), "a", lines); reason(err) != c.reason || transport.CodeOf(err) != transport.FailedPrecondition {
					t.Fatalf("got %v", err)
				}
				// Goods arrive, and a delayed copy of the refused call as well.
				if _, err := kit.DB.ExecContext(t.Context(), `UPDATE stock SET on_hand = on_hand + 2000000`); err != nil {
					t.Fatal(err)
				}
				if err := store.Reserve(keyed(t.Context(), "a/reserve"), "a", lines); reason(err) != c.reason {
					t.Errorf("the repeat of a refused call got %v", err)
				}
				if n := onHand(t, store, "sku-pen"); n != plenty+2_000_000 {
					t.Errorf("%d pens there", n)
				}
				if n := count(t, kit, `SELECT COUNT(*) FROM stock_moves WHERE order_id = 'a'`) + count(t, kit, `SELECT COUNT(*) FROM holds`) +
					count(t, kit, `SELECT COUNT(*) FROM armature_outbox`); n != 0 {
					t.Errorf("%d traces are left", n)
				}
			})
		})
	}
}

func TestAnOrderHoldsOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, _ *platform.Store, store *infra.Store) {
		lines := []domain.Item{{ProductID: "sku-pen", Quantity: 1}}
		if err := store.Reserve(keyed(t.Context(), "a/reserve"), "o", lines); err != nil {
			t.Fatal(err)
		}
		if err := store.Reserve(keyed(t.Context(), "b/reserve"), "o", lines); reason(err) != infra.ReasonHeld || !errors.Is(err, transport.Errorf(transport.FailedPrecondition, infra.ReasonHeld, "")) {
			t.Errorf("got %v", err)
		}
		if n := onHand(t, store, "sku-pen"); n != plenty-1 {
			t.Errorf("%d there", n)
		}
	})
}

func TestUnknownProduct(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, _ *platform.Store, store *infra.Store) {
		if s, err := store.Stock(t.Context(), "sku-unicorn"); !errors.Is(err, domain.ErrNoProduct) {
			t.Errorf("got %v, %v", s, err)
		}
		if back, err := store.Release(keyed(t.Context(), "x/release"), "nobody"); err != nil || len(back) != 0 {
			t.Errorf("got %v, %v", back, err)
		}
	})
}

// Many orders want the same few things in any order, half give them back, and the last piece is sold once.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, kit *platform.Store, store *infra.Store) {
		if _, err := kit.DB.ExecContext(t.Context(), `UPDATE stock SET on_hand = 10 WHERE product_id IN ('sku-pen', 'sku-tea', 'sku-map')`); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for i := range 24 {
			group.Go(func() {
				order := fmt.Sprint("o", i)
				lines, err := domain.Lines([]domain.Item{{ProductID: "sku-tea", Quantity: 1}, {ProductID: "sku-pen", Quantity: 1}, {ProductID: "sku-map", Quantity: 1}}[rand.IntN(3):])
				if err != nil {
					t.Error(err)
					return
				}
				err = store.Reserve(keyed(t.Context(), order+"/reserve"), order, lines)
				if err != nil && reason(err) != infra.ReasonOutOfStock {
					t.Errorf("%s: %v", order, err)
				}
				if err == nil && i%2 == 0 {
					if _, err := store.Release(keyed(t.Context(), order+"/reserve/undo"), order); err != nil {
						t.Errorf("%s: %v", order, err)
					}
				}
			})
		}
		group.Wait()
		for _, product := range []string{"sku-pen", "sku-tea", "sku-map"} {
			held := count(t, kit, `SELECT COALESCE(SUM(quantity), 0) FROM holds WHERE product_id = ?`, product)
			if n := onHand(t, store, product); n+held != 10 || n < 0 {
				t.Errorf("%s: %d there, %d held", product, n, held)
			}
		}
	})
}
