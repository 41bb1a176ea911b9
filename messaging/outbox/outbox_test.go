package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestCommittedMessagesLeaveOnceAndWhole(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b)
		full := &messaging.Message{
			ID: "id-1", Type: "order.placed", Source: "/shop/order", Subject: "order-1", Key: "order-1", ContentType: "application/json",
			Time:   time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC),
			Header: messaging.Header{"tenant": "blue", "quote": `"\ é`},
			Data:   []byte{0, 1, 0xff},
		}
		bare := &messaging.Message{}
		publish(t, box, db, "orders", full, bare)
		publish(t, box, db, "mail", full) // the same ID again is another message
		run(t, box, db)
		b.await(t, 3)
		awaitEmpty(t, box, db)

		byTopic := map[string][]*messaging.Message{}
		for _, s := range b.messages() {
			byTopic[s.topic] = append(byTopic[s.topic], s.msg)
		}
		if diff := cmp.Diff(full, byTopic["orders"][0]); diff != "" {
			t.Errorf("the message changed on its way (-written +sent):\n%s", diff)
		}
		if got := byTopic["orders"][1]; got.ID == "" || got.Time.IsZero() {
			t.Errorf("ID %q and Time %v were not filled in", got.ID, got.Time)
		}
		if bare.ID != "" {
			t.Error("the caller's message was changed")
		}
		if len(byTopic["mail"]) != 1 || len(b.ids()) != 3 {
			t.Errorf("sent %v", b.ids())
		}
	})
}

func TestRolledBackMessagesNeverLeave(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b)
		run(t, box, db)
		boom := errors.New("boom")
		for name, end := range map[string]func() error{
			"error": func() error { return boom },
			"panic": func() error { panic(boom) },
		} {
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = p.(error)
					}
				}()
				return box.InTx(t.Context(), db.DB, func(ctx context.Context, tx *sql.Tx) error {
					return errors.Join(box.Publish(ctx, tx, "orders", &messaging.Message{ID: name}), end())
				})
			}()
			if !errors.Is(err, boom) {
				t.Errorf("%s: InTx returned %v, want the cause", name, err)
			}
		}
		publish(t, box, db, "orders", &messaging.Message{ID: "committed"})
		if got := b.await(t, 1); len(got) != 1 || got[0] != "committed" {
			t.Errorf("sent %v, want the committed message alone", got)
		}
	})
}

func TestManyMessagesInOneTransaction(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Batch = 70 })
		var msgs []*messaging.Message
		var want []string
		for i := range 300 { // more than one statement, more than one batch
			want = append(want, fmt.Sprint(i))
			msgs = append(msgs, &messaging.Message{ID: want[i]})
		}
		publish(t, box, db, "orders", msgs...)
		run(t, box, db)
		if diff := cmp.Diff(want, b.await(t, len(want))); diff != "" {
			t.Errorf("order (-written +sent):\n%s", diff)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.call) != 5 {
			t.Errorf("%d calls for 300 messages in batches of 70, want 5", len(b.call))
		}
	})
}

func TestTheSendersContextTravels(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		spans := tracetest.NewSpanRecorder()
		tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		b := &broker{}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.TracerProvider = tp })

		ctx, span := tp.Tracer("test").Start(t.Context(), "place order")
		ctx = flow.WithCorrelationID(ctx, "corr-1")
		ctx = flow.WithSaga(ctx, "saga-1", 3)
		err := box.InTx(ctx, db.DB, func(ctx context.Context, tx *sql.Tx) error {
			return box.Publish(ctx, tx, "orders",
				&messaging.Message{ID: "captured"},
				&messaging.Message{ID: "own", Header: messaging.Header{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "correlationid": "mine"}})
		})
		span.End()
		if err != nil {
			t.Fatal(err)
		}
		// The relay runs under a context of its own, which must not leak into the messages.
		run(t, box, db)
		b.await(t, 2)
		awaitEmpty(t, box, db)

		captured, own := b.messages()[0].msg.Header, b.messages()[1].msg.Header
		sc := span.SpanContext()
		want := messaging.Header{
			"traceparent":   fmt.Sprintf("00-%s-%s-01", sc.TraceID(), sc.SpanID()),
			"correlationid": "corr-1", "sagaid": "saga-1", "sagaepoch": "3",
		}
		if diff := cmp.Diff(want, captured); diff != "" {
			t.Errorf("captured header (-want +got):\n%s", diff)
		}
		if own["traceparent"] != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" || own["correlationid"] != "mine" {
			t.Errorf("the message's own header was replaced: %v", own)
		}
		relayed := 0
		for _, s := range spans.Ended() {
			if s.Name() == "relay orders" && s.Parent().SpanID() == sc.SpanID() && s.SpanContext().TraceID() == sc.TraceID() {
				relayed++
			}
		}
		if relayed != 1 {
			t.Errorf("%d spans of the relay in the sender's trace, want 1", relayed)
		}
		if trace.SpanContextFromContext(t.Context()).IsValid() {
			t.Error("the test's own context has a span, so it proves nothing")
		}
	})
}

