package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/lease"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
)

// Dialect says which database the outbox lives in.
type Dialect = sqldb.Dialect

// The dialects.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// DB is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type DB = sqldb.DB

// Config configures an Outbox. Only Dialect is required, and Publisher for Run.
type Config struct {
	Dialect Dialect
	// Publisher is where the relay sends; nil in a process that only writes.
	Publisher messaging.Publisher
	// TablePrefix is put before outbox, outbox_dead and outbox_lease; "armature_" when empty.
	TablePrefix string
	// Batch is how many rows the relay reads at a time, 1 to 1000; default 100.
	Batch int
	// Poll is how often the relay looks without being woken, give or take a quarter; default 250ms.
	Poll time.Duration
	// MaxAttempts is after how many refusals a message is dead; default 20, which with the default delays takes about
	// twelve minutes.
	MaxAttempts int
	// Backoff is the delay after the first refusal; it doubles with each up to MaxBackoff. Default 200ms and one minute.
	Backoff, MaxBackoff time.Duration
	// Lease is how long the others wait for a relay that died; default 5s, at least 1s.
	Lease time.Duration
	// Owner names this process among those that relay from the same database. It must be unique among the live ones;
	// a stable name (of a pod, say) lets the relay go on at once after a crash. Default a new ID.
	Owner string
	// Logger hears of failures and takeovers; nil is silent. Message data is never logged.
	Logger *slog.Logger
	// TracerProvider makes a span per relayed message that shows how long it waited; nil makes none.
	TracerProvider trace.TracerProvider
}

func (c Config) withDefaults() (Config, error) {
	if err := c.Dialect.Validate(); err != nil {
		return c, err
	}
	if c.TablePrefix == "" {
		c.TablePrefix = "armature_"
	}
	if err := sqldb.ValidPrefix(c.TablePrefix); err != nil {
		return c, err
	}
	if c.Batch == 0 {
		c.Batch = 100
	}
	if c.Batch < 1 || c.Batch > 1000 {
		return c, fmt.Errorf("Batch = %d is out of range: use 1 to 1000, or 0 for the default", c.Batch) //nolint:staticcheck // a field's name
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = 20
	}
	if c.MaxAttempts < 1 {
		return c, fmt.Errorf("MaxAttempts = %d is negative: use at least 1, or 0 for the default", c.MaxAttempts)
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		min, def time.Duration
	}{
		{"Poll", &c.Poll, time.Millisecond, 250 * time.Millisecond},
		{"Backoff", &c.Backoff, time.Millisecond, 200 * time.Millisecond},
		{"MaxBackoff", &c.MaxBackoff, time.Millisecond, time.Minute},
		{"Lease", &c.Lease, time.Second, 5 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < d.min {
			return c, fmt.Errorf("%s = %v is too short: use at least %v, or 0 for the default %v", d.name, *d.value, d.min, d.def)
		}
	}
	if c.MaxBackoff < c.Backoff {
		return c, fmt.Errorf("MaxBackoff = %v is shorter than Backoff = %v: make it at least as long", c.MaxBackoff, c.Backoff)
	}
	if c.Owner == "" {
		c.Owner = flow.NewID()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.TracerProvider == nil {
		c.TracerProvider = noop.NewTracerProvider()
	}
	return c, nil
}

// Outbox writes messages into transactions and relays the committed ones. Safe
// for concurrent use; one value serves one database.
type Outbox struct {
	cfg     Config
	store   store
	lease   *lease.Lease
	tracer  trace.Tracer
	wake    chan struct{}
	running atomic.Bool
}

// New returns an Outbox. It touches no database: call Migrate before the rest.
func New(cfg Config) (*Outbox, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("outbox: new: %w", err)
	}
	s := newStore(cfg.Dialect, cfg.TablePrefix)
	l, err := lease.New(lease.Config{Dialect: cfg.Dialect, Table: s.leases, Name: "relay", Owner: cfg.Owner, TTL: cfg.Lease})
	if err != nil {
		return nil, fmt.Errorf("outbox: new: %w", err)
	}
	return &Outbox{
		cfg:    cfg,
		store:  s,
		lease:  l,
		tracer: cfg.TracerProvider.Tracer("github.com/armature-go/armature/messaging/outbox"),
		wake:   make(chan struct{}, 1),
	}, nil
}

// Migrate creates the tables, or brings them up to date. It may run in any
// number of processes at once and does nothing when there is nothing to do.
func (o *Outbox) Migrate(ctx context.Context, db *sql.DB) error {
	if err := sqldb.Migrate(ctx, db, o.cfg.Dialect, o.store.rows, o.store.steps()); err != nil {
		return fmt.Errorf("outbox: migrate: %w", err)
	}
	return nil
}

var w3c = propagation.TraceContext{}

// Publish writes msgs into tx, to be sent to topic after tx commits. It fails
// when the topic's name is not valid or the database refuses; the transaction
// should then be rolled back. An empty ID and a zero Time are filled in, in the
// stored copy only.
//
// Trace context and flow values of ctx are stored with each message unless its
// Header has them already. Publishing one ID in two transactions gives two
// messages. After a commit of your own call Wake; InTx does both.
//
// It costs one statement per 64 messages.
func (o *Outbox) Publish(ctx context.Context, tx DB, topic string, msgs ...*messaging.Message) error {
	if err := messaging.ValidName(topic); err != nil {
		return fmt.Errorf("outbox: publish: topic: %w", err)
	}
	carried := messaging.Header{}
	flow.Inject(ctx, flow.EventHeader(carried))
	w3c.Inject(ctx, propagation.MapCarrier(carried))
	now := time.Now()
	rows := make([]row, len(msgs))
	for i, m := range msgs {
		if m == nil {
			return fmt.Errorf("outbox: publish to %q: message %d is nil", topic, i)
		}
		m = m.Clone()
		if m.ID == "" {
			m.ID = flow.NewID()
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		header := maps.Clone(carried)
		if m.Header["traceparent"] != "" {
			// A state without its parent, or another's, would be a lie.
			delete(header, "tracestate")
		}
		for name, value := range m.Header {
			if value != "" || header[name] == "" {
				header[name] = value
			}
		}
		text, err := json.Marshal(header)
		if err != nil {
			return fmt.Errorf("outbox: publish to %q: encode header of message %s: %w", topic, m.ID, err)
		}
		rows[i] = row{topic: topic, msg: m, headers: string(text), created: now}
	}
	if err := o.store.insert(ctx, tx, rows); err != nil {
		return fmt.Errorf("outbox: publish to %q: %w", topic, err)
	}
	return nil
}

// InTx runs fn in a transaction, commits when it returns nil, and wakes the
// relay. When fn fails or panics everything is rolled back, the messages
// included, and its error or panic is the caller's.
func (o *Outbox) InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if err := sqldb.InTx(ctx, db, fn); err != nil {
		return err
	}
	o.Wake()
	return nil
}

// Wake makes a relay running in this process look for rows now. It never
// blocks, and it is only about latency: polling finds the rows anyway.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default: // it is about to look already
	}
}

var errNoPublisher = errors.New("Config.Publisher is nil: set it in the process that relays")
