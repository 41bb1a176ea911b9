package platform

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/armature-go/armature"
)

// A service name becomes part of a file name and of a database name.
var serviceName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// DatabaseURL is the URL of one service's own database. With "sqlite:" (or "") as server it is a file of dir; with the
// URL of a PostgreSQL server it is the database "shop_<service>" there, created when missing. Two processes may call it
// at once.
func DatabaseURL(ctx context.Context, server, dir, service string) (string, error) {
	if !serviceName.MatchString(service) {
		return "", fmt.Errorf("platform: database of %q: a service name is lower-case letters, digits and underscores", service)
	}
	switch {
	case server == "" || server == "sqlite:":
		if dir == "" {
			return "", fmt.Errorf("platform: database of %s: sqlite needs a data folder", service)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("platform: database of %s: %w", service, err)
		}
		return "sqlite:" + filepath.Join(abs, service+".db"), nil
	case strings.HasPrefix(server, "postgres://"), strings.HasPrefix(server, "postgresql://"):
		return postgresDatabase(ctx, server, "shop_"+service)
	}
	return "", fmt.Errorf("platform: database of %s: %q is neither sqlite: nor a postgres:// server", service, redacted(server))
}

func postgresDatabase(ctx context.Context, server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("platform: database %s: server URL does not parse", name)
	}
	own := *u
	own.Path = "/" + name
	if u.Path == "" || u.Path == "/" {
		u.Path = "/postgres"
	}
	db, _, err := armature.OpenDB(ctx, u.String())
	if err != nil {
		return "", fmt.Errorf("platform: open server of database %s: %w", name, err)
	}
	defer func() { _ = db.Close() }()
	exists := func() (found bool, err error) {
		err = db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&found)
		return found, err
	}
	found, err := exists()
	if err != nil {
		return "", fmt.Errorf("platform: look up database %s: %w", name, err)
	}
	if !found {
		if _, err := db.ExecContext(ctx, `CREATE DATABASE "`+name+`"`); err != nil {
			// Another process may have made it in between: the catalogue decides, not the error's text.
			if found, again := exists(); again != nil || !found {
				return "", fmt.Errorf("platform: create database %s: %w", name, err)
			}
		}
	}
	return own.String(), nil
}

func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	return u.Redacted()
}

// OpenDB opens the service's own database, cfg.DB. The caller closes it.
func OpenDB(ctx context.Context, cfg Config, service string) (*sql.DB, armature.Dialect, error) {
	db, dialect, err := armature.OpenDB(ctx, cfg.DB)
	if err != nil {
		return nil, dialect, fmt.Errorf("platform: open database of %s: %w", service, err)
	}
	return db, dialect, nil
}

// Migrate brings a database to the last of steps, each of which runs once and in order; steps are only ever appended.
// Services that start at once wait for one another. Each step is one statement in one transaction with its mark.
func Migrate(ctx context.Context, db *sql.DB, dialect armature.Dialect, component string, steps []string) error {
	for {
		done, err := migrateOne(ctx, db, dialect, component, steps)
		if err != nil {
			return fmt.Errorf("platform: migrate %s: %w", component, err)
		}
		if done {
			return nil
		}
	}
}

func migrateOne(ctx context.Context, db *sql.DB, dialect armature.Dialect, component string, steps []string) (done bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }()
	if dialect == armature.PostgreSQL {
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('shop_migrations'))`); err != nil {
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS shop_migrations (
		component TEXT NOT NULL, step BIGINT NOT NULL, PRIMARY KEY (component, step))`); err != nil {
		return false, err
	}
	var next int
	if err := tx.QueryRowContext(ctx, dialect.Rebind(`SELECT COUNT(*) FROM shop_migrations WHERE component = ?`), component).Scan(&next); err != nil {
		return false, err
	}
	if next > len(steps) {
		return false, fmt.Errorf("database is at step %d, this program knows %d: start a newer program", next, len(steps))
	}
	if next == len(steps) {
		return true, tx.Commit()
	}
	if _, err := tx.ExecContext(ctx, steps[next]); err != nil {
		return false, fmt.Errorf("step %d: %w", next+1, err)
	}
	if _, err := tx.ExecContext(ctx, dialect.Rebind(`INSERT INTO shop_migrations (component, step) VALUES (?, ?)`), component, next+1); err != nil {
		return false, err
	}
	return false, tx.Commit()
}
