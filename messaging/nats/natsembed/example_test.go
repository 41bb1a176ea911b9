package natsembed_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "events")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	server, err := natsembed.Open(ctx, natsembed.Config{StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	broker := server.Broker()
	done := make(chan string)
	_, err = broker.Subscribe(ctx, "orders", "mail", func(_ context.Context, d *messaging.Delivery) error {
		done <- fmt.Sprintf("%s %s", d.Message.Type, d.Message.Data)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Publish returns when the message is on disk.
	if err := broker.Publish(ctx, "orders", &messaging.Message{Type: "order.placed", Data: []byte("o-1")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-done)
	if err := server.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: order.placed o-1
}
