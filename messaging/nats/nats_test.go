package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/messagingtest"
	"github.com/armature-go/armature/messaging/nats"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server starts a server that listens on a loopback port.
func server(t testing.TB, dir, listen string) *natsembed.Server {
	t.Helper()
	s, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir, Listen: listen, SyncInterval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

func open(t testing.TB, url string, cfg nats.Config) *messaging.Broker {
	t.Helper()
	b, err := nats.Open(t.Context(), url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		b.Close(ctx)
	})
	return b
}

func next[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func TestConformanceOverTCP(t *testing.T) {
	messagingtest.Run(t, messagingtest.Config{
		Features: messagingtest.Features{Deduplicates: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			return open(t, server(t, t.TempDir(), "127.0.0.1:0").URL(), nats.Config{TracerProvider: tp})
		},
	})
}

// Messages of strangers that are no CloudEvents, or whose headers have two values, crash consumers elsewhere.
func TestForeignMessagesAreDeadLetters(t *testing.T) {
	t.Parallel()
	s := server(t, t.TempDir(), "127.0.0.1:0")
	b := open(t, s.URL(), nats.Config{})
	handled := make(chan string, 10)
	if _, err := b.Subscribe(t.Context(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		handled <- d.Message.ID
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	dead := make(chan *messaging.Message, 10)
	if _, err := b.Subscribe(t.Context(), messaging.DeadLetterTopic("topic", "group"), "inspect", func(_ context.Context, d *messaging.Delivery) error {
		dead <- d.Message
		return nil
	}, messaging.Concurrency(1)); err != nil {
		t.Fatal(err)
	}
	nc, err := natsgo.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for name, m := range map[string]*natsgo.Msg{
		"plain":      {Data: []byte("just bytes")},
		"empty":      {},
		"two values": {Header: natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {"7"}, "ce-type": {"t"}, "ce-source": {"/s"}, "X": {"a", "b"}}},
		"bad json":   {Header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, Data: []byte("{")},
		"status":     {Header: natsgo.Header{"Status": {"409"}, "Description": {"Consumer Deleted"}}},
	} {
		m.Subject = "topic"
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		d := next(t, dead)
		fs, err := d.Failures()
		if err != nil || len(fs) != 1 || !strings.Contains(fs[0].Error, "no CloudEvent") || string(d.Data) != string(m.Data) || d.ID == "" {
			t.Errorf("%s: dead letter is %+v, failures %v, %v", name, d, fs, err)
		}
	}
	structured := &natsgo.Msg{Subject: "topic", Header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, Data: []byte(`{"specversion":"1.0","id":"good","type":"t","source":"/s","data":{}}`)}
	if err := nc.PublishMsg(structured); err != nil {
		t.Fatal(err)
	}
	if id := next(t, handled); id != "good" {
		t.Errorf("handled %q", id)
	}
}

func TestWireFormat(t *testing.T) {
	t.Parallel()
	s := server(t, t.TempDir(), "127.0.0.1:0")
	b := open(t, s.URL(), nats.Config{})
	nc, err := natsgo.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders.placed", &messaging.Message{ID: "1", Type: "order.placed", Source: "/order", Key: "o 1", ContentType: "application/json",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Header: messaging.Header{"tenant": "ä", "x-other": "y"}, Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-type": "order.placed", "ce-source": "/order", "ce-partitionkey": "o%201", "ce-time": "2026-01-02T03:04:05Z",
		"content-type": "application/json", "ce-tenant": "%C3%A4", "x-other": "y", "Nats-Msg-Id": "1",
	}
	if len(m.Header) != len(want) {
		t.Errorf("headers are %v", m.Header)
	}
	for name, value := range want {
		if m.Header.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, m.Header.Get(name), value)
		}
	}
}

