package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; no test takes that long unless it fails.
const patience = time.Minute

type database struct {
	*sql.DB
	dialect sqldb.Dialect
	url     string
}

func open(t *testing.T, url string) database {
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
	return database{db, d, url}
}

func onBoth(t *testing.T, run func(t *testing.T, db database)) {
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, open(t, url(t)))
		})
	}
}

func newOutbox(t *testing.T, db database, p messaging.Publisher, edit ...func(*outbox.Config)) *outbox.Outbox {
	t.Helper()
	cfg := outbox.Config{
		Dialect: db.dialect, Publisher: p,
		Poll: 10 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	}
	for _, e := range edit {
		e(&cfg)
	}
	box, err := outbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Migrate(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	return box
}

// run starts the relay and returns the function that stops it and waits.
func run(t *testing.T, box *outbox.Outbox, db database) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx, db.DB) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

func publish(t *testing.T, box *outbox.Outbox, db database, topic string, msgs ...*messaging.Message) {
	t.Helper()
	err := box.InTx(t.Context(), db.DB, func(ctx context.Context, tx *sql.Tx) error { return box.Publish(ctx, tx, topic, msgs...) })
	if err != nil {
		t.Fatal(err)
	}
}

func keyed(key string, ids ...string) []*messaging.Message {
	var msgs []*messaging.Message
	for _, id := range ids {
		msgs = append(msgs, &messaging.Message{ID: id, Key: key})
	}
	return msgs
}

func stats(t *testing.T, box *outbox.Outbox, db database) outbox.Stats {
	t.Helper()
	s, err := box.Stats(t.Context(), db.DB)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func awaitEmpty(t *testing.T, box *outbox.Outbox, db database) {
	t.Helper()
	eventually(t, "the outbox is empty", func() bool { return stats(t, box, db).Pending == 0 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

type sent struct {
	topic string
	msg   *messaging.Message
}

// broker is a Publisher that remembers, and fails as told.
type broker struct {
	// refuse fails single messages; nil refuses none.
	refuse func(topic string, m *messaging.Message) error
	// before runs at the start of each call, outside the lock; its error fails the call as a whole.
	before func(ctx context.Context, msgs []*messaging.Message) error
	// after runs when the messages are stored.
	after func()

	mu   sync.Mutex
	down error
	got  []sent
	call [][]string
}

func (b *broker) Publish(ctx context.Context, topic string, msgs ...*messaging.Message) error {
	if b.before != nil {
		if err := b.before(ctx, msgs); err != nil {
			return err
		}
	}
	err := b.store(topic, msgs)
	if b.after != nil {
		b.after()
	}
	return err
}

func (b *broker) store(topic string, msgs []*messaging.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return b.down
	}
	var ids []string
	errs := make([]error, len(msgs))
	for i, m := range msgs {
		if b.refuse != nil {
			errs[i] = b.refuse(topic, m)
		}
		if errs[i] == nil {
			b.got = append(b.got, sent{topic, m.Clone()})
			ids = append(ids, m.ID)
		}
	}
	b.call = append(b.call, ids)
	if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return &messaging.PublishError{Topic: topic, Errs: errs}
	}
	return nil
}

func (b *broker) ids() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, s := range b.got {
		ids = append(ids, s.msg.ID)
	}
	return ids
}

func (b *broker) messages() []sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *broker) setDown(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = err
}

func (b *broker) await(t *testing.T, n int) []string {
	t.Helper()
	eventually(t, "the broker has the messages", func() bool { return len(b.ids()) >= n })
	return b.ids()
}

// pinged is a broker that can be asked whether it is there.
type pinged struct{ *broker }

func (p pinged) Ping(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

var errRefused = errors.New("refused")

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }
