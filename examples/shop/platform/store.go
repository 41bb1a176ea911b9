package platform

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/messaging/inbox"
	"github.com/armature-go/armature/messaging/outbox"
	"github.com/armature-go/armature/saga"
)

// Store is a service's own database with what belongs to it: the outbox for events that leave with a state change and
// the barrier that makes a call count once. It is safe for concurrent use.
type Store struct {
	DB      *sql.DB
	Dialect armature.Dialect
	Outbox  *outbox.Outbox
	Barrier *saga.Barrier

	service string
}

// AttachDB opens the database of cfg for a service: it is ready only while the database answers, and closes it when it
// has stopped or was closed, see Abandon.
func AttachDB(ctx context.Context, svc *armature.Service, cfg Config, service string) (*sql.DB, armature.Dialect, error) {
	db, dialect, err := OpenDB(ctx, cfg, service)
	if err != nil {
		return nil, dialect, err
	}
	svc.Check("database", db.PingContext)
	svc.OnStop("database", func(context.Context) error { return db.Close() })
	return db, dialect, nil
}

// Abandon releases a service whose constructor failed half-way, and returns err with what went wrong then.
func Abandon(ctx context.Context, svc *armature.Service, err error) error {
	return errors.Join(err, svc.Close(context.WithoutCancel(ctx)))
}

// OpenStore opens and migrates the database of cfg: the service's own schema (append-only steps, one statement each),
// the outbox, the barrier. Beside what AttachDB does, the service relays the outbox as a worker.
func OpenStore(ctx context.Context, svc *armature.Service, cfg Config, service string, schema []string) (*Store, error) {
	if cfg.Broker == nil {
		return nil, fmt.Errorf("platform: store of %s: Broker is nil: the events need one", service)
	}
	db, dialect, err := AttachDB(ctx, svc, cfg, service)
	if err != nil {
		return nil, err
	}
	store, err := NewStore(ctx, db, dialect, service, schema, outbox.Config{
		Publisher:      cfg.Broker,
		Logger:         svc.Logger,
		TracerProvider: svc.TracerProvider,
		Owner:          cmp.Or(cfg.Node, service),
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	svc.Worker("outbox", func(ctx context.Context) error { return store.Outbox.Run(ctx, db) })
	return store, nil
}

// NewStore is OpenStore for a database that is open already and a relay that the caller runs: what tests use. The
// dialect of relay is filled in.
func NewStore(ctx context.Context, db *sql.DB, dialect armature.Dialect, service string, schema []string, relay outbox.Config) (*Store, error) {
	relay.Dialect = dialect
	out, err := outbox.New(relay)
	if err != nil {
		return nil, fmt.Errorf("platform: outbox of %s: %w", service, err)
	}
	barrier, err := saga.NewBarrier(saga.BarrierConfig{Dialect: dialect})
	if err != nil {
		return nil, fmt.Errorf("platform: barrier of %s: %w", service, err)
	}
	if err := Migrate(ctx, db, dialect, service, schema); err != nil {
		return nil, err
	}
	if err := out.Migrate(ctx, db); err != nil {
		return nil, fmt.Errorf("platform: migrate outbox of %s: %w", service, err)
	}
	if err := barrier.Migrate(ctx, db); err != nil {
		return nil, fmt.Errorf("platform: migrate barrier of %s: %w", service, err)
	}
	return &Store{DB: db, Dialect: dialect, Outbox: out, Barrier: barrier, service: service}, nil
}

// InTx runs fn in one transaction and wakes the relay once it is committed.
func (s *Store) InTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return s.Outbox.InTx(ctx, s.DB, fn)
}

// Emit puts events into the outbox: they leave if, and only if, tx commits.
func (s *Store) Emit(ctx context.Context, tx *sql.Tx, list ...events.Event) error {
	for _, e := range list {
		m, err := events.Message(s.service, e)
		if err != nil {
			return err
		}
		if err := s.Outbox.Publish(ctx, tx, e.Topic(), m); err != nil {
			return fmt.Errorf("platform: emit %s: %w", e.Type(), err)
		}
	}
	return nil
}

// NewInbox is the inbox of a service that consumes events: each counted once, in one transaction with what it causes.
func (s *Store) NewInbox(ctx context.Context) (*inbox.Inbox, error) {
	in, err := inbox.New(inbox.Config{DB: s.DB, Dialect: s.Dialect, AfterCommit: s.Outbox.Wake})
	if err != nil {
		return nil, fmt.Errorf("platform: inbox of %s: %w", s.service, err)
	}
	if err := in.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("platform: migrate inbox of %s: %w", s.service, err)
	}
	return in, nil
}
