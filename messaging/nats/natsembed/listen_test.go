package natsembed_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

// A client in another process goes on with what it holds while the server is started again; nobody else may get it
// meanwhile.
func TestARestartLeavesTheMessagesOfLivingClientsAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	url := server.URL()
	listen := url[len("nats://"):]

	held, release := make(chan struct{}), make(chan struct{})
	handled := make(chan string, 16)
	var mu sync.Mutex
	calls := map[string]int{}
	handler := func(_ context.Context, d *messaging.Delivery) error {
		mu.Lock()
		calls[d.Message.ID]++
		first := calls["first"] == 1 && d.Message.ID == "first"
		mu.Unlock()
		if first {
			close(held)
			<-release
		}
		handled <- d.Message.ID
		return nil
	}
	var clients []*messaging.Broker
	for range 2 {
		client, err := nats.Open(t.Context(), url, nats.Config{Lease: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
		if _, err := client.Subscribe(t.Context(), "orders", "mailer", handler); err != nil {
			t.Fatal(err)
		}
	}
	if err := clients[0].Publish(t.Context(), "orders", &messaging.Message{ID: "first", Key: "a"}); err != nil {
		t.Fatal(err)
	}
	<-held
	if err := server.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server, err = natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir, Listen: listen}); err != nil {
		t.Fatal(err)
	}
	// The one that is free works on, so it would have got the other message as well.
	if err := server.Broker().Publish(t.Context(), "orders", &messaging.Message{ID: "second", Key: "b"}); err != nil {
		t.Fatal(err)
	}
	if id := <-handled; id != "second" {
		t.Errorf("%s was handled while the first message was held", id)
	}
	close(release)
	if id := <-handled; id != "first" {
		t.Errorf("%s was handled, want first", id)
	}
	for _, c := range clients {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if calls["first"] != 1 || calls["second"] != 1 {
		t.Errorf("calls = %v, want each message handled once", calls)
	}
}
