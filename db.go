package armature

import (
	"context"
	"database/sql"

	"github.com/armature-go/armature/internal/sqldb"
)

// Dialect says which SQL a database speaks. The zero value means unset.
type Dialect = sqldb.Dialect

// The dialects there are.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// OpenDB opens the database that url names and checks that it answers.
//
//	sqlite:/var/lib/shop/order.db      the program imports modernc.org/sqlite
//	postgres://user:secret@host/db     the program imports github.com/jackc/pgx/v5/stdlib
//
// SQLite files are opened so that a committed transaction survives power loss
// (write-ahead log, synchronous=FULL); append ?sync=normal for one that may lose
// its last commits and is faster. Errors never hold the password.
func OpenDB(ctx context.Context, url string) (*sql.DB, Dialect, error) {
	return sqldb.Open(ctx, url)
}
