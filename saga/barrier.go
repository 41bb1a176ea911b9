package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
)

// Dialect says which database a barrier's statements are written for.
type Dialect = sqldb.Dialect

// The dialects.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// DefaultTablePrefix is put before the names of this package's tables.
const DefaultTablePrefix = "armature_"

// BarrierConfig configures a [Barrier].
type BarrierConfig struct {
	// Dialect of the participant's database. Required.
	Dialect Dialect
	// TablePrefix of the table. Default [DefaultTablePrefix].
	TablePrefix string
}

// Barrier makes a participant's steps safe to repeat, to undo twice, and to
// undo before they were done. Its table lives in the participant's own
// database, and it works inside the participant's own transaction, which on
// PostgreSQL must be READ COMMITTED, the default. It is safe for concurrent use.
type Barrier struct {
	dialect Dialect
	table   string

	insert, markUndone, setResult, setUndoResult, read string
}

// States of a key in the barrier's table.
const (
	barrierDone      = 1
	barrierUndone    = 2
	barrierTombstone = 3
)

// NewBarrier returns a barrier; call [Barrier.Migrate] before its first use.
func NewBarrier(cfg BarrierConfig) (*Barrier, error) {
	if err := cfg.Dialect.Validate(); err != nil {
		return nil, fmt.Errorf("saga: new barrier: %w", err)
	}
	if err := sqldb.ValidPrefix(cfg.TablePrefix); err != nil {
		return nil, fmt.Errorf("saga: new barrier: %w", err)
	}
	if cfg.TablePrefix == "" {
		cfg.TablePrefix = DefaultTablePrefix
	}
	d, t := cfg.Dialect, cfg.TablePrefix+"saga_barrier"
	return &Barrier{
		dialect: d, table: t,
		insert:        d.Rebind("INSERT INTO " + t + " (key, state, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"),
		markUndone:    d.Rebind("UPDATE " + t + " SET state = ?, at = ? WHERE key = ? AND state = ?"),
		setResult:     d.Rebind("UPDATE " + t + " SET result = ? WHERE key = ?"),
		setUndoResult: d.Rebind("UPDATE " + t + " SET undo_result = ? WHERE key = ?"),
		read:          d.Rebind("SELECT state, result, undo_result FROM " + t + " WHERE key = ?"),
	}, nil
}

// Migrate creates the barrier's table.
func (b *Barrier) Migrate(ctx context.Context, db *sql.DB) error {
	return sqldb.Migrate(ctx, db, b.dialect, b.table, []string{
		"CREATE TABLE " + b.table + " (key TEXT PRIMARY KEY, state INTEGER NOT NULL, result " + b.dialect.Bytes() +
			", undo_result " + b.dialect.Bytes() + ", at BIGINT NOT NULL)",
	})
}

// Do runs fn at most once for each key and direction, within tx, and keeps its
// result; a repeat gets the kept result without running fn. Take key and op
// from [ParseKey]. An error of fn is returned as it is: roll the transaction
// back, and the next attempt runs fn again.
//
// The undo of a step that never happened runs nothing, succeeds, and leaves a
// tombstone; the step itself, should it arrive late, then gets [ErrUndone].
//
// Calls with the same key wait for each other's transaction. The row stays
// for as long as a saga may still be open; deleting it earlier than that
// takes the protection away.
func (b *Barrier) Do(ctx context.Context, tx sqldb.DB, key string, op Op, fn func(ctx context.Context) (result []byte, err error)) ([]byte, error) {
	if key == "" {
		return nil, Refuse(errors.New("saga: barrier: the key is empty: the call carried no idempotency key"))
	}
	if op != OpDo && op != OpUndo {
		return nil, fmt.Errorf("saga: barrier %s: op %d is neither OpDo nor OpUndo", key, op)
	}
	state := barrierDone
	if op == OpUndo {
		state = barrierTombstone
	}
	now := time.Now().UnixMilli()
	first, err := b.changed(tx.ExecContext(ctx, b.insert, key, state, now))
	if err != nil {
		return nil, fmt.Errorf("saga: barrier %s: enter: %w", key, err)
	}
	if op == OpDo {
		if first {
			return b.run(ctx, tx, key, b.setResult, fn)
		}
		have, result, _, err := b.load(ctx, tx, key)
		if err != nil {
			return nil, err
		}
		if have != barrierDone {
			return nil, fmt.Errorf("saga: barrier %s: %w", key, ErrUndone)
		}
		return result, nil
	}
	if first {
		return nil, nil
	}
	undoing, err := b.changed(tx.ExecContext(ctx, b.markUndone, barrierUndone, now, key, barrierDone))
	if err != nil {
		return nil, fmt.Errorf("saga: barrier %s: mark undone: %w", key, err)
	}
	if undoing {
		return b.run(ctx, tx, key, b.setUndoResult, fn)
	}
	_, _, result, err := b.load(ctx, tx, key)
	return result, err
}

func (b *Barrier) run(ctx context.Context, tx sqldb.DB, key, store string, fn func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	result, err := fn(ctx)
	if err != nil {
		return nil, err
	}
	if result != nil {
		if _, err := tx.ExecContext(ctx, store, result, key); err != nil {
			return nil, fmt.Errorf("saga: barrier %s: keep the result: %w", key, err)
		}
	}
	return result, nil
}

func (b *Barrier) load(ctx context.Context, tx sqldb.DB, key string) (state int, result, undoResult []byte, err error) {
	if err := tx.QueryRowContext(ctx, b.read, key).Scan(&state, &result, &undoResult); err != nil {
		return 0, nil, nil, fmt.Errorf("saga: barrier %s: read: %w", key, err)
	}
	return state, result, undoResult, nil
}

func (b *Barrier) changed(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}
