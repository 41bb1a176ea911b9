package nats_test

import (
	"context"
	"fmt"
	"log"
	"os"

	natsgo "github.com/nats-io/nats.go"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

// exampleServer stands for a NATS server of your own.
func exampleServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "nats")
	if err != nil {
		log.Fatal(err)
	}
	s, err := natsembed.Open(context.Background(), natsembed.Config{StoreDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	return s.URL(), func() {
		s.Close(context.Background())
		os.RemoveAll(dir)
	}
}

func ExampleOpen() {
	url, stop := exampleServer() // for example "nats://127.0.0.1:4222"
	defer stop()
	ctx := context.Background()
	broker, err := nats.Open(ctx, url, nats.Config{})
	if err != nil {
		log.Fatal(err)
	}
	// The group exists from here on: what is published before it subscribes waits for it.
	if err := broker.Ensure(ctx, "orders", "mail"); err != nil {
		log.Fatal(err)
	}
	if err := broker.Publish(ctx, "orders", &messaging.Message{Data: []byte("o-1")}); err != nil {
		log.Fatal(err)
	}
	got := make(chan string)
	_, err = broker.Subscribe(ctx, "orders", "mail", func(_ context.Context, d *messaging.Delivery) error {
		got <- string(d.Message.Data)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got)
	if err := broker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: o-1
}

func ExampleNew() {
	url, stop := exampleServer()
	defer stop()
	ctx := context.Background()
	nc, err := natsgo.Connect(url, natsgo.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	broker, err := nats.New(ctx, nc, nats.Config{}) // the connection is the broker's from here on
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(broker.Ping(ctx), broker.Close(ctx), nc.IsClosed())
	// Output: <nil> <nil> true
}
