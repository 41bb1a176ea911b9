package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/inbox"
)

func ExampleNew() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "inbox")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "billing.db")+"?_txlock=immediate")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()

	box, err := inbox.New(inbox.Config{DB: db, Dialect: inbox.SQLite})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := box.Migrate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	handle := box.Handle("billing", func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
		fmt.Println("charge for", d.Message.ID)
		return nil
	})
	// A broker calls the handler; here it delivers the same message twice.
	d := &messaging.Delivery{Message: &messaging.Message{ID: "order-1"}}
	fmt.Println(handle(ctx, d), handle(ctx, d))
	// Output:
	// charge for order-1
	// <nil> <nil>
}
