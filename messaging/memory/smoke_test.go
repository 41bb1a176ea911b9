package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := memory.New(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 10)
		_, err = b.Subscribe(t.Context(), "orders", "mail", func(ctx context.Context, d *messaging.Delivery) error {
			got <- d.Attempt
			if d.Attempt < 3 {
				return errors.New("no")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "orders", &messaging.Message{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		for want := 1; want <= 3; want++ {
			if a := <-got; a != want {
				t.Fatal(a)
			}
		}
		if err := b.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}
