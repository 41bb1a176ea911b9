package sqldb

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/armature-go/armature/internal/failpoint"
)

// InTx runs fn in a transaction and commits when it returns nil. When fn
// returns an error or panics, everything is rolled back and the error or the
// panic goes on to the caller. An error for which [IsAway] holds also says so
// by a method Unavailable() bool, which makes it UNAVAILABLE on the wire.
//
// On SQLite a transaction that reads before it writes can fail with a busy
// snapshot unless it begins IMMEDIATE; databases opened with [Open] do.
func InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return markAway(fmt.Errorf("begin transaction: %w", err))
	}
	done := false
	defer func() {
		if !done {
			// The error of fn, or its panic, is the one that matters.
			_ = tx.Rollback()
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return markAway(err)
	}
	done = true
	if err := tx.Commit(); err != nil {
		return markAway(fmt.Errorf("commit transaction: %w", err))
	}
	failpoint.Caller()
	return nil
}
