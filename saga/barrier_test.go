package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/saga"
)

func onEachDatabase(t *testing.T, run func(t *testing.T, db *sql.DB, d saga.Dialect)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			db, d, err := sqldb.Open(t.Context(), url(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			run(t, db, d)
		})
	}
}

func TestBarrier(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, db *sql.DB, d saga.Dialect) {
		b, err := saga.NewBarrier(saga.BarrierConfig{Dialect: d})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		if err := b.Migrate(t.Context(), db); err != nil {
			t.Fatalf("second migration: %v", err)
		}
		ran := 0
		do := func(key string, op saga.Op, result string, answer error) (string, error) {
			var out []byte
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				var err error
				out, err = b.Do(ctx, tx, key, op, func(context.Context) ([]byte, error) {
					ran++
					return []byte(result), answer
				})
				return err
			})
			return string(out), err
		}
		check := func(what, got, want string, err error, wantRan int) {
			t.Helper()
			if err != nil || got != want || ran != wantRan {
				t.Errorf("%s: %q, %v after %d runs; want %q after %d", what, got, err, ran, want, wantRan)
			}
		}
		out, err := do("k", saga.OpDo, "first", nil)
		check("do", out, "first", err, 1)
		out, err = do("k", saga.OpDo, "second", nil)
		check("repeat", out, "first", err, 1)
		out, err = do("k", saga.OpUndo, "back", nil)
		check("undo", out, "back", err, 2)
		out, err = do("k", saga.OpUndo, "again", nil)
		check("repeated undo", out, "back", err, 2)
		if _, err := do("k", saga.OpDo, "", nil); !errors.Is(err, saga.ErrUndone) || !saga.IsRefused(err) || ran != 2 {
			t.Errorf("do after undo: %v after %d runs", err, ran)
		}
		out, err = do("early", saga.OpUndo, "x", nil)
		check("undo before do", out, "", err, 2)
		if _, err := do("early", saga.OpDo, "", nil); !errors.Is(err, saga.ErrUndone) || ran != 2 {
			t.Errorf("late do: %v after %d runs", err, ran)
		}
		boom := errors.New("boom")
		if _, err := do("f", saga.OpDo, "", boom); !errors.Is(err, boom) {
			t.Errorf("failing do: %v", err)
		}
		out, err = do("f", saga.OpDo, "now", nil)
		check("do after a failure", out, "now", err, 4)
		if _, err := do("", saga.OpDo, "", nil); err == nil || !strings.Contains(err.Error(), "key is empty") {
			t.Errorf("empty key: %v", err)
		}
	})
}

// TestBarrierUnderRace sends the same step and its undo many times at once.
func TestBarrierUnderRace(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, db *sql.DB, d saga.Dialect) {
		b, err := saga.NewBarrier(saga.BarrierConfig{Dialect: d})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		for round := range 10 {
			key := string(rune('a' + round))
			var mu sync.Mutex
			effects := map[saga.Op]int{}
			var wg sync.WaitGroup
			for i := range 8 {
				op := saga.OpDo
				if i%2 == 1 {
					op = saga.OpUndo
				}
				wg.Go(func() {
					err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
						_, err := b.Do(ctx, tx, key, op, func(context.Context) ([]byte, error) {
							mu.Lock()
							defer mu.Unlock()
							effects[op]++
							return nil, nil
						})
						return err
					})
					if err != nil && !errors.Is(err, saga.ErrUndone) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if effects[saga.OpDo] != effects[saga.OpUndo] || effects[saga.OpDo] > 1 {
				t.Errorf("effects = %v; every step that was done must have been undone once", effects)
			}
		}
	})
}

func TestNewBarrierRefuses(t *testing.T) {
	t.Parallel()
	for _, cfg := range []saga.BarrierConfig{{}, {Dialect: 9}, {Dialect: saga.SQLite, TablePrefix: "a;"}} {
		if _, err := saga.NewBarrier(cfg); err == nil {
			t.Errorf("%+v passed", cfg)
		}
	}
}
