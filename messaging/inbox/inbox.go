package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
)

// Dialect says which database the inbox lives in.
type Dialect = sqldb.Dialect

// The dialects.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// Config configures an Inbox. DB and Dialect are required.
type Config struct {
	// DB is the consumer's own database, where its handlers write.
	DB      *sql.DB
	Dialect Dialect
	// TablePrefix is put before inbox; "armature_" when empty.
	TablePrefix string
	// Retention is how long notes are kept by Run; default seven days, at least a minute.
	Retention time.Duration
	// AfterCommit, when set, is called after each commit of a handler: pass (*outbox.Outbox).Wake when handlers write to
	// an outbox. It must not block.
	AfterCommit func()
	// Logger hears when Run cannot purge; nil is silent.
	Logger *slog.Logger
}

// Inbox turns transactional handlers into idempotent ones. Safe for concurrent use.
type Inbox struct {
	cfg         Config
	table       string
	note, purge string // statements
}

// New returns an Inbox. It touches no database: call Migrate before the rest.
func New(cfg Config) (*Inbox, error) {
	if cfg.DB == nil {
		return nil, errors.New("inbox: new: DB is nil: set it to the database the handlers write to")
	}
	if err := cfg.Dialect.Validate(); err != nil {
		return nil, fmt.Errorf("inbox: new: %w", err)
	}
	if cfg.TablePrefix == "" {
		cfg.TablePrefix = "armature_"
	}
	if err := sqldb.ValidPrefix(cfg.TablePrefix); err != nil {
		return nil, fmt.Errorf("inbox: new: %w", err)
	}
	if cfg.Retention == 0 {
		cfg.Retention = 7 * 24 * time.Hour
	}
	if cfg.Retention < time.Minute {
		return nil, fmt.Errorf("inbox: new: Retention = %v is shorter than redeliveries take: use at least 1m, or 0 for seven days", cfg.Retention)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	table := cfg.TablePrefix + "inbox"
	return &Inbox{
		cfg:   cfg,
		table: table,
		note:  cfg.Dialect.Rebind("INSERT INTO " + table + " (consumer, msg_id, done_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"),
		// In portions, so that no handler waits long for the write lock.
		purge: cfg.Dialect.Rebind("DELETE FROM " + table + " WHERE (consumer, msg_id) IN (SELECT consumer, msg_id FROM " + table + " WHERE done_at < ? ORDER BY done_at LIMIT ?)"),
	}, nil
}

// Migrate creates the table, or brings it up to date. It may run in any number
// of processes at once and does nothing when there is nothing to do.
func (in *Inbox) Migrate(ctx context.Context) error {
	err := sqldb.Migrate(ctx, in.cfg.DB, in.cfg.Dialect, in.table, []string{
		"CREATE TABLE " + in.table + ` (
			consumer TEXT NOT NULL,
			msg_id   TEXT NOT NULL,
			done_at  BIGINT NOT NULL,
			PRIMARY KEY (consumer, msg_id))`,
		"CREATE INDEX " + in.table + "_done_at ON " + in.table + " (done_at)",
	})
	if err != nil {
		return fmt.Errorf("inbox: migrate: %w", err)
	}
	return nil
}

var errNoID = errors.New("inbox: the message has no ID, so a redelivery could not be told from a new message")

// Handle returns a handler that runs fn once per message and group, in a
// transaction that commits when fn returns nil. A repeated message is
// acknowledged at once. The error of fn comes back as it is, so that
// messaging.Permanent, RetryAfter and the others keep their meaning: all of
// them, Drop included, undo the transaction and leave no note. A message
// without an ID is a permanent error.
//
// group must be stable: a consumer that is renamed sees old messages as new.
// It costs one insert more than fn itself.
func (in *Inbox) Handle(group string, fn func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error) messaging.Handler {
	return func(ctx context.Context, d *messaging.Delivery) error {
		if d.Message.ID == "" {
			return messaging.Permanent(errNoID)
		}
		repeated := false
		err := sqldb.InTx(ctx, in.cfg.DB, func(ctx context.Context, tx *sql.Tx) error {
			// The same message in another transaction makes this wait for its end.
			res, err := tx.ExecContext(ctx, in.note, group, d.Message.ID, time.Now().UnixMilli())
			if err != nil {
				return fmt.Errorf("inbox: note message %s: %w", d.Message.ID, err)
			}
			n, err := res.RowsAffected()
			if err != nil {
				return fmt.Errorf("inbox: note message %s: %w", d.Message.ID, err)
			}
			if n == 0 {
				repeated = true
				return nil
			}
			return fn(ctx, tx, d)
		})
		if err == nil && !repeated && in.cfg.AfterCommit != nil {
			in.cfg.AfterCommit()
		}
		return err
	}
}

// Purge deletes the notes older than olderThan and returns how many there
// were. It deletes a thousand at a time.
func (in *Inbox) Purge(ctx context.Context, olderThan time.Duration) (int64, error) {
	const portion = 1000
	before := time.Now().Add(-olderThan).UnixMilli()
	var total int64
	for {
		res, err := in.cfg.DB.ExecContext(ctx, in.purge, before, portion)
		if err != nil {
			return total, fmt.Errorf("inbox: purge: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return total, fmt.Errorf("inbox: purge: %w", err)
		}
		total += n
		if n < portion {
			return total, nil
		}
	}
}

// Run purges notes older than Config.Retention, about every twentieth of it
// but at least once an hour, until ctx ends. It then returns nil. Any number of
// processes may run it.
func (in *Inbox) Run(ctx context.Context) error {
	every := min(in.cfg.Retention/20, time.Hour)
	for {
		timer := time.NewTimer(time.Duration(float64(every) * (0.75 + rand.Float64()/2)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if _, err := in.Purge(ctx, in.cfg.Retention); err != nil && ctx.Err() == nil {
			in.cfg.Logger.WarnContext(ctx, "inbox: old notes stay until the next purge", "error", err)
		}
	}
}
