package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// migrationLock is an arbitrary number that all processes agree on; it keeps
// two of them from creating the same table on PostgreSQL at the same time.
const migrationLock = 0x61726d61

// Migrate brings the tables of component up to date: it applies, in order and
// in one transaction, the steps that armature_migrations does not list yet.
// A step is one statement; released steps never change, new ones are appended.
// Any number of processes may call it at once.
func Migrate(ctx context.Context, db *sql.DB, d Dialect, component string, steps []string) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("sqldb: migrate %s: %w", component, err)
	}
	err := InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		if d == PostgreSQL {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS armature_migrations (
			component TEXT NOT NULL, version INTEGER NOT NULL, applied_at BIGINT NOT NULL,
			PRIMARY KEY (component, version))`); err != nil {
			return err
		}
		// A statement that writes takes SQLite's write lock before the read
		// below, whatever way the transaction began.
		if _, err := tx.ExecContext(ctx, "DELETE FROM armature_migrations WHERE version < 0"); err != nil {
			return err
		}
		var have int
		row := tx.QueryRowContext(ctx, d.Rebind("SELECT COALESCE(MAX(version), 0) FROM armature_migrations WHERE component = ?"), component)
		if err := row.Scan(&have); err != nil {
			return err
		}
		if have > len(steps) {
			return fmt.Errorf("the database is at version %d and this program knows %d: run the newer program", have, len(steps))
		}
		for i, step := range steps[have:] {
			version := have + i + 1
			if _, err := tx.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("step %d: %w", version, err)
			}
			if _, err := tx.ExecContext(ctx, d.Rebind("INSERT INTO armature_migrations (component, version, applied_at) VALUES (?, ?, ?)"),
				component, version, time.Now().UnixMilli()); err != nil {
				return fmt.Errorf("step %d: %w", version, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sqldb: migrate %s: %w", component, err)
	}
	return nil
}
