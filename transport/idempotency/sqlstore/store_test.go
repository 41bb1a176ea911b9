package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/idempotencytest"
	"github.com/armature-go/armature/transport/idempotency/sqlstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) (*sql.DB, *sqlstore.Store) {
	t.Helper()
	db, dialect, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: dialect})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return db, s
}

var databases = map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres}

func TestConforms(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idempotencytest.Run(t, func(t *testing.T) idempotency.Store {
				_, s := open(t, url(t))
				return s
			})
		})
	}
}

// More rows than a portion, and of each kind one that must stay.
func TestPurgeDeletesWhatHasRunOut(t *testing.T) {
	t.Parallel()
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, s := open(t, url(t))
			ctx := t.Context()
			err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				for i := range 1500 {
					if _, err := tx.ExecContext(ctx, fmt.Sprintf(
						"INSERT INTO armature_idempotency (id, owner, fingerprint, expires_at) VALUES ('old-%d', 'o', '', %d)", i, i)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"claim", "record"} {
				if e, err := s.Claim(ctx, id, idempotency.Claim{Owner: "o", Lease: time.Hour}); err != nil || !e.Claimed {
					t.Fatal(e, err)
				}
			}
			if err := s.Keep(ctx, "record", "o", []byte{1}, time.Hour); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Purge(ctx); n != 1500 || err != nil {
				t.Errorf("Purge() = %d, %v, want 1500", n, err)
			}
			for _, id := range []string{"claim", "record"} {
				if e, err := s.Claim(ctx, id, idempotency.Claim{Owner: "p", Lease: time.Hour}); err != nil || e.Claimed {
					t.Errorf("%s is gone: %+v %v", id, e, err)
				}
			}
		})
	}
}

// The database is closed, so each purge fails and says so; nothing of it uses a socket.
func TestRunPurgesAndEnds(t *testing.T) {
	t.Parallel()
	db, _ := open(t, testsvc.SQLite(t))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite, PurgeEvery: time.Minute,
			Logger: slog.New(slog.NewTextHandler(io.Writer(&lines), nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if n := strings.Count(lines.String(), "old keys stay"); n < 3 || n > 5 {
			t.Errorf("%d purges in 4 minutes:\n%s", n, lines.String())
		}
	})
}

// A database that has gone answers errors, and what was stored before is there when it
// is open again.
func TestRecordsSurviveTheirProcess(t *testing.T) {
	t.Parallel()
	url := testsvc.SQLite(t)
	db, s := open(t, url)
	if _, err := s.Claim(t.Context(), "id", idempotency.Claim{Owner: "o", Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(t.Context(), "id", "o", []byte("kept"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), "id", idempotency.Claim{}); err == nil {
		t.Error("a closed database gave a claim")
	}
	_, again := open(t, url)
	if e, err := again.Claim(t.Context(), "id", idempotency.Claim{Owner: "p", Lease: time.Hour}); err != nil || string(e.Record) != "kept" {
		t.Errorf("%+v %v", e, err)
	}
}

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	db := new(sql.DB)
	for want, cfg := range map[string]sqlstore.Config{
		"DB":          {Dialect: sqlstore.SQLite},
		"Dialect":     {DB: db},
		"TablePrefix": {DB: db, Dialect: sqlstore.SQLite, TablePrefix: "a; DROP"},
		"PurgeEvery":  {DB: db, Dialect: sqlstore.SQLite, PurgeEvery: time.Millisecond},
	} {
		if _, err := sqlstore.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "sqlstore: configure store: "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
