// Package infra keeps the customers in the user service's own database.
//
//	store, err := infra.NewStore(ctx, db, dialect)   // migrates, and seeds an empty database
//	users := app.New(store)
//
// Every method is one statement: what it answers is committed.
package infra

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/user/app"
	"github.com/armature-go/armature/examples/shop/user/domain"
)

var schema = []string{
	`CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, created_at BIGINT NOT NULL)`,
}

// Store is an app.Store on SQL.
type Store struct {
	db      *sql.DB
	dialect armature.Dialect
}

var _ app.Store = (*Store)(nil)

// NewStore brings the database up to date and puts the first customers into an empty one.
func NewStore(ctx context.Context, db *sql.DB, dialect armature.Dialect) (*Store, error) {
	if err := platform.Migrate(ctx, db, dialect, "user", schema); err != nil {
		return nil, err
	}
	s := &Store{db: db, dialect: dialect}
	if first, err := s.After(ctx, "", 1); err != nil || len(first) > 0 {
		return s, err
	}
	for _, u := range domain.Seed() {
		u.CreatedAt = time.Now().UTC()
		if _, err := s.Insert(ctx, u); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Insert implements app.Store.
func (s *Store) Insert(ctx context.Context, u domain.User) (domain.User, error) {
	_, err := s.db.ExecContext(ctx, s.dialect.Rebind(
		`INSERT INTO users (id, name, email, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`),
		u.ID, u.Name, u.Email, u.CreatedAt.UnixMilli())
	if err != nil {
		return domain.User{}, fmt.Errorf("user: insert %s: %w", u.ID, err)
	}
	return s.Get(ctx, u.ID)
}

// Get implements app.Store.
func (s *Store) Get(ctx context.Context, id string) (domain.User, error) {
	u, err := scan(s.db.QueryRowContext(ctx, s.dialect.Rebind(`SELECT id, name, email, created_at FROM users WHERE id = ?`), id))
	if errors.Is(err, sql.ErrNoRows) {
		return domain.User{}, fmt.Errorf("%w: %s", app.ErrNotFound, id)
	}
	if err != nil {
		return domain.User{}, fmt.Errorf("user: get %s: %w", id, err)
	}
	return u, nil
}

// After implements app.Store.
func (s *Store) After(ctx context.Context, after string, limit int) (users []domain.User, err error) {
	rows, err := s.db.QueryContext(ctx, s.dialect.Rebind(
		`SELECT id, name, email, created_at FROM users WHERE id > ? ORDER BY id LIMIT ?`), after, limit)
	if err != nil {
		return nil, fmt.Errorf("user: list: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("user: list: %w", err)
		}
		users = append(users, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("user: list: %w", err)
	}
	return users, nil
}

func scan(row interface{ Scan(dest ...any) error }) (u domain.User, err error) {
	var at int64
	err = row.Scan(&u.ID, &u.Name, &u.Email, &at)
	u.CreatedAt = time.UnixMilli(at).UTC()
	return u, err
}
