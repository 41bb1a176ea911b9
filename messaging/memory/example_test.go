package memory_test

import (
	"context"
	"fmt"
	"log"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
)

func ExampleNew() {
	ctx := context.Background()
	broker, err := memory.New(memory.Config{})
	if err != nil {
		log.Fatal(err)
	}
	got := make(chan string)
	_, err = broker.Subscribe(ctx, "orders", "mail", func(_ context.Context, d *messaging.Delivery) error {
		got <- fmt.Sprintf("attempt %d at %s", d.Attempt, d.Message.Data)
		if d.Attempt == 1 {
			return fmt.Errorf("mail server is down")
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := broker.Publish(ctx, "orders", &messaging.Message{Data: []byte("o-1")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got)
	fmt.Println(<-got)
	if err := broker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// attempt 1 at o-1
	// attempt 2 at o-1
}
