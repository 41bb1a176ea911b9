package platform_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/outbox"
	"github.com/armature-go/armature/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var schema = []string{
	`CREATE TABLE counters (name TEXT PRIMARY KEY, n BIGINT NOT NULL)`,
	`INSERT INTO counters (name, n) VALUES ('a', 0)`,
}

// onBoth runs a test on each database.
func onBoth(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, testsvc.SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, testsvc.Postgres(t))
	})
}

func open(t *testing.T, url string) (*sql.DB, armature.Dialect) {
	t.Helper()
	db, dialect, err := platform.OpenDB(t.Context(), platform.Config{DB: url}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, dialect
}

func newStore(t *testing.T, url string) *platform.Store {
	t.Helper()
	db, dialect := open(t, url)
	s, err := platform.NewStore(t.Context(), db, dialect, "test", schema, outbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// step adds one and emits an event, then answers err.
func step(s *platform.Store, err error) func(context.Context, *sql.Tx) (string, error) {
	return func(ctx context.Context, tx *sql.Tx) (string, error) {
		if _, err := tx.ExecContext(ctx, `UPDATE counters SET n = n + 1 WHERE name = 'a'`); err != nil {
			return "", err
		}
		if err := s.Emit(ctx, tx, events.OrderPlaced{OrderID: "o"}); err != nil {
			return "", err
		}
		return "done", err
	}
}

func keyed(ctx context.Context, key string) context.Context { return flow.WithIdempotencyKey(ctx, key) }

func TestOnce(t *testing.T) {
	t.Parallel()
	refusal := transport.Errorf(transport.FailedPrecondition, "EMPTY", "nothing left")
	oops := errors.New("oops")
	type call struct {
		key, want string
		fails     error
		code      transport.Code
		reason    string
	}
	for name, c := range map[string]struct {
		calls []call
		n     int
	}{
		"no key":                        {[]call{{key: "", code: transport.InvalidArgument, reason: platform.ReasonKeyMissing}}, 0},
		"a repeat has the first answer": {[]call{{key: "s/step", want: "done"}, {key: "s/step", want: "done", fails: oops}}, 1},
		"two keys are two effects":      {[]call{{key: "s/step", want: "done"}, {key: "t/step", want: "done"}}, 2},
		"a refusal leaves nothing and is remembered": {[]call{
			{key: "s/step", fails: refusal, code: transport.FailedPrecondition, reason: "EMPTY"},
			{key: "s/step", code: transport.FailedPrecondition, reason: "EMPTY"}}, 0},
		"a wrapped refusal is one too": {[]call{
			{key: "s/step", fails: fmt.Errorf("test: %w", refusal), code: transport.FailedPrecondition, reason: "EMPTY"}}, 0},
		"a failure leaves nothing and is tried again": {[]call{
			{key: "s/step", fails: oops, code: transport.Internal}, {key: "s/step", want: "done"}}, 1},
		"undo runs once": {[]call{
			{key: "s/step", want: "done"}, {key: "s/step/undo", want: "done"}, {key: "s/step/undo", want: "done"}}, 2},
		"undo first keeps the step out": {[]call{
			{key: "s/step/undo"}, {key: "s/step", code: transport.Aborted, reason: platform.ReasonUndone}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, url string) {
				s := newStore(t, url)
				for i, call := range c.calls {
					got, err := platform.Once(keyed(t.Context(), call.key), s, step(s, call.fails))
					if got != call.want || transport.CodeOf(err) != call.code {
						t.Fatalf("call %d: got %q, %v (%s), want %q, %s", i+1, got, err, transport.CodeOf(err), call.want, call.code)
					}
					var e *transport.Error
					if call.reason != "" && (!errors.As(err, &e) || e.Reason != call.reason) {
						t.Fatalf("call %d: got %v, want reason %s", i+1, err, call.reason)
					}
				}
				if n := count(t, s.DB, `SELECT n FROM counters`); n != c.n {
					t.Errorf("%d effects, want %d", n, c.n)
				}
				if n := count(t, s.DB, `SELECT COUNT(*) FROM armature_outbox`); n != c.n {
					t.Errorf("%d events, want %d", n, c.n)
				}
			})
		})
	}
}

func TestOnceAmongManyAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		s := newStore(t, url)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if got, err := platform.Once(keyed(t.Context(), "s/step"), s, step(s, nil)); err != nil || got != "done" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		group.Wait()
		if n := count(t, s.DB, `SELECT n FROM counters`); n != 1 {
			t.Errorf("%d effects", n)
		}
	})
}

func TestMigrateRunsEachStepOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		db, dialect := open(t, url)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if err := platform.Migrate(t.Context(), db, dialect, "test", schema); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := count(t, db, `SELECT COUNT(*) FROM counters`); n != 1 {
			t.Errorf("%d rows", n)
		}
		more := slices.Concat(schema, []string{`INSERT INTO counters (name, n) VALUES ('b', 0)`})
		if err := platform.Migrate(t.Context(), db, dialect, "test", more); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, `SELECT COUNT(*) FROM counters`); n != 2 {
			t.Errorf("%d rows after one more step", n)
		}
		if err := platform.Migrate(t.Context(), db, dialect, "test", schema); err == nil {
			t.Error("an older program took a newer database")
		}
		if err := platform.Migrate(t.Context(), db, dialect, "bad", []string{`CREATE TABLE ok (n BIGINT)`, `CREATE NONSENSE`}); err == nil || !strings.Contains(err.Error(), "step 2") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct{ server, dir, service, want, err string }{
		"a file":           {server: "sqlite:", dir: dir, service: "order", want: "sqlite:" + filepath.Join(dir, "order.db")},
		"a file unasked":   {dir: dir, service: "order", want: "sqlite:" + filepath.Join(dir, "order.db")},
		"no folder":        {server: "sqlite:", service: "order", err: "data folder"},
		"a path as name":   {server: "sqlite:", dir: dir, service: "../order", err: "service name"},
		"a quote as name":  {server: "postgres://h/", service: `x"`, err: "service name"},
		"another database": {server: "mysql://user:secret@h/", dir: dir, service: "order", err: "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := platform.DatabaseURL(t.Context(), c.server, c.dir, c.service)
			if got != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %q, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("shows the password: %v", err)
			}
		})
	}
}

func TestDatabaseURLMakesTheDatabase(t *testing.T) {
	t.Parallel()
	own := testsvc.Postgres(t)
	server, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	// The name of the test's own database makes this one's name its own too.
	service := "t" + strings.ToLower(strings.Map(letters, server.Path))
	service = service[:min(len(service), 30)]
	admin, _ := open(t, own)
	t.Cleanup(func() {
		if _, err := admin.ExecContext(context.Background(), `DROP DATABASE IF EXISTS "shop_`+service+`"`); err != nil {
			t.Error(err)
		}
	})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			got, err := platform.DatabaseURL(t.Context(), own, "", service)
			if err != nil || !strings.Contains(got, "/shop_"+service) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	group.Wait()
	again, err := platform.DatabaseURL(t.Context(), own, "", service)
	if err != nil {
		t.Fatal(err)
	}
	db, _, err := platform.OpenDB(t.Context(), platform.Config{DB: again}, service)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}

func ExampleOnce() {
	ctx := flow.WithIdempotencyKey(context.Background(), "place-1/reserve")
	answer := func(context.Context, *sql.Tx) (string, error) { return "reserved", nil }
	_, err := platform.Once(context.Background(), nil, answer)
	fmt.Println(err)
	base, op, _ := platform.Key(ctx)
	fmt.Println(base, op)
	// Output:
	// INVALID_ARGUMENT: IDEMPOTENCY_KEY_MISSING: the call needs an idempotency key
	// place-1/reserve do
}
