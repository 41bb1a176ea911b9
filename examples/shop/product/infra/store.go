// Package infra keeps the catalogue in the product service's own database.
//
//	store, err := infra.NewStore(ctx, db, dialect)   // migrates, and seeds an empty database
//	products := app.New(store)
package infra

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/examples/shop/product/app"
	"github.com/armature-go/armature/examples/shop/product/domain"
)

var schema = []string{
	`CREATE TABLE products (id TEXT PRIMARY KEY, name TEXT NOT NULL, price_minor BIGINT NOT NULL CHECK (price_minor > 0),
		currency TEXT NOT NULL)`,
}

// Store is an app.Store on SQL.
type Store struct {
	db      *sql.DB
	dialect armature.Dialect
}

var _ app.Store = (*Store)(nil)

// NewStore brings the database up to date and puts the first catalogue into an empty one.
func NewStore(ctx context.Context, db *sql.DB, dialect armature.Dialect) (*Store, error) {
	if err := platform.Migrate(ctx, db, dialect, "product", schema); err != nil {
		return nil, err
	}
	s := &Store{db: db, dialect: dialect}
	if list, err := s.All(ctx); err != nil || len(list) > 0 {
		return s, err
	}
	for _, p := range domain.Seed() {
		if _, err := db.ExecContext(ctx, dialect.Rebind(
			`INSERT INTO products (id, name, price_minor, currency) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`),
			p.ID, p.Name, p.Price.Minor, p.Price.Currency); err != nil {
			return nil, fmt.Errorf("product: seed %s: %w", p.ID, err)
		}
	}
	return s, nil
}

// All implements app.Store.
func (s *Store) All(ctx context.Context) ([]domain.Product, error) {
	return s.query(ctx, `SELECT id, name, price_minor, currency FROM products ORDER BY id`)
}

// ByID implements app.Store.
func (s *Store) ByID(ctx context.Context, ids []string) ([]domain.Product, error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(ids)), ", ")
	return s.query(ctx, `SELECT id, name, price_minor, currency FROM products WHERE id IN (`+marks+`)`, args...)
}

func (s *Store) query(ctx context.Context, query string, args ...any) (list []domain.Product, err error) {
	rows, err := s.db.QueryContext(ctx, s.dialect.Rebind(query), args...)
	if err != nil {
		return nil, fmt.Errorf("product: query: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var p domain.Product
		if err := rows.Scan(&p.ID, &p.Name, &p.Price.Minor, &p.Price.Currency); err != nil {
			return nil, fmt.Errorf("product: query: %w", err)
		}
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("product: query: %w", err)
	}
	return list, nil
}
