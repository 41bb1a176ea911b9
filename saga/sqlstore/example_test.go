package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

func ExampleNew() {
	dir, err := os.MkdirTemp("", "sqlstore")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := sql.Open("sqlite", filepath.Join(dir, "journal.db"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = db.Close() }()

	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
	if err != nil {
		panic(err)
	}
	if err := store.Migrate(context.Background()); err != nil {
		panic(err)
	}
	counts, err := store.Count(context.Background())
	fmt.Println(counts[saga.Running], err)
	// Output: 0 <nil>
}
