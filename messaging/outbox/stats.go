package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
)

// Stats is a look at the tables.
type Stats struct {
	// Pending counts committed messages that are not known to be sent, Parked those among them that were refused.
	Pending, Parked int64
	// Dead counts messages that were given up.
	Dead int64
	// Oldest is when the oldest pending message was written; zero when none is pending.
	Oldest time.Time
}

// Stats counts the rows; it reads the whole index of the table, so call it
// every few seconds rather than per request.
func (o *Outbox) Stats(ctx context.Context, db DB) (Stats, error) {
	var (
		s      Stats
		oldest int64
	)
	err := db.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(MIN(created_at), 0), COALESCE(SUM(CASE WHEN parked_until > 0 THEN 1 ELSE 0 END), 0),
		(SELECT COUNT(*) FROM `+o.store.dead+`) FROM `+o.store.rows).Scan(&s.Pending, &oldest, &s.Parked, &s.Dead)
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats: %w", err)
	}
	if s.Pending > 0 {
		s.Oldest = time.UnixMilli(oldest)
	}
	return s, nil
}

// Depth counts the messages that are not known to be sent.
func (o *Outbox) Depth(ctx context.Context, db DB) (int64, error) {
	var n int64
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+o.store.rows).Scan(&n); err != nil {
		return 0, fmt.Errorf("outbox: depth: %w", err)
	}
	return n, nil
}

// DeadMessage is a message that was given up.
type DeadMessage struct {
	// Row identifies it for Redrive.
	Row     int64
	Topic   string
	Message *messaging.Message
	// Attempts is how often the broker refused it, Reason what it said last.
	Attempts        int
	Reason          string
	Written, DiedAt time.Time
}

// Dead returns up to limit dead messages, the oldest first.
func (o *Outbox) Dead(ctx context.Context, db DB, limit int) ([]DeadMessage, error) {
	found, err := db.QueryContext(ctx, o.cfg.Dialect.Rebind("SELECT id, attempts, last_error, dead_at, "+envelope+" FROM "+o.store.dead+" ORDER BY id LIMIT ?"), limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: dead: %w", err)
	}
	defer found.Close()
	var list []DeadMessage
	for found.Next() {
		var (
			r    row
			d    DeadMessage
			died int64
		)
		if err := scan(found, &r, &d.Row, &d.Attempts, &d.Reason, &died); err != nil {
			return nil, fmt.Errorf("outbox: dead: %w", err)
		}
		d.Topic, d.Message, d.Written, d.DiedAt = r.topic, r.msg, r.created, time.UnixMilli(died)
		list = append(list, d)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("outbox: dead: %w", err)
	}
	return list, nil
}

// Redrive puts dead messages back, behind everything that is pending and with
// no attempts counted: the given rows, or all of them when none is given. It
// returns how many were put back and wakes the relay.
func (o *Outbox) Redrive(ctx context.Context, db *sql.DB, rows ...int64) (int64, error) {
	where, args := "", []any(nil)
	if len(rows) > 0 {
		where = " WHERE id IN (" + sqldb.Placeholders(len(rows)) + ")"
		for _, id := range rows {
			args = append(args, id)
		}
	}
	var n int64
	err := o.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		// Two redrives at once must not both copy a row before either deletes it.
		if o.cfg.Dialect == PostgreSQL {
			if _, err := tx.ExecContext(ctx, "LOCK TABLE "+o.store.dead+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
				return err
			}
		}
		if err := o.store.exec(ctx, tx, "INSERT INTO "+o.store.rows+" ("+envelope+") SELECT "+envelope+" FROM "+o.store.dead+where+" ORDER BY id", args...); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, o.cfg.Dialect.Rebind("DELETE FROM "+o.store.dead+where), args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("outbox: redrive: %w", err)
	}
	return n, nil
}
