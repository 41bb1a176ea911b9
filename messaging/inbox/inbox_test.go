package inbox_test

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

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/inbox"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a consumer's database: one line per effect.
type ledger struct {
	*sql.DB
	dialect sqldb.Dialect
}

func open(t *testing.T, url string) ledger {
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
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (who TEXT NOT NULL, msg TEXT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return ledger{db, d}
}

func onBoth(t *testing.T, run func(t *testing.T, db ledger)) {
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, open(t, url(t)))
		})
	}
}

func (l ledger) effects(t *testing.T) int {
	t.Helper()
	var n int
	if err := l.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM effects").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (l ledger) write(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
	_, err := tx.ExecContext(ctx, l.dialect.Rebind("INSERT INTO effects (who, msg) VALUES (?, ?)"), d.Group, d.Message.ID)
	return err
}

func newInbox(t *testing.T, l ledger, edit ...func(*inbox.Config)) *inbox.Inbox {
	t.Helper()
	cfg := inbox.Config{DB: l.DB, Dialect: l.dialect}
	for _, e := range edit {
		e(&cfg)
	}
	in, err := inbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return in
}

func delivery(id string) *messaging.Delivery {
	return &messaging.Delivery{Message: &messaging.Message{ID: id}, Topic: "orders", Group: "billing", Attempt: 1}
}

func TestOneEffectPerMessageAndGroup(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db ledger) {
		var woken atomic.Int32
		in := newInbox(t, db, func(c *inbox.Config) { c.AfterCommit = func() { woken.Add(1) } })
		billing, mail := in.Handle("billing", db.write), in.Handle("mail", db.write)
		for _, step := range []struct {
			handle messaging.Handler
			id     string
			want   int
		}{
			{billing, "a", 1}, {billing, "a", 1}, {mail, "a", 2}, {billing, "b", 3}, {mail, "a", 3},
		} {
			if err := step.handle(t.Context(), delivery(step.id)); err != nil {
				t.Fatal(err)
			}
			if got := db.effects(t); got != step.want {
				t.Errorf("%d effects, want %d", got, step.want)
			}
		}
		if woken.Load() != 3 {
			t.Errorf("AfterCommit ran %d times, want once per effect, 3", woken.Load())
		}
	})
}

func TestFailedHandlerLeavesNothingAndMayTryAgain(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	failures := map[string]func() error{
		"error":     func() error { return boom },
		"permanent": func() error { return messaging.Permanent(boom) },
		"drop":      func() error { return messaging.Drop("not for us") },
		"panic":     func() error { panic(boom) },
	}
	onBoth(t, func(t *testing.T, db ledger) {
		in := newInbox(t, db, func(c *inbox.Config) { c.AfterCommit = func() {} })
		effects := 0
		for name, fail := range failures {
			handled := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = p.(error)
					}
				}()
				return in.Handle("billing", func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
					return errors.Join(db.write(ctx, tx, d), fail())
				})(t.Context(), delivery(name))
			}()
			if handled == nil {
				t.Errorf("%s: the failure was swallowed", name)
			}
			if got := db.effects(t); got != effects {
				t.Errorf("%s: the failed handler left %d effects", name, got-effects)
			}
			if err := in.Handle("billing", db.write)(t.Context(), delivery(name)); err != nil {
				t.Error(err)
			}
			if effects++; db.effects(t) != effects {
				t.Errorf("%s: the second attempt was taken for a repetition", name)
			}
		}
	})
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	db := open(t, testsvc.SQLite(t))
	in := newInbox(t, db)
	want := messaging.RetryAfter(time.Minute, errors.New("later"))
	got := in.Handle("billing", func(context.Context, *sql.Tx, *messaging.Delivery) error { return want })(t.Context(), delivery("a"))
	if !errors.Is(got, want) {
		t.Errorf("got %v, want the handler's own error", got)
	}
	var permanent interface{ Retryable() bool }
	if err := in.Handle("billing", db.write)(t.Context(), delivery("")); !errors.As(err, &permanent) || permanent.Retryable() {
		t.Errorf("a message without an ID: %v, want a permanent error", err)
	}
}

