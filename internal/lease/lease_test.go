package lease_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/internal/lease"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const table = "test_lease"

func open(t *testing.T, url string) (*sql.DB, sqldb.Dialect) {
	t.Helper()
	db, d, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := sqldb.Migrate(t.Context(), db, d, table, lease.Steps(table)); err != nil {
		t.Fatal(err)
	}
	return db, d
}

func onBoth(t *testing.T, run func(t *testing.T, db *sql.DB, d sqldb.Dialect)) {
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, d := open(t, url(t))
			run(t, db, d)
		})
	}
}

func contender(t *testing.T, d sqldb.Dialect, owner string, ttl time.Duration) *lease.Lease {
	t.Helper()
	l, err := lease.New(lease.Config{Dialect: d, Table: table, Name: "work", Owner: owner, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func acquire(t *testing.T, l *lease.Lease, db sqldb.DB) *lease.Held {
	t.Helper()
	held, err := l.Acquire(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func mustAcquire(t *testing.T, l *lease.Lease, db sqldb.DB) *lease.Held {
	t.Helper()
	held := acquire(t, l, db)
	if held == nil {
		t.Fatal("the lease is taken")
	}
	return held
}

func fenced(t *testing.T, h *lease.Held, db *sql.DB) error {
	t.Helper()
	return sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return h.Fence(ctx, tx) })
}

func TestOneHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		a, b := contender(t, d, "a", time.Hour), contender(t, d, "b", time.Hour)
		first := mustAcquire(t, a, db)
		if acquire(t, b, db) != nil {
			t.Fatal("two holders")
		}
		if err := first.Renew(t.Context(), db); err != nil {
			t.Error(err)
		}
		if err := fenced(t, first, db); err != nil {
			t.Error(err)
		}
		if err := first.Release(t.Context(), db); err != nil {
			t.Error(err)
		}
		second := mustAcquire(t, b, db)
		if second.Epoch() <= first.Epoch() {
			t.Errorf("epoch %d after %d, want it to grow", second.Epoch(), first.Epoch())
		}
		if err := first.Renew(t.Context(), db); !errors.Is(err, lease.ErrLost) {
			t.Errorf("renew by the old holder: %v, want ErrLost", err)
		}
		if err := fenced(t, first, db); !errors.Is(err, lease.ErrLost) {
			t.Errorf("fence of the old holder: %v, want ErrLost", err)
		}
		if err := first.Release(t.Context(), db); err != nil {
			t.Error(err)
		}
		if err := second.Renew(t.Context(), db); err != nil {
			t.Errorf("the old holder released the new holder's lease: %v", err)
		}
	})
}

func TestSameOwnerComesBackAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		before := mustAcquire(t, contender(t, d, "node-1", time.Hour), db)
		after := mustAcquire(t, contender(t, d, "node-1", time.Hour), db)
		if after.Epoch() <= before.Epoch() {
			t.Errorf("epoch %d after %d, want it to grow", after.Epoch(), before.Epoch())
		}
		if err := fenced(t, before, db); !errors.Is(err, lease.ErrLost) {
			t.Errorf("fence of the process before the restart: %v, want ErrLost", err)
		}
	})
}

func TestManyContendersOneHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		var (
			wg   sync.WaitGroup
			won  atomic.Int32
			many = 8
		)
		for i := range many {
			l := contender(t, d, fmt.Sprint("node-", i), time.Hour)
			wg.Go(func() {
				held, err := l.Acquire(t.Context(), db)
				if err != nil {
					t.Error(err)
				}
				if held != nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of %d contenders hold the lease, want one", won.Load(), many)
		}
	})
}

// The fence must keep a takeover out until the transaction has ended.
func TestFenceHoldsOffTheTakeover(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db *sql.DB, d sqldb.Dialect) {
		held := mustAcquire(t, contender(t, d, "node-1", time.Hour), db)
		taken := make(chan error, 1)
		var committed atomic.Bool
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			if err := held.Fence(ctx, tx); err != nil {
				return err
			}
			begun := make(chan struct{})
			go func() {
				close(begun)
				_, err := contender(t, d, "node-1", time.Hour).Acquire(context.Background(), db)
				if !committed.Load() {
					err = errors.Join(err, errors.New("taken over inside the fenced transaction"))
				}
				taken <- err
			}()
			<-begun
			// Long enough for a takeover that is not held off.
			timer := time.NewTimer(100 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
			committed.Store(true)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-taken; err != nil {
			t.Error(err)
		}
	})
}

func TestExpiryIsExactOnSQLite(t *testing.T) {
	t.Parallel()
	url := testsvc.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db, d := open(t, url)
		const ttl = 10 * time.Second
		a, b := contender(t, d, "a", ttl), contender(t, d, "b", ttl)
		held := mustAcquire(t, a, db)
		time.Sleep(ttl / 2)
		if err := held.Renew(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ttl - time.Millisecond)
		if acquire(t, b, db) != nil {
			t.Fatal("taken over a millisecond before the renewed lease ends")
		}
		if !time.Now().Before(held.Until()) {
			t.Error("the holder gives up before it has to")
		}
		time.Sleep(time.Millisecond)
		if time.Now().Before(held.Until()) {
			t.Error("the holder believes in a lease that others may take")
		}
		mustAcquire(t, b, db)
		if err := held.Renew(t.Context(), db); !errors.Is(err, lease.ErrLost) {
			t.Errorf("renew after the takeover: %v, want ErrLost", err)
		}
	})
}

func TestExpiryOnPostgreSQLIgnoresLocalClocks(t *testing.T) {
	t.Parallel()
	db, d := open(t, testsvc.Postgres(t))
	a, b := contender(t, d, "a", 200*time.Millisecond), contender(t, d, "b", time.Hour)
	mustAcquire(t, a, db)
	limit := time.Now().Add(time.Minute)
	for acquire(t, b, db) == nil {
		if time.Now().After(limit) {
			t.Fatal("a dead holder's lease never ends")
		}
	}
	var ahead bool
	if err := db.QueryRowContext(t.Context(), "SELECT expires_at > EXTRACT(EPOCH FROM clock_timestamp()) * 1000 + 3500000 FROM "+table).Scan(&ahead); err != nil {
		t.Fatal(err)
	}
	if !ahead {
		t.Error("the lease does not count from the server's clock")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := lease.Config{Dialect: sqldb.SQLite, Table: table, Name: "work", Owner: "a", TTL: time.Second}
	tests := map[string]struct {
		spoil func(*lease.Config)
		want  string
	}{
		"dialect": {func(c *lease.Config) { c.Dialect = 0 }, "Dialect"},
		"table":   {func(c *lease.Config) { c.Table = "" }, "Table"},
		"name":    {func(c *lease.Config) { c.Name = "" }, "Name"},
		"owner":   {func(c *lease.Config) { c.Owner = "" }, "Owner"},
		"ttl":     {func(c *lease.Config) { c.TTL = time.Millisecond }, "TTL"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			tt.spoil(&cfg)
			if _, err := lease.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to name %s", err, tt.want)
			}
		})
	}
}

func ExampleLease_Acquire() {
	l, err := lease.New(lease.Config{Dialect: sqldb.SQLite, Table: "armature_outbox_lease", Name: "relay", Owner: "node-1", TTL: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	work := func(ctx context.Context, db *sql.DB) error {
		held, err := l.Acquire(ctx, db)
		if err != nil || held == nil {
			return err // nil: somebody else works
		}
		defer held.Release(context.WithoutCancel(ctx), db)
		return nil // work until held.Until(), renewing every few seconds
	}
	_ = work
	fmt.Println("ready")
	// Output: ready
}
