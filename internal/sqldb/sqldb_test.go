package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/internal/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*sql.DB, sqldb.Dialect) {
	t.Helper()
	db, d, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "with space.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, d
}

func TestRebind(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"none", "SELECT 1", "SELECT 1"},
		{"two", "a = ? AND b = ?", "a = $1 AND b = $2"},
		{"eleven", strings.Repeat("?", 11), "$1$2$3$4$5$6$7$8$9$10$11"},
		{"in a string", "a = '?' AND b = ?", "a = '?' AND b = $1"},
		{"in an escaped string", "a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = $1"},
		{"in an identifier", `"wh?t" = ?`, `"wh?t" = $1`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := sqldb.PostgreSQL.Rebind(tt.in); got != tt.want {
				t.Errorf("PostgreSQL: got %q, want %q", got, tt.want)
			}
			if got := sqldb.SQLite.Rebind(tt.in); got != tt.in {
				t.Errorf("SQLite changed the query to %q", got)
			}
		})
	}
}

func TestOpenIsDurableAndStrict(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s = %s, want %s", pragma, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ url, want string }{
		"no scheme":       {"shop.db", "write sqlite:FILE or postgres://"},
		"unknown scheme":  {"mysql://x", "not known"},
		"no file":         {"sqlite:", "name a file"},
		"memory":          {"sqlite::memory:", "name a file"},
		"unknown option":  {"sqlite:a.db?sync=off", "sync=normal"},
		"missing driver":  {"postgres://u:secret@localhost/x", "pgx"},
		"unreadable":      {"postgres://u:secret@%zz", "postgres://user"},
		"missing folder":  {"sqlite:/no/such/folder/a.db", "open sqlite:/no/such"},
		"read only, none": {"sqlite:/no/such/b.db?mode=ro", "open sqlite:/no/such"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _, err := sqldb.Open(t.Context(), tt.url)
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), db.Close()))
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error shows the password: %v", err)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"postgres://u:secret@h/db", "postgres://h/db?user=u&password=secret", "postgres://u:secret@%zz"} {
		if got := sqldb.Redact(u); strings.Contains(got, "secret") {
			t.Errorf("Redact(%q) = %q", u, got)
		}
	}
}

func TestInTx(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	ctx := t.Context()
	if _, err := db.ExecContext(ctx, "CREATE TABLE t (n INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	insert := func(n int, after func() error) error {
		return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (?)", n); err != nil {
				return err
			}
			return after()
		})
	}
	boom := errors.New("boom")
	if err := insert(1, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := insert(2, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("err = %v, want boom", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = insert(3, func() error { panic("no") })
	}()
	if err := insert(1, func() error { return nil }); !sqldb.IsUnique(err) {
		t.Errorf("err = %v, want a unique violation", err)
	}
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("rows = %d, %v; want the one that was committed", n, err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	db, d := open(t)
	ctx := t.Context()
	steps := []string{"CREATE TABLE a (n INTEGER)", "INSERT INTO a VALUES (1)"}

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := sqldb.Migrate(ctx, db, d, "a", steps); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := sqldb.Migrate(ctx, db, d, "a", append(steps, "INSERT INTO a VALUES (2)")); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM a").Scan(&n); err != nil || n != 2 {
		t.Errorf("rows = %d, %v; want each step applied once", n, err)
	}
	if err := sqldb.Migrate(ctx, db, d, "a", steps); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("an older program was let in: %v", err)
	}
	if err := sqldb.Migrate(ctx, db, d, "b", []string{"CREATE TABLE b (n INTEGER)", "nonsense"}); err == nil || !strings.Contains(err.Error(), "step 2") {
		t.Errorf("err = %v, want it to name step 2", err)
	}
	if _, err := db.ExecContext(ctx, "SELECT * FROM b"); err == nil {
		t.Error("a failed migration left its first step behind")
	}
}

func TestConcurrentWritersWait(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	ctx := t.Context()
	if _, err := db.ExecContext(ctx, "CREATE TABLE c (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO c VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
					var n int
					if err := tx.QueryRowContext(ctx, "SELECT n FROM c").Scan(&n); err != nil {
						return err
					}
					_, err := tx.ExecContext(ctx, "UPDATE c SET n = ?", n+1)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := db.QueryRowContext(ctx, "SELECT n FROM c").Scan(&n); err != nil || n != 80 {
		t.Errorf("n = %d, %v; want 80: a read-modify-write was lost", n, err)
	}
}

func TestValidPrefix(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{"", "armature_", "a1_"} {
		if err := sqldb.ValidPrefix(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"1a", "A", "a;b", `a"`, "a b", strings.Repeat("a", 33)} {
		if sqldb.ValidPrefix(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("sqlite:/a b/c.db?sync=normal")
	f.Add("postgres://u:p@h/d?x=y")
	f.Fuzz(func(t *testing.T, raw string) {
		if strings.HasPrefix(raw, "sqlite:") {
			return // would create files
		}
		if db, _, err := sqldb.Open(t.Context(), raw); err == nil {
			_ = db.Close()
			t.Errorf("opened %q without a driver", raw)
		}
	})
}