func TestConcurrentDeliveriesOneEffect(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db ledger) {
		in := newInbox(t, db)
		// The first one to enter fails, so that one of those that wait must take over.
		var calls atomic.Int32
		handle := in.Handle("billing", func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
			if err := db.write(ctx, tx, d); err != nil {
				return err
			}
			if calls.Add(1) == 1 {
				return errors.New("boom")
			}
			return nil
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for handle(t.Context(), delivery("a")) != nil {
				}
			})
		}
		wg.Wait()
		if got := db.effects(t); got != 1 {
			t.Errorf("%d effects of one message, want 1", got)
		}
		if calls.Load() != 2 {
			t.Errorf("the handler ran %d times, want 2: the failure and the effect", calls.Load())
		}
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db ledger) {
		in := newInbox(t, db)
		handle := in.Handle("billing", db.write)
		const many = 2500 // more than one portion
		err := sqldb.InTx(t.Context(), db.DB, func(ctx context.Context, tx *sql.Tx) error {
			for i := range many {
				if _, err := tx.ExecContext(ctx, db.dialect.Rebind("INSERT INTO armature_inbox (consumer, msg_id, done_at) VALUES ('billing', ?, ?)"),
					fmt.Sprint("old-", i), time.Now().Add(-time.Hour).UnixMilli()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := handle(t.Context(), delivery("new")); err != nil {
			t.Fatal(err)
		}
		if n, err := in.Purge(t.Context(), 2*time.Hour); err != nil || n != 0 {
			t.Errorf("purged %d, %v; want none that old", n, err)
		}
		if n, err := in.Purge(t.Context(), time.Minute); err != nil || n != many {
			t.Errorf("purged %d, %v; want %d", n, err, many)
		}
		if err := handle(t.Context(), delivery("new")); err != nil {
			t.Fatal(err)
		}
		if got := db.effects(t); got != 1 {
			t.Errorf("%d effects, want 1: the young note was purged", got)
		}
	})
}

func TestRunPurgesAfterTheRetention(t *testing.T) {
	t.Parallel()
	url := testsvc.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db := open(t, url)
		in := newInbox(t, db, func(c *inbox.Config) { c.Retention = 10 * time.Hour })
		if err := in.Handle("billing", db.write)(t.Context(), delivery("a")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- in.Run(ctx) }()
		notes := func() (n int) {
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM armature_inbox").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		time.Sleep(9 * time.Hour)
		synctest.Wait()
		if notes() != 1 {
			t.Error("the note went before its time")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if notes() != 0 {
			t.Error("the note stayed beyond the retention")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The whole way: a transaction, the relay, a broker that delivers again and
// again, and handlers that fail.
func TestExactlyOneEffectEndToEnd(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db ledger) {
		ctx := t.Context()
		broker, err := memory.New(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := broker.Ensure(ctx, "orders", "billing"); err != nil {
			t.Fatal(err)
		}
		out, err := outbox.New(outbox.Config{Dialect: db.dialect, Publisher: twice{broker}, Poll: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Migrate(ctx, db.DB); err != nil {
			t.Fatal(err)
		}
		in := newInbox(t, db, func(c *inbox.Config) { c.AfterCommit = out.Wake })

		const many = 40
		var committed, before atomic.Int32
		all := make(chan struct{})
		handle := in.Handle("billing", func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
			if err := db.write(ctx, tx, d); err != nil {
				return err
			}
			if before.Add(1)%3 == 0 {
				return errors.New("the effect is written, now the handler fails")
			}
			return nil
		})
		sub, err := broker.Subscribe(ctx, "orders", "billing", func(ctx context.Context, d *messaging.Delivery) error {
			if err := handle(ctx, d); err != nil {
				return err
			}
			if committed.Add(1) == 2*many {
				close(all)
			}
			return nil
		}, messaging.Concurrency(4), messaging.MaxAttempts(50), messaging.Backoff(time.Millisecond, 5*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}

		relay, stop := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- out.Run(relay, db.DB) }()
		for i := range many {
			err := out.InTx(ctx, db.DB, func(ctx context.Context, tx *sql.Tx) error {
				return out.Publish(ctx, tx, "orders", &messaging.Message{ID: fmt.Sprint("order-", i), Key: fmt.Sprint(i % 5)})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-all:
		case <-time.After(time.Minute):
			t.Fatalf("%d of %d deliveries within a minute", committed.Load(), 2*many)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := sub.Drain(ctx); err != nil {
			t.Error(err)
		}
		if err := broker.Close(ctx); err != nil {
			t.Error(err)
		}
		if got := db.effects(t); got != many {
			t.Errorf("%d effects of %d messages, each delivered twice or more", got, many)
		}
	})
}

// twice is a broker whose answer is lost: every message is stored twice.
type twice struct{ *messaging.Broker }

func (p twice) Publish(ctx context.Context, topic string, msgs ...*messaging.Message) error {
	return p.Broker.Publish(ctx, topic, append(msgs[:len(msgs):len(msgs)], msgs...)...)
}

func TestMigrateTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db ledger) {
		in := newInbox(t, db)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := in.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	db := open(t, testsvc.SQLite(t))
	tests := map[string]struct {
		cfg  inbox.Config
		want string
	}{
		"no database": {inbox.Config{Dialect: inbox.SQLite}, "DB"},
		"no dialect":  {inbox.Config{DB: db.DB}, "Dialect"},
		"prefix":      {inbox.Config{DB: db.DB, Dialect: inbox.SQLite, TablePrefix: "x; DROP"}, "TablePrefix"},
		"retention":   {inbox.Config{DB: db.DB, Dialect: inbox.SQLite, Retention: time.Second}, "Retention"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := inbox.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to name %s", err, tt.want)
			}
		})
	}
}
