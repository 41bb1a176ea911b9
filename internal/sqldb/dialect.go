package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// DB is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type DB interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Dialect says which database a statement is written for. The zero value is
// no dialect and is refused by every constructor.
type Dialect uint8

// The dialects.
const (
	SQLite Dialect = iota + 1
	PostgreSQL
)

// String returns the name as it is written in a message.
func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "SQLite"
	case PostgreSQL:
		return "PostgreSQL"
	default:
		return "Dialect(" + strconv.Itoa(int(d)) + ")"
	}
}

// Validate returns an error that names the fix when d is no known dialect.
func (d Dialect) Validate() error {
	if d != SQLite && d != PostgreSQL {
		return fmt.Errorf("Dialect = %v is not known: set it to SQLite or PostgreSQL", d)
	}
	return nil
}

// Rebind turns the question marks of query into the dialect's placeholders.
// A question mark inside a quoted string or identifier stays. It costs one
// pass and, on PostgreSQL, one allocation: keep the result of a hot statement.
func (d Dialect) Rebind(query string) string {
	if d != PostgreSQL || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	var quote byte
	for i := range len(query) {
		c := query[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Bytes is the column type of binary data.
func (d Dialect) Bytes() string {
	if d == PostgreSQL {
		return "BYTEA"
	}
	return "BLOB"
}

// Identity is the column definition of a primary key that the database counts
// up. Values are never used again, also after the newest row is deleted.
func (d Dialect) Identity() string {
	if d == PostgreSQL {
		return "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
	}
	return "INTEGER PRIMARY KEY AUTOINCREMENT"
}

// Placeholders returns "?, ?, ?" for n values.
func Placeholders(n int) string {
	if n <= 0 {
		return ""
	}
	return strings.Repeat("?, ", n-1) + "?"
}

var prefixPattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,31}$`)

// ValidPrefix refuses a table prefix that would need quoting. Prefixes are put
// into statements as they are, so nothing else may pass.
func ValidPrefix(prefix string) error {
	if prefix != "" && !prefixPattern.MatchString(prefix) {
		return fmt.Errorf("TablePrefix = %q is no plain identifier: use lower-case letters, digits and _, at most 32", prefix)
	}
	return nil
}

// IsUnique reports whether err is a violated unique or primary key. It reads
// the drivers' errors by their methods, SQLState and Code.
func IsUnique(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "23505"
	}
	var code interface{ Code() int }
	if errors.As(err, &code) {
		const constraintPrimaryKey, constraintUnique = 1555, 2067
		return code.Code() == constraintPrimaryKey || code.Code() == constraintUnique
	}
	return false
}
