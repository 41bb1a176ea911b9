package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Open opens the database that rawURL names and checks that it answers.
//
//	sqlite:/path/to/file.db            write-ahead log, synchronous=FULL, foreign keys on,
//	                                   transactions begin IMMEDIATE, waits 10 s for a lock
//	sqlite:/path/to/file.db?sync=normal  a power loss may take the last commits (never
//	                                   the database); a crash of the process takes nothing
//	sqlite:/path/to/file.db?mode=ro    read only, beside another process that writes
//	postgres://user:password@host/db   as the pgx driver reads it
//
// The program must import the driver: modernc.org/sqlite, which registers
// "sqlite", or github.com/jackc/pgx/v5/stdlib, which registers "pgx". Errors
// never hold the password.
func Open(ctx context.Context, rawURL string) (*sql.DB, Dialect, error) {
	driver, dsn, dialect, err := parse(rawURL)
	if err != nil {
		return nil, 0, fmt.Errorf("sqldb: open: %w", err)
	}
	if !slices.Contains(sql.Drivers(), driver) {
		return nil, 0, fmt.Errorf("sqldb: open %s: driver %q is not linked in: import _ %q", dialect, driver, driverImports[driver])
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, 0, fmt.Errorf("sqldb: open %s: %w", Redact(rawURL), err)
	}
	// SQLite has one writer at a time, so more connections only serve readers.
	conns := 16
	if dialect == SQLite {
		conns = 8
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	if err := db.PingContext(ctx); err != nil {
		return nil, 0, fmt.Errorf("sqldb: open %s: %w", Redact(rawURL), errors.Join(err, db.Close()))
	}
	return db, dialect, nil
}

var driverImports = map[string]string{
	"sqlite": "modernc.org/sqlite",
	"pgx":    "github.com/jackc/pgx/v5/stdlib",
}

func parse(rawURL string) (driver, dsn string, dialect Dialect, err error) {
	scheme, rest, ok := strings.Cut(rawURL, ":")
	if !ok {
		return "", "", 0, fmt.Errorf("%q is no database URL: write sqlite:FILE or postgres://…", Redact(rawURL))
	}
	switch scheme {
	case "sqlite":
		dsn, err = sqliteDSN(rest)
		return "sqlite", dsn, SQLite, err
	case "postgres", "postgresql":
		u, err := url.Parse(rawURL)
		if err != nil || u.Host == "" {
			return "", "", 0, errors.New("the PostgreSQL URL cannot be read: write postgres://user:password@host:5432/database")
		}
		return "pgx", rawURL, PostgreSQL, nil
	default:
		return "", "", 0, fmt.Errorf("scheme %q is not known: use sqlite: or postgres://", scheme)
	}
}

func sqliteDSN(rest string) (string, error) {
	path, query, _ := strings.Cut(rest, "?")
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return "", fmt.Errorf("sqlite:%s has no file: each connection of the pool would see its own empty memory database, so name a file", rest)
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return "", fmt.Errorf("sqlite:%s: options: %w", path, err)
	}
	pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "foreign_keys(1)"}}
	readOnly, sync := false, "FULL"
	for name, values := range options {
		switch value := values[len(values)-1]; {
		case name == "mode" && value == "ro":
			readOnly = true
		case name == "sync" && (value == "full" || value == "normal"):
			sync = strings.ToUpper(value)
		default:
			return "", fmt.Errorf("sqlite:%s: option %s=%s is not known: use sync=full, sync=normal or mode=ro", path, name, value)
		}
	}
	if readOnly {
		pragmas.Set("mode", "ro")
	} else {
		pragmas.Add("_pragma", "journal_mode(WAL)")
		pragmas.Add("_pragma", "synchronous("+sync+")")
		pragmas.Set("_txlock", "immediate")
	}
	file := url.URL{Path: path}
	return "file:" + file.EscapedPath() + "?" + pragmas.Encode(), nil
}

// Redact returns rawURL without its password, for messages and logs. What
// cannot be read as a URL is replaced whole.
func Redact(rawURL string) string {
	if strings.HasPrefix(rawURL, "sqlite:") {
		return rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(unreadable URL)"
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
