package memory_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/messagingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	messagingtest.Run(t, messagingtest.Config{
		Virtual:  true,
		Features: messagingtest.Features{UncountedRelease: true, OrderAcrossSubscriptions: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			b, err := memory.New(memory.Config{TracerProvider: tp})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	})
}

func TestConformanceInRealTime(t *testing.T) {
	messagingtest.Run(t, messagingtest.Config{
		Features: messagingtest.Features{UncountedRelease: true, OrderAcrossSubscriptions: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			b, err := memory.New(memory.Config{TracerProvider: tp})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	})
}

func TestFullGroupRefuses(t *testing.T) {
	t.Parallel()
	b, err := memory.New(memory.Config{MaxPending: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	if err := b.Ensure(t.Context(), "topic", "group"); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "topic", &messaging.Message{}, &messaging.Message{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "topic", &messaging.Message{}); !errors.Is(err, memory.ErrFull) {
		t.Errorf("error is %v", err)
	}
	if err := b.Publish(t.Context(), "a.topic.without.groups", &messaging.Message{}); err != nil {
		t.Error(err)
	}
	if _, err := memory.New(memory.Config{MaxPending: -1}); err == nil || !strings.Contains(err.Error(), "field MaxPending is -1") {
		t.Errorf("error is %v", err)
	}
}

// A publisher that reuses its buffer, and a handler that writes into its message, harm nobody else.
func TestMessagesAreCopies(t *testing.T) {
	t.Parallel()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	got := make(chan string, 4)
	for _, group := range []string{"a", "b"} {
		if _, err := b.Subscribe(t.Context(), "topic", group, func(_ context.Context, d *messaging.Delivery) error {
			got <- string(d.Message.Data) + d.Message.Header["h"]
			d.Message.Data[0], d.Message.Header["h"] = '!', "!"
			if d.Attempt == 1 {
				return messaging.Release
			}
			return nil
		}, messaging.Backoff(time.Millisecond, time.Millisecond), messaging.MaxAttempts(1)); err != nil {
			t.Fatal(err)
		}
	}
	buffer, header := []byte("data"), messaging.Header{"h": "1"}
	if err := b.Publish(t.Context(), "topic", &messaging.Message{Data: buffer, Header: header}); err != nil {
		t.Fatal(err)
	}
	buffer[0], header["h"] = '?', "?"
	for range 4 {
		if s := <-got; s != "data1" {
			t.Errorf("got %q", s)
		}
	}
}

func BenchmarkPublishHandle(b *testing.B) {
	for _, keys := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			broker, err := memory.New(memory.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer broker.Close(context.Background())
			var handled atomic.Int64
			done := make(chan struct{})
			if _, err := broker.Subscribe(b.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error {
				if handled.Add(1) == int64(b.N) {
					close(done)
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			data := make([]byte, 256)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				m := &messaging.Message{ID: "id", Data: data}
				if keys > 0 {
					m.Key = strconv.Itoa(i % keys)
				}
				if err := broker.Publish(b.Context(), "topic", m); err != nil {
					b.Fatal(err)
				}
			}
			<-done
		})
	}
}