func TestStatsAndDepth(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		box := newOutbox(t, db, &broker{})
		if s := stats(t, box, db); s != (outbox.Stats{}) {
			t.Errorf("an empty outbox has %+v", s)
		}
		before := time.Now().Truncate(time.Millisecond)
		publish(t, box, db, "orders", keyed("", "a", "b")...)
		s := stats(t, box, db)
		if s.Pending != 2 || s.Dead != 0 || s.Parked != 0 || s.Oldest.Before(before) || s.Oldest.After(time.Now()) {
			t.Errorf("got %+v, want 2 pending since just now", s)
		}
		if n, err := box.Depth(t.Context(), db.DB); err != nil || n != 2 {
			t.Errorf("depth %d, %v; want 2", n, err)
		}
	})
}

func TestMigrateTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		box := newOutbox(t, db, &broker{})
		publish(t, box, db, "orders", keyed("", "kept")...)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := box.Migrate(t.Context(), db.DB); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		other := newOutbox(t, db, &broker{}, func(c *outbox.Config) { c.TablePrefix = "other_" })
		if n := stats(t, other, db).Pending; n != 0 {
			t.Errorf("another prefix sees %d rows", n)
		}
		if n := stats(t, box, db).Pending; n != 1 {
			t.Errorf("%d rows after migrating again, want the one", n)
		}
	})
}

func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite:"+t.TempDir()+"/test.db")
	box := newOutbox(t, db, nil)
	for name, tt := range map[string]struct {
		topic string
		msg   *messaging.Message
		want  string
	}{
		"no topic":    {"", &messaging.Message{}, "topic"},
		"wrong topic": {"a b", &messaging.Message{}, "topic"},
		"nil":         {"orders", nil, "message 0 is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := box.Publish(t.Context(), db.DB, tt.topic, tt.msg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cfg  outbox.Config
		want string
	}{
		"no dialect":  {outbox.Config{}, "Dialect"},
		"prefix":      {outbox.Config{TablePrefix: "x; DROP"}, "TablePrefix"},
		"batch":       {outbox.Config{Batch: 1001}, "Batch"},
		"poll":        {outbox.Config{Poll: -1}, "Poll"},
		"attempts":    {outbox.Config{MaxAttempts: -1}, "MaxAttempts"},
		"backoff":     {outbox.Config{Backoff: time.Nanosecond}, "Backoff"},
		"max backoff": {outbox.Config{Backoff: time.Second, MaxBackoff: time.Millisecond}, "MaxBackoff"},
		"lease":       {outbox.Config{Lease: time.Millisecond}, "Lease"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "no dialect" {
				tt.cfg.Dialect = outbox.SQLite
			}
			if _, err := outbox.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to name %s", err, tt.want)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite:"+t.TempDir()+"/test.db")
	if err := newOutbox(t, db, nil).Run(t.Context(), db.DB); err == nil || !strings.Contains(err.Error(), "Publisher") {
		t.Errorf("no publisher: %v", err)
	}
	b := &broker{}
	box := newOutbox(t, db, b)
	if err := box.Run(t.Context(), nil); err == nil {
		t.Error("ran without a database")
	}
	stop := run(t, box, db)
	publish(t, box, db, "orders", keyed("", "a")...)
	b.await(t, 1) // it runs
	if err := box.Run(t.Context(), db.DB); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second Run: %v", err)
	}
	stop()
	run(t, box, db) // after the first ended it may run again
	publish(t, box, db, "orders", keyed("", "b")...)
	b.await(t, 2)
}
