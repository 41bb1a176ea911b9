package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

type trip struct {
	Guest string
	Room  int
}

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	db, cleanup := exampleDB(ctx)
	defer cleanup()
	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
	if err != nil {
		panic(err)
	}
	if err := store.Migrate(ctx); err != nil {
		panic(err)
	}

	def, err := saga.Define("book-trip", 1,
		saga.Step("room", func(_ context.Context, t *trip) error {
			t.Room = 12
			fmt.Println("room", t.Room, "booked for", t.Guest)
			return nil
		}).Undo(func(_ context.Context, t *trip) error {
			fmt.Println("room", t.Room, "given back")
			return nil
		}),
		saga.Step("flight", func(context.Context, *trip) error {
			return saga.Refuse(errors.New("no seats"))
		}).NoUndo().Pivot(),
	)
	if err != nil {
		panic(err)
	}
	c, err := saga.NewCoordinator(saga.Config{Store: store, Node: "travel-1"})
	if err != nil {
		panic(err)
	}
	if err := saga.Register(c, def); err != nil {
		panic(err)
	}
	stopped := make(chan error)
	go func() { stopped <- c.Run(ctx) }()

	if err := saga.Start(ctx, c, def, "trip-1", &trip{Guest: "Ann"}); err != nil {
		panic(err)
	}
	info, err := c.Wait(ctx, "trip-1")
	if err != nil {
		panic(err)
	}
	fmt.Println(info.Status+":", info.Error)
	cancel()
	<-stopped
	// Output:
	// room 12 booked for Ann
	// room 12 given back
	// compensated: no seats
}

func ExampleNewBarrier() {
	ctx := context.Background()
	db, cleanup := exampleDB(ctx)
	defer cleanup()
	b, err := saga.NewBarrier(saga.BarrierConfig{Dialect: saga.SQLite})
	if err != nil {
		panic(err)
	}
	if err := b.Migrate(ctx, db); err != nil {
		panic(err)
	}
	handle := func(key string) {
		base, op := saga.ParseKey(key)
		err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			_, err := b.Do(ctx, tx, base, op, func(context.Context) ([]byte, error) {
				fmt.Println("effect of", op, base)
				return nil, nil
			})
			return err
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	handle("order-1/charge")
	handle("order-1/charge")      // a repeat: no effect
	handle("order-2/charge/undo") // the undo overtook its step: no effect
	handle("order-2/charge")      // and the step is refused when it arrives
	// Output:
	// effect of do order-1/charge
	// saga: barrier order-2/charge: saga: step was already undone
}

func exampleDB(ctx context.Context) (*sql.DB, func()) {
	dir, err := os.MkdirTemp("", "saga")
	if err != nil {
		panic(err)
	}
	db, _, err := sqldb.Open(ctx, "sqlite:"+filepath.Join(dir, "example.db"))
	if err != nil {
		panic(err)
	}
	return db, func() {
		_ = db.Close()
		_ = os.RemoveAll(dir)
	}
}
