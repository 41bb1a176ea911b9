package messaging_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
)

type orderPlaced struct {
	Order string `json:"order"`
	Cents int64  `json:"cents"`
}

func ExampleNew() {
	driver, err := memory.NewDriver(memory.Config{})
	if err != nil {
		log.Fatal(err)
	}
	broker, err := messaging.New(driver, messaging.Config{Source: "/shop/order"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	got := make(chan string)
	_, err = broker.Subscribe(ctx, "orders", "mail", messaging.On(func(_ context.Context, e orderPlaced, d *messaging.Delivery) error {
		got <- fmt.Sprintf("%s from %s: %s for %d cents", d.Message.Type, d.Message.Source, e.Order, e.Cents)
		return nil
	}), messaging.Concurrency(16))
	if err != nil {
		log.Fatal(err)
	}
	if err := messaging.Publish(ctx, broker, "orders", "order.placed", "o-1", orderPlaced{"o-1", 1299}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got)
	if err := broker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: order.placed from /shop/order: o-1 for 1299 cents
}

func ExampleBroker_Redrive() {
	ctx := context.Background()
	broker, err := memory.New(memory.Config{})
	if err != nil {
		log.Fatal(err)
	}
	repaired := make(chan struct{})
	got := make(chan string)
	_, err = broker.Subscribe(ctx, "orders", "mail", func(_ context.Context, d *messaging.Delivery) error {
		select {
		case <-repaired:
			got <- string(d.Message.Data)
			return nil
		default:
			return messaging.Permanent(errors.New("no template for this order"))
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	dead := make(chan []messaging.Failure)
	_, err = broker.Subscribe(ctx, messaging.DeadLetterTopic("orders", "mail"), "alert", func(_ context.Context, d *messaging.Delivery) error {
		failures, err := d.Message.Failures()
		dead <- failures
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := broker.Publish(ctx, "orders", &messaging.Message{Data: []byte("o-1")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("dead:", (<-dead)[0].Error)
	close(repaired)
	go broker.Redrive(ctx, "orders", "mail", 1)
	fmt.Println("handled:", <-got)
	if err := broker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// dead: no template for this order
	// handled: o-1
}
