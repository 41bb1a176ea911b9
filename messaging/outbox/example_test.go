package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

// printer stands for a broker.
type printer struct{ done chan struct{} }

func (p printer) Publish(_ context.Context, topic string, msgs ...*messaging.Message) error {
	for _, m := range msgs {
		fmt.Printf("%s: %s %s\n", topic, m.Type, m.Data)
	}
	close(p.done)
	return nil
}

func ExampleNew() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "orders.db")+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()

	broker := printer{make(chan struct{})}
	box, err := outbox.New(outbox.Config{Dialect: outbox.SQLite, Publisher: broker})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := box.Migrate(ctx, db); err != nil {
		fmt.Println(err)
		return
	}
	stopped := make(chan error)
	go func() { stopped <- box.Run(ctx, db) }()

	err = box.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		// Your own statements go through tx too; all of it commits or none.
		return box.Publish(ctx, tx, "orders", &messaging.Message{Type: "order.placed", Key: "order-1", Data: []byte(`{"id":"order-1"}`)})
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-broker.done
	cancel()
	fmt.Println(<-stopped)
	// Output:
	// orders: order.placed {"id":"order-1"}
	// <nil>
}
