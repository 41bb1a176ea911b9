// Package infra connects the notification service to its database, to the user service and to the mail server.
//
//	store := infra.NewStore(shared)                       // a database with the Schema
//	mailer, err := infra.NewMailer(svc, cfg.MailURL)
//	notifications := app.New(store, infra.NewDirectory(users), mailer, infra.Resume)
//
// An order gets each kind of mail at most once, whatever is delivered how often: the table says so.
package infra

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/examples/shop/notification/app"
	"github.com/armature-go/armature/examples/shop/notification/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/flow"
)

// Schema is the service's own tables, append-only, one statement a step.
func Schema() []string {
	return []string{
		`CREATE TABLE notifications (
			id         TEXT   NOT NULL PRIMARY KEY,
			order_id   TEXT   NOT NULL,
			kind       TEXT   NOT NULL,
			state      TEXT   NOT NULL,
			created_at BIGINT NOT NULL,
			sent_at    BIGINT NOT NULL DEFAULT 0,
			UNIQUE (order_id, kind))`,
		`CREATE TABLE recipients (
			order_id    TEXT NOT NULL PRIMARY KEY,
			customer_id TEXT NOT NULL)`,
		`CREATE INDEX notifications_pending ON notifications (state, id)`,
		`ALTER TABLE notifications ADD COLUMN traceparent TEXT NOT NULL DEFAULT ''`,
		`ALTER TABLE notifications ADD COLUMN correlation_id TEXT NOT NULL DEFAULT ''`,
	}
}

// Store is an app.Store on SQL. It is safe for concurrent use.
type Store struct{ db *platform.Store }

var _ app.Store = (*Store)(nil)

// NewStore returns a Store in a database that has the Schema.
func NewStore(db *platform.Store) *Store { return &Store{db: db} }

// Note is described by app.Store.
func (s *Store) Note(ctx context.Context, tx *sql.Tx, kind domain.Kind, orderID, customerID string) error {
	if customerID != "" {
		if _, err := tx.ExecContext(ctx, s.db.Dialect.Rebind(
			`INSERT INTO recipients (order_id, customer_id) VALUES (?, ?) ON CONFLICT (order_id) DO NOTHING`),
			orderID, customerID); err != nil {
			return fmt.Errorf("notification: note customer of order %s: %w", orderID, err)
		}
	}
	if kind == domain.None {
		return nil
	}
	origin := originOf(ctx)
	if _, err := tx.ExecContext(ctx, s.db.Dialect.Rebind(`INSERT INTO notifications
		(id, order_id, kind, state, created_at, traceparent, correlation_id) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (order_id, kind) DO NOTHING`),
		flow.NewID(), orderID, string(kind), string(domain.Pending), time.Now().UnixMilli(),
		origin.TraceParent, origin.CorrelationID); err != nil {
		return fmt.Errorf("notification: note %s of order %s: %w", kind, orderID, err)
	}
	return nil
}

const columns = `SELECT n.id, n.order_id, COALESCE(r.customer_id, ''), n.kind, n.state, n.created_at, n.traceparent, n.correlation_id
	FROM notifications n LEFT JOIN recipients r ON r.order_id = n.order_id `

// Pending is described by app.Store.
func (s *Store) Pending(ctx context.Context, after string, limit int) ([]domain.Notification, error) {
	return s.query(ctx, columns+`WHERE n.state = ? AND n.id > ? AND r.customer_id IS NOT NULL ORDER BY n.id LIMIT ?`,
		string(domain.Pending), after, limit)
}

// List is described by app.Store.
func (s *Store) List(ctx context.Context, orderID string) ([]domain.Notification, error) {
	return s.query(ctx, columns+`WHERE n.order_id = ? ORDER BY n.created_at, n.id`, orderID)
}

// MarkSent is described by app.Store.
func (s *Store) MarkSent(ctx context.Context, id string) error {
	_, err := s.db.DB.ExecContext(ctx, s.db.Dialect.Rebind(
		`UPDATE notifications SET state = ?, sent_at = ? WHERE id = ? AND state = ?`),
		string(domain.Sent), time.Now().UnixMilli(), id, string(domain.Pending))
	if err != nil {
		return fmt.Errorf("notification: mark %s sent: %w", id, err)
	}
	return nil
}

func (s *Store) query(ctx context.Context, query string, args ...any) (list []domain.Notification, err error) {
	rows, err := s.db.DB.QueryContext(ctx, s.db.Dialect.Rebind(query), args...)
	if err != nil {
		return nil, fmt.Errorf("notification: load: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			n       domain.Notification
			created int64
		)
		if err := rows.Scan(&n.ID, &n.OrderID, &n.CustomerID, &n.Kind, &n.State, &created,
			&n.Origin.TraceParent, &n.Origin.CorrelationID); err != nil {
			return nil, fmt.Errorf("notification: load: %w", err)
		}
		n.CreatedAt = time.UnixMilli(created)
		list = append(list, n)
	}
	return list, rows.Err()
}
