package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/sqlstore"
)

func ExampleNew() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "idempotency")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "orders.db")+"?_txlock=immediate")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := store.Migrate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	keys, err := idempotency.New(idempotency.Config{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	charge := idempotency.Once(keys, "payments.Charge", func(_ context.Context, euros int) (string, error) {
		return fmt.Sprintf("charged %d euros", euros), nil
	})
	ctx = flow.WithIdempotencyKey(ctx, "7f6c") // a transport has done this
	fmt.Println(charge(ctx, 5))
	fmt.Println(charge(ctx, 5))
	_, err = charge(ctx, 6)
	fmt.Println(err)
	// Output:
	// charged 5 euros <nil>
	// charged 5 euros <nil>
	// FAILED_PRECONDITION: IDEMPOTENCY_KEY_REUSED: the Idempotency-Key belongs to a different request
}
