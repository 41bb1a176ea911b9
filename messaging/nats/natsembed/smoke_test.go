package natsembed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSmoke(t *testing.T) {
	s, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Broker()
	got := make(chan string, 10)
	_, err = b.Subscribe(t.Context(), "orders", "mail", func(ctx context.Context, d *messaging.Delivery) error {
		got <- fmt.Sprint(d.Attempt, string(d.Message.Data), d.Message.Key, d.Message.Header["x y"])
		if d.Attempt < 3 {
			return errors.New("no")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", &messaging.Message{Data: []byte("x"), Key: "ä 1"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		t.Log(<-got)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