// Publishes more than a window at once, from many goroutines: the client alone gives up after 200 ms on a full window.
func TestWindow(t *testing.T) {
	t.Parallel()
	b := open(t, server(t, t.TempDir(), "127.0.0.1:0").URL(), nats.Config{Window: 4})
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			msgs := make([]*messaging.Message, 100)
			for i := range msgs {
				msgs[i] = &messaging.Message{Data: []byte("x")}
			}
			errs <- b.Publish(t.Context(), "topic", msgs...)
		})
	}
	wg.Wait()
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestTooLargeMessageFailsAlone(t *testing.T) {
	t.Parallel()
	b := open(t, server(t, t.TempDir(), "127.0.0.1:0").URL(), nats.Config{})
	err := b.Publish(t.Context(), "topic", &messaging.Message{Data: []byte("x")}, &messaging.Message{Data: make([]byte, 9<<20)}, &messaging.Message{Data: []byte("y")})
	var failed *messaging.PublishError
	if !errors.As(err, &failed) || fmt.Sprint(failed.Failed()) != "[1]" {
		t.Errorf("error is %v", err)
	}
}

// The server goes away and comes back on the same port: subscriptions go on, publishes work again.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := server(t, dir, "127.0.0.1:0")
	url := first.URL()
	reconnected := make(chan struct{}, 10)
	b := open(t, url, nats.Config{Lease: time.Second, Options: []natsgo.Option{
		natsgo.ReconnectWait(10 * time.Millisecond), natsgo.ReconnectJitter(time.Millisecond, time.Millisecond),
		natsgo.ReconnectHandler(func(*natsgo.Conn) { reconnected <- struct{}{} }),
	}})
	got := make(chan string, 100)
	sub, err := b.Subscribe(t.Context(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got <- string(d.Message.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id string) error {
		return b.Publish(t.Context(), "topic", &messaging.Message{ID: id, Key: "k", Data: []byte(id)})
	}
	if err := publish("1"); err != nil {
		t.Fatal(err)
	}
	if s := next(t, got); s != "1" {
		t.Fatal(s)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	server(t, dir, strings.TrimPrefix(url, "nats://"))
	next(t, reconnected)
	if err := publish("2"); err != nil {
		t.Fatal(err)
	}
	for s := ""; s != "2"; { // "1" may come again: its confirmation raced with the shutdown
		s = next(t, got)
	}
	if err := sub.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// An operator deletes a consumer under a running subscription: it is made again.
func TestConsumerDeleted(t *testing.T) {
	t.Parallel()
	s := server(t, t.TempDir(), "127.0.0.1:0")
	b := open(t, s.URL(), nats.Config{})
	got := make(chan string, 100)
	if _, err := b.Subscribe(t.Context(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got <- string(d.Message.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	nc, err := natsgo.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), "topic", "group"); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := b.Publish(t.Context(), "topic", &messaging.Message{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got:
			return
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("waited in vain")
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	url := server(t, t.TempDir(), "127.0.0.1:0").URL()
	for _, test := range []struct {
		name, url string
		cfg       nats.Config
		want      string
	}{
		{"silent server", "nats://user:secret@" + l.Addr().String(), nats.Config{Options: []natsgo.Option{natsgo.Timeout(50 * time.Millisecond)}}, "timeout"},
		{"Replicas", url, nats.Config{Replicas: 6}, "field Replicas is 6"},
		{"Lease", url, nats.Config{Lease: time.Millisecond}, "field Lease is 1ms"},
		{"Window", url, nats.Config{Window: -1}, "field Window is -1"},
		{"Duplicates", url, nats.Config{Duplicates: -1}, "field Duplicates is -1ns"},
		{"Duplicates and MaxAge", url, nats.Config{Duplicates: time.Hour, MaxAge: time.Minute}, "at most MaxAge"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := nats.Open(t.Context(), test.url, test.cfg)
			if err == nil {
				b.Close(t.Context())
				t.Fatal("open succeeded")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error is %q, want one with %q and no password", err, test.want)
			}
		})
	}
}
