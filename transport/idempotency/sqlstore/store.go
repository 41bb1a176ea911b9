package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/transport/idempotency"
)

// Dialect says which database the store lives in.
type Dialect = sqldb.Dialect

// The dialects.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// Config describes a [Store]. DB and Dialect are required.
type Config struct {
	// DB is not closed by the store.
	DB      *sql.DB
	Dialect Dialect

	// TablePrefix is put before idempotency; "armature_" when empty.
	TablePrefix string

	// PurgeEvery is how often Run deletes what has run out, give or take a quarter. 0
	// means ten minutes.
	PurgeEvery time.Duration

	// Logger hears when Run cannot purge. nil is silent.
	Logger *slog.Logger
}

// Store is an [idempotency.Store] in a SQL database. Safe for concurrent use.
type Store struct {
	cfg   Config
	table string

	claim, find, prolong, finish, release, purge string // statements
}

// New returns a store. It touches no database: call Migrate before the rest.
func New(cfg Config) (*Store, error) {
	if cfg.DB == nil {
		return nil, errors.New("sqlstore: configure store: DB is nil: set it to a database that all processes share")
	}
	if err := cfg.Dialect.Validate(); err != nil {
		return nil, fmt.Errorf("sqlstore: configure store: %w", err)
	}
	if cfg.TablePrefix == "" {
		cfg.TablePrefix = "armature_"
	}
	if err := sqldb.ValidPrefix(cfg.TablePrefix); err != nil {
		return nil, fmt.Errorf("sqlstore: configure store: %w", err)
	}
	if cfg.PurgeEvery == 0 {
		cfg.PurgeEvery = 10 * time.Minute
	}
	if cfg.PurgeEvery < time.Second {
		return nil, fmt.Errorf("sqlstore: configure store: PurgeEvery = %v: must be at least a second; use 0 for 10m", cfg.PurgeEvery)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, table: cfg.TablePrefix + "idempotency"}
	now := "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
	if cfg.Dialect == PostgreSQL {
		now = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
	}
	in := now + " + CAST(? AS BIGINT)" // PostgreSQL would otherwise guess a type
	s.claim = cfg.Dialect.Rebind("INSERT INTO " + s.table + " AS held (id, owner, fingerprint, expires_at) VALUES (?, ?, ?, " + in + `)
		ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, fingerprint = excluded.fingerprint, record = NULL, expires_at = excluded.expires_at
		WHERE held.expires_at <= ` + now)
	s.find = cfg.Dialect.Rebind("SELECT fingerprint, record FROM " + s.table + " WHERE id = ? AND expires_at > " + now)
	s.prolong = cfg.Dialect.Rebind("UPDATE " + s.table + " SET expires_at = " + in +
		" WHERE id = ? AND owner = ? AND record IS NULL AND expires_at > " + now)
	s.finish = cfg.Dialect.Rebind("UPDATE " + s.table + " SET expires_at = " + in + ", record = ?" +
		" WHERE id = ? AND owner = ? AND expires_at > " + now)
	s.release = cfg.Dialect.Rebind("DELETE FROM " + s.table + " WHERE id = ? AND owner = ? AND record IS NULL")
	// In portions, so that no claim waits long for the write lock.
	s.purge = cfg.Dialect.Rebind("DELETE FROM " + s.table + " WHERE id IN (SELECT id FROM " + s.table +
		" WHERE expires_at <= " + now + " ORDER BY expires_at LIMIT ?) AND expires_at <= " + now)
	return s, nil
}

// Migrate creates the table, or brings it up to date. It may run in any number of
// processes at once and does nothing when there is nothing to do.
func (s *Store) Migrate(ctx context.Context) error {
	blob := s.cfg.Dialect.Bytes()
	err := sqldb.Migrate(ctx, s.cfg.DB, s.cfg.Dialect, s.table, []string{
		"CREATE TABLE " + s.table + ` (
			id          TEXT PRIMARY KEY NOT NULL,
			owner       TEXT NOT NULL,
			fingerprint ` + blob + ` NOT NULL,
			record      ` + blob + `,
			expires_at  BIGINT NOT NULL)`,
		"CREATE INDEX " + s.table + "_expires_at ON " + s.table + " (expires_at)",
	})
	if err != nil {
		return fmt.Errorf("sqlstore: migrate: %w", err)
	}
	return nil
}

// Claim is [idempotency.Store.Claim].
func (s *Store) Claim(ctx context.Context, id string, claim idempotency.Claim) (idempotency.Entry, error) {
	for {
		n, err := s.exec(ctx, s.claim, id, claim.Owner, claim.Fingerprint[:], claim.Lease.Milliseconds())
		if err != nil {
			return idempotency.Entry{}, fmt.Errorf("sqlstore: claim key: %w", err)
		}
		if n > 0 {
			return idempotency.Entry{Claimed: true}, nil
		}
		entry, err := s.entry(ctx, id)
		if !errors.Is(err, sql.ErrNoRows) { // else it was released meanwhile
			return entry, err
		}
	}
}

func (s *Store) entry(ctx context.Context, id string) (entry idempotency.Entry, err error) {
	var print []byte
	if err := s.cfg.DB.QueryRowContext(ctx, s.find, id).Scan(&print, &entry.Record); err != nil {
		return idempotency.Entry{}, fmt.Errorf("sqlstore: read key: %w", err)
	}
	if len(print) != len(entry.Fingerprint) {
		return idempotency.Entry{}, fmt.Errorf("sqlstore: read key: the fingerprint of %s has %d bytes", id, len(print))
	}
	copy(entry.Fingerprint[:], print)
	return entry, nil
}

// Keep is [idempotency.Store.Keep].
func (s *Store) Keep(ctx context.Context, id, owner string, record []byte, d time.Duration) error {
	var n int64
	var err error
	if record == nil {
		n, err = s.exec(ctx, s.prolong, d.Milliseconds(), id, owner)
	} else {
		n, err = s.exec(ctx, s.finish, d.Milliseconds(), record, id, owner)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: keep key: %w", err)
	}
	if n == 0 {
		return idempotency.ErrLost
	}
	return nil
}

// Release is [idempotency.Store.Release].
func (s *Store) Release(ctx context.Context, id, owner string) error {
	if _, err := s.exec(ctx, s.release, id, owner); err != nil {
		return fmt.Errorf("sqlstore: release key: %w", err)
	}
	return nil
}

func (s *Store) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	result, err := s.cfg.DB.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Purge deletes what has run out and returns how many rows that were. It deletes a
// thousand at a time. Rows that have run out are only a matter of room: they count as
// not being there.
func (s *Store) Purge(ctx context.Context) (int64, error) {
	const portion = 1000
	var total int64
	for {
		n, err := s.exec(ctx, s.purge, portion)
		if err != nil {
			return total, fmt.Errorf("sqlstore: purge: %w", err)
		}
		total += n
		if n < portion {
			return total, nil
		}
	}
}

// Run purges every Config.PurgeEvery until ctx ends. It then returns nil. Any number of
// processes may run it.
func (s *Store) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Duration(float64(s.cfg.PurgeEvery) * (0.75 + rand.Float64()/2)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if _, err := s.Purge(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "sqlstore: old keys stay until the next purge", "error", err)
		}
	}
}
