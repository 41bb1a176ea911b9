package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/armature-go/armature/internal/lease"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
)

// row is a message with what the relay knows about it.
type row struct {
	id       int64
	topic    string
	msg      *messaging.Message
	headers  string // msg.Header as JSON
	created  time.Time
	attempts int
	broken   error // the row was edited by hand and cannot be read
}

// store holds the statements. It has no state.
type store struct {
	dialect            sqldb.Dialect
	rows, dead, leases string // the tables
}

// envelope is the message in columns that read well in any SQL client. time_ns
// is the sender's own time and travels to the nanosecond.
const envelope = "msg_id, topic, msg_key, type, source, subject, content_type, time_ns, headers, data, created_at"

const envelopeColumns = 11

func newStore(d sqldb.Dialect, prefix string) store {
	return store{dialect: d, rows: prefix + "outbox", dead: prefix + "outbox_dead", leases: prefix + "outbox_lease"}
}

func (s store) steps() []string {
	columns := `
		msg_id       TEXT NOT NULL,
		topic        TEXT NOT NULL,
		msg_key      TEXT NOT NULL,
		type         TEXT NOT NULL,
		source       TEXT NOT NULL,
		subject      TEXT NOT NULL,
		content_type TEXT NOT NULL,
		time_ns      BIGINT NOT NULL,
		headers      TEXT NOT NULL,
		data         ` + s.dialect.Bytes() + ` NOT NULL,
		created_at   BIGINT NOT NULL,`
	steps := []string{
		"CREATE TABLE " + s.rows + " (id " + s.dialect.Identity() + "," + columns + `
			attempts     INTEGER NOT NULL DEFAULT 0,
			parked_until BIGINT NOT NULL DEFAULT 0,
			last_error   TEXT NOT NULL DEFAULT '')`,
		// Few rows are parked at any time, so this index is small and free to keep.
		"CREATE INDEX " + s.rows + "_parked ON " + s.rows + " (topic, msg_key, id) WHERE parked_until > 0",
		"CREATE TABLE " + s.dead + " (id BIGINT PRIMARY KEY," + columns + `
			attempts     INTEGER NOT NULL,
			last_error   TEXT NOT NULL,
			dead_at      BIGINT NOT NULL)`,
	}
	return append(steps, lease.Steps(s.leases)...)
}

func (s store) exec(ctx context.Context, db sqldb.DB, query string, args ...any) error {
	_, err := db.ExecContext(ctx, s.dialect.Rebind(query), args...)
	return err
}

func (s store) insert(ctx context.Context, tx sqldb.DB, rows []row) error {
	const chunk = 64
	for len(rows) > 0 {
		n := min(chunk, len(rows))
		args := make([]any, 0, n*envelopeColumns)
		for _, r := range rows[:n] {
			m := r.msg
			data := m.Data
			if data == nil {
				data = []byte{} // a nil slice would be NULL
			}
			args = append(args, m.ID, r.topic, m.Key, m.Type, m.Source, m.Subject, m.ContentType, m.Time.UnixNano(), r.headers, data, r.created.UnixMilli())
		}
		values := "(" + sqldb.Placeholders(envelopeColumns) + ")"
		query := "INSERT INTO " + s.rows + " (" + envelope + ") VALUES " + values + strings.Repeat(", "+values, n-1)
		if err := s.exec(ctx, tx, query, args...); err != nil {
			return fmt.Errorf("insert %d messages: %w", n, err)
		}
		rows = rows[n:]
	}
	return nil
}

// next returns the oldest rows that are neither parked nor behind a parked row
// of their key.
func (s store) next(ctx context.Context, db sqldb.DB, now time.Time, limit int) ([]*row, error) {
	// "parked_until > 0" makes the partial index usable.
	query := "SELECT id, attempts, " + envelope + " FROM " + s.rows + ` o
		WHERE parked_until <= ? AND NOT EXISTS (
			SELECT 1 FROM ` + s.rows + ` p
			WHERE p.parked_until > 0 AND p.parked_until > ? AND p.topic = o.topic AND p.msg_key = o.msg_key AND p.msg_key <> '' AND p.id < o.id)
		ORDER BY id LIMIT ?`
	ms := now.UnixMilli()
	found, err := db.QueryContext(ctx, s.dialect.Rebind(query), ms, ms, limit)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer found.Close()
	var rows []*row
	for found.Next() {
		r := &row{}
		if err := scan(found, r, &r.id, &r.attempts); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return rows, nil
}

// scan reads the columns of envelope after those of first.
func scan(from *sql.Rows, r *row, first ...any) error {
	m := &messaging.Message{}
	var ns, created int64
	if err := from.Scan(append(first, &m.ID, &r.topic, &m.Key, &m.Type, &m.Source, &m.Subject, &m.ContentType, &ns, &r.headers, &m.Data, &created)...); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(r.headers), &m.Header); err != nil {
		r.broken = fmt.Errorf("outbox: decode headers of message %s: %w", m.ID, err)
	}
	m.Time = time.Unix(0, ns).UTC()
	r.msg, r.created = m, time.UnixMilli(created)
	return nil
}

func (s store) remove(ctx context.Context, db sqldb.DB, ids []int64) error {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	if err := s.exec(ctx, db, "DELETE FROM "+s.rows+" WHERE id IN ("+sqldb.Placeholders(len(ids))+")", args...); err != nil {
		return fmt.Errorf("delete %d sent messages: %w", len(ids), err)
	}
	return nil
}

func (s store) park(ctx context.Context, tx sqldb.DB, id int64, attempts int, until time.Time, cause string) error {
	if err := s.exec(ctx, tx, "UPDATE "+s.rows+" SET attempts = ?, parked_until = ?, last_error = ? WHERE id = ?", attempts, until.UnixMilli(), cause, id); err != nil {
		return fmt.Errorf("park row %d: %w", id, err)
	}
	return nil
}

func (s store) bury(ctx context.Context, tx sqldb.DB, id int64, attempts int, now time.Time, cause string) error {
	err := s.exec(ctx, tx, "INSERT INTO "+s.dead+" (id, "+envelope+", attempts, last_error, dead_at) SELECT id, "+envelope+
		", CAST(? AS INTEGER), CAST(? AS TEXT), CAST(? AS BIGINT) FROM "+s.rows+" WHERE id = ?", attempts, cause, now.UnixMilli(), id)
	if err == nil {
		err = s.exec(ctx, tx, "DELETE FROM "+s.rows+" WHERE id = ?", id)
	}
	if err != nil {
		return fmt.Errorf("bury row %d: %w", id, err)
	}
	return nil
}

// parked returns when the first parked row is due, or the zero time.
func (s store) parked(ctx context.Context, db sqldb.DB) (time.Time, error) {
	var ms int64
	err := db.QueryRowContext(ctx, "SELECT COALESCE(MIN(parked_until), 0) FROM "+s.rows+" WHERE parked_until > 0").Scan(&ms)
	if err != nil {
		return time.Time{}, fmt.Errorf("read parked rows: %w", err)
	}
	if ms == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(ms), nil
}
