package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
)

// ErrLost is returned once the lease has expired or was taken over.
var ErrLost = errors.New("lease: lost")

// Config names one lease. All fields are required.
type Config struct {
	Dialect sqldb.Dialect
	// Table is where the lease is kept; see [Steps].
	Table string
	// Name is the lease among those of the table.
	Name string
	// Owner is unique among the live processes. One that comes back under the
	// same name takes its own lease at once instead of waiting for the TTL.
	Owner string
	// TTL is how long the lease outlives a holder that died; at least 100 ms.
	TTL time.Duration
}

// Lease is the right to work, before it is held. Safe for concurrent use.
type Lease struct {
	cfg Config
	now string // the clock as an SQL expression
}

// Steps returns the migration that makes table.
func Steps(table string) []string {
	return []string{
		"CREATE TABLE " + table + ` (
			name       TEXT PRIMARY KEY,
			owner      TEXT NOT NULL,
			epoch      BIGINT NOT NULL,
			expires_at BIGINT NOT NULL)`,
	}
}

// New checks cfg.
func New(cfg Config) (*Lease, error) {
	if err := cfg.Dialect.Validate(); err != nil {
		return nil, fmt.Errorf("lease: new: %w", err)
	}
	for _, f := range []struct{ name, value string }{{"Table", cfg.Table}, {"Name", cfg.Name}, {"Owner", cfg.Owner}} {
		if f.value == "" {
			return nil, fmt.Errorf("lease: new: %s is empty: set it", f.name)
		}
	}
	if cfg.TTL < 100*time.Millisecond {
		return nil, fmt.Errorf("lease: new: TTL = %v is shorter than the renewals need: use at least 100ms", cfg.TTL)
	}
	now := "CAST(? AS BIGINT)"
	if cfg.Dialect == sqldb.PostgreSQL {
		// The argument is still taken, so that both dialects bind alike.
		now = "(CAST(? AS BIGINT) * 0 + CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))"
	}
	return &Lease{cfg: cfg, now: now}, nil
}

func (l *Lease) sql(query string) string { return l.cfg.Dialect.Rebind(query) }

// Acquire takes the lease when it is free, expired or left behind by the same
// owner, and returns nil without an error when somebody else holds it. The
// common answer, "held by another", costs one read and takes no lock.
func (l *Lease) Acquire(ctx context.Context, db sqldb.DB) (*Held, error) {
	asked := time.Now()
	var (
		owner string
		epoch int64
		live  bool
	)
	err := db.QueryRowContext(ctx, l.sql("SELECT owner, epoch, expires_at > "+l.now+" FROM "+l.cfg.Table+" WHERE name = ?"),
		asked.UnixMilli(), l.cfg.Name).Scan(&owner, &epoch, &live)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		_, err = db.ExecContext(ctx, l.sql("INSERT INTO "+l.cfg.Table+" (name, owner, epoch, expires_at) VALUES (?, '', 0, 0) ON CONFLICT DO NOTHING"), l.cfg.Name)
		owner, epoch, live = "", 0, false
	case err == nil && live && owner != l.cfg.Owner:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lease: acquire %s: %w", l.cfg.Name, err)
	}
	// The epoch that was read decides between those who saw the lease free.
	n, err := l.update(ctx, db, "UPDATE "+l.cfg.Table+" SET owner = ?, epoch = epoch + 1, expires_at = "+l.now+" + ? WHERE name = ? AND epoch = ? AND owner = ?",
		l.cfg.Owner, asked.UnixMilli(), l.cfg.TTL.Milliseconds(), l.cfg.Name, epoch, owner)
	if err != nil {
		return nil, fmt.Errorf("lease: acquire %s: %w", l.cfg.Name, err)
	}
	if n == 0 {
		return nil, nil
	}
	h := &Held{lease: l, epoch: epoch + 1}
	until := asked.Add(l.cfg.TTL)
	h.until.Store(&until)
	return h, nil
}

func (l *Lease) update(ctx context.Context, db sqldb.DB, query string, args ...any) (int64, error) {
	res, err := db.ExecContext(ctx, l.sql(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Held is a lease that was acquired. Safe for concurrent use.
type Held struct {
	lease *Lease
	epoch int64
	until atomic.Pointer[time.Time]
}

// Epoch is greater than the epoch of every earlier holder.
func (h *Held) Epoch() int64 { return h.epoch }

// Until is the moment up to which nobody else can hold the lease. It moves on
// with each successful Renew.
func (h *Held) Until() time.Time { return *h.until.Load() }

// Renew extends the lease to one TTL from now. An error other than [ErrLost]
// means that the database did not answer: the lease holds until [Held.Until].
func (h *Held) Renew(ctx context.Context, db sqldb.DB) error {
	l, asked := h.lease, time.Now()
	// An expired lease nobody wanted is still ours: the epoch tells.
	n, err := l.update(ctx, db, "UPDATE "+l.cfg.Table+" SET expires_at = "+l.now+" + ? WHERE name = ? AND epoch = ?",
		asked.UnixMilli(), l.cfg.TTL.Milliseconds(), l.cfg.Name, h.epoch)
	if err != nil {
		return fmt.Errorf("lease: renew %s: %w", l.cfg.Name, err)
	}
	if n == 0 {
		return ErrLost
	}
	until := asked.Add(l.cfg.TTL)
	h.until.Store(&until)
	return nil
}

// Fence locks the lease inside tx and fails with [ErrLost] when it was taken
// over: make it the first statement of the transaction.
func (h *Held) Fence(ctx context.Context, tx *sql.Tx) error {
	l := h.lease
	n, err := l.update(ctx, tx, "UPDATE "+l.cfg.Table+" SET epoch = epoch WHERE name = ? AND epoch = ?", l.cfg.Name, h.epoch)
	if err != nil {
		return fmt.Errorf("lease: fence %s: %w", l.cfg.Name, err)
	}
	if n == 0 {
		return ErrLost
	}
	return nil
}

// Release gives the lease back. Releasing one that was lost does nothing.
func (h *Held) Release(ctx context.Context, db sqldb.DB) error {
	l := h.lease
	// The epoch grows, so that a renewal under way cannot bring the lease back.
	_, err := l.update(ctx, db, "UPDATE "+l.cfg.Table+" SET owner = '', epoch = epoch + 1, expires_at = 0 WHERE name = ? AND epoch = ?", l.cfg.Name, h.epoch)
	if err != nil {
		return fmt.Errorf("lease: release %s: %w", l.cfg.Name, err)
	}
	return nil
}
