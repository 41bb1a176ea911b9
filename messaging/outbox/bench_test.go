package outbox_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

// counter is a broker that costs nothing, so that the database's part is seen.
type counter struct {
	left int
	done chan struct{}
}

func (c *counter) Publish(_ context.Context, _ string, msgs ...*messaging.Message) error {
	if c.left -= len(msgs); c.left == 0 {
		close(c.done)
	}
	return nil
}

// BenchmarkRelay measures one message from the table to a broker that answers
// at once, in batches of 500.
func BenchmarkRelay(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		b.Run(name, func(b *testing.B) {
			ctx := b.Context()
			db, d, err := sqldb.Open(ctx, url(b))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			c := &counter{left: b.N, done: make(chan struct{})}
			box, err := outbox.New(outbox.Config{Dialect: d, Publisher: c, Batch: 500, Poll: time.Second})
			if err != nil {
				b.Fatal(err)
			}
			if err := box.Migrate(ctx, db); err != nil {
				b.Fatal(err)
			}
			msgs := make([]*messaging.Message, b.N)
			for i := range msgs {
				msgs[i] = &messaging.Message{Data: make([]byte, 256)}
			}
			if err := box.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return box.Publish(ctx, tx, "orders", msgs...) }); err != nil {
				b.Fatal(err)
			}
			run, stop := context.WithCancel(ctx)
			ended := make(chan error)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- box.Run(run, db) }()
			<-c.done
			stop()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
