package sqldb_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/armature-go/armature/internal/sqldb"
)

type sqliteError int

func (sqliteError) Error() string { return "disk I/O error" }
func (e sqliteError) Code() int   { return int(e) }

type postgresError string

func (postgresError) Error() string      { return "FATAL" }
func (e postgresError) SQLState() string { return string(e) }

func TestIsAway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"SQLITE_FULL", sqliteError(13), true},
		{"SQLITE_IOERR_FSYNC", sqliteError(1034), true},
		{"SQLITE_IOERR_WRITE", sqliteError(778), true},
		{"SQLITE_BUSY_SNAPSHOT", sqliteError(517), true},
		{"SQLITE_CANTOPEN", sqliteError(14), true},
		{"SQLITE_CONSTRAINT_UNIQUE", sqliteError(2067), false},
		{"SQLITE_CORRUPT", sqliteError(11), false},
		{"disk_full", postgresError("53100"), true},
		{"io_error", postgresError("58030"), true},
		{"cannot_connect_now", postgresError("57P03"), true},
		{"connection_failure", postgresError("08006"), true},
		{"query_canceled", postgresError("57014"), false},
		{"unique_violation", postgresError("23505"), false},
		{"no code", postgresError(""), false},
		{"a dead connection", driver.ErrBadConn, true},
		{"nobody there", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, true},
		{"no rows", sql.ErrNoRows, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.err
			if err != nil {
				err = fmt.Errorf("insert: %w", err)
			}
			if got := sqldb.IsAway(err); got != tt.want {
				t.Errorf("IsAway(%v) = %t", err, got)
			}
		})
	}
}

// A database without room refuses a transaction whole, says so, and takes the next one when there is room.
func TestInTxWithoutRoom(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	db.SetMaxOpenConns(1) // the limit is the connection's; and one that is left in a transaction would be noticed
	ctx := t.Context()
	for _, statement := range []string{"CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)", "PRAGMA max_page_count = 4"} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	insert := func() error {
		return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1, NULL)"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2, zeroblob(65536))")
			return err
		})
	}
	err := insert()
	if away, ok := errors.AsType[interface {
		error
		Unavailable() bool
	}](err); !ok || !away.Unavailable() || !sqldb.IsAway(err) {
		t.Errorf("err = %v, want one that says Unavailable()", err)
	}
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM t").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows are left of a transaction that failed, %v", n, err)
	}
	if _, err := db.ExecContext(ctx, "PRAGMA max_page_count = 1000"); err != nil {
		t.Fatal(err)
	}
	if err := insert(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestInTxLeavesOtherErrorsAlone(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	boom := errors.New("boom")
	err := sqldb.InTx(t.Context(), db, func(context.Context, *sql.Tx) error { return boom })
	if err != boom {
		t.Errorf("err = %#v, want it as it was", err)
	}
}
