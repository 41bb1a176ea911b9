package messaging_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky is the memory driver with faults.
type flaky struct {
	messaging.Driver
	send    func(topic string) error
	receive func() error
	lost    atomic.Int32 // settlements still to be lost
}

func (d *flaky) Send(ctx context.Context, topic string, msgs []*messaging.Message) []error {
	if d.send != nil {
		if err := d.send(topic); err != nil {
			errs := make([]error, len(msgs))
			errs[len(errs)-1] = err
			return errs
		}
	}
	return d.Driver.Send(ctx, topic, msgs)
}

func (d *flaky) Consume(ctx context.Context, topic, group string) (messaging.Consumer, error) {
	c, err := d.Driver.Consume(ctx, topic, group)
	return &flakyConsumer{c, d}, err
}

type flakyConsumer struct {
	messaging.Consumer
	d *flaky
}

func (c *flakyConsumer) Receive(ctx context.Context, limit int) ([]*messaging.Received, error) {
	if c.d.receive != nil {
		if err := c.d.receive(); err != nil {
			return nil, err
		}
	}
	return c.Consumer.Receive(ctx, limit)
}

func (c *flakyConsumer) Settle(ctx context.Context, r *messaging.Received, s messaging.Settlement) error {
	if c.d.lost.Add(-1) >= 0 {
		return errors.New("connection lost")
	}
	return c.Consumer.Settle(ctx, r, s)
}

func newFlaky(t *testing.T, log *slog.Logger) (*flaky, *messaging.Broker) {
	t.Helper()
	m, err := memory.NewDriver(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := &flaky{Driver: m}
	b, err := messaging.New(d, messaging.Config{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}

func TestDeadLetterIsWrittenAgainUntilStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, b := newFlaky(t, nil)
		var refusals, calls atomic.Int32
		d.send = func(topic string) error {
			if messaging.IsDeadLetterTopic(topic) && refusals.Add(1) <= 3 {
				return errors.New("disk full")
			}
			return nil
		}
		s, err := b.Subscribe(t.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error {
			calls.Add(1)
			return messaging.Permanent(errors.New("no"))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", &messaging.Message{}); err != nil {
			t.Fatal(err)
		}
		for s.Stats().DeadLettered == 0 {
			time.Sleep(time.Second)
		}
		if calls.Load() != 1 || refusals.Load() != 4 {
			t.Errorf("%d handler calls and %d writes, want 1 and 4", calls.Load(), refusals.Load())
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestReceiveErrorsAreRetriedWithBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, b := newFlaky(t, nil)
		var tries atomic.Int32
		start := time.Now()
		d.receive = func() error {
			if tries.Add(1) <= 5 {
				return errors.New("no connection")
			}
			return nil
		}
		got := make(chan struct{})
		if _, err := b.Subscribe(t.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error { close(got); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", &messaging.Message{}); err != nil {
			t.Fatal(err)
		}
		<-got
		if waited := time.Since(start); waited < 1550*time.Millisecond || waited > 3100*time.Millisecond {
			t.Errorf("five failures took %s, want growing delays", waited)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestClosedDriverEndsSubscription(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, b := newFlaky(t, nil)
		s, err := b.Subscribe(t.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Driver.Close(); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), messaging.ErrClosed) {
			t.Errorf("Err is %v", s.Err())
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLostSettlementDoesNotStopTheKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		d, b := newFlaky(t, slog.New(slog.NewTextHandler(&log, nil)))
		d.lost.Store(1)
		got := make(chan string, 2)
		if _, err := b.Subscribe(t.Context(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
			got <- string(d.Message.Data)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", &messaging.Message{Key: "k", Data: []byte("1")}, &messaging.Message{Key: "k", Data: []byte("2")}); err != nil {
			t.Fatal(err)
		}
		if a, z := <-got, <-got; a != "1" || z != "2" {
			t.Errorf("got %s, %s", a, z)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "settlement lost") {
			t.Errorf("log is %s", log.String())
		}
	})
}

func TestPublishErrorTellsEachMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, b := newFlaky(t, nil)
		cause := errors.New("disk full")
		d.send = func(string) error { return cause }
		err := b.Publish(t.Context(), "topic", &messaging.Message{}, &messaging.Message{})
		var failed *messaging.PublishError
		if !errors.As(err, &failed) || !errors.Is(err, cause) || failed.Errs[0] != nil || fmt.Sprint(failed.Failed()) != "[1]" {
			t.Errorf("error is %#v", err)
		}
		if want := `messaging: publish to "topic": 1 of 2 messages failed: disk full`; err.Error() != want {
			t.Errorf("error is %q, want %q", err, want)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A handler that ignores its context cannot hold up a drain for ever; the error says so.
func TestDrainGivesUpOnDeafHandlers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b := newFlaky(t, nil)
		started, finish := make(chan struct{}), make(chan struct{})
		s, err := b.Subscribe(t.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error {
			close(started)
			<-finish
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", &messaging.Message{}); err != nil {
			t.Fatal(err)
		}
		<-started
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		err = s.Drain(ctx)
		if err == nil || !strings.Contains(err.Error(), "1 handlers still run") {
			t.Errorf("drain: %v", err)
		}
		if waited := time.Since(begin); waited != 61*time.Second {
			t.Errorf("drain took %s, want the minute and a second's grace", waited)
		}
		close(finish)
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLongErrorChainKeepsFirstAndLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b := newFlaky(t, nil)
		var n atomic.Int32
		if _, err := b.Subscribe(t.Context(), "topic", "group", func(context.Context, *messaging.Delivery) error {
			return fmt.Errorf("failure %d %s", n.Add(1), strings.Repeat("ä", 1000))
		}, messaging.MaxAttempts(25)); err != nil {
			t.Fatal(err)
		}
		dead := make(chan *messaging.Message, 1)
		if _, err := b.Subscribe(t.Context(), messaging.DeadLetterTopic("topic", "group"), "g", func(_ context.Context, d *messaging.Delivery) error {
			dead <- d.Message
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", &messaging.Message{}); err != nil {
			t.Fatal(err)
		}
		fs, err := (<-dead).Failures()
		if err != nil || len(fs) != 10 || fs[0].Attempt != 1 || fs[1].Attempt != 17 || fs[9].Attempt != 25 || len(fs[0].Error) > 512 {
			t.Errorf("failures are %+v, %v", fs, err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestNewNeedsADriver(t *testing.T) {
	t.Parallel()
	if _, err := messaging.New(nil, messaging.Config{}); err == nil {
		t.Error("New without a driver succeeded")
	}
}

func TestResultsOfNil(t *testing.T) {
	t.Parallel()
	if err := messaging.Permanent(nil); err != nil {
		t.Errorf("Permanent(nil) is %v", err)
	}
	if err := messaging.RetryAfter(time.Second, nil); err == nil {
		t.Error("RetryAfter without a cause is success")
	}
}

// Importing messaging compiles no broker client.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, client := range []string{"nats-io", "amqp", "franz-go", "go-redis", "database/sql", "google.golang.org/grpc", "prometheus", "otel/sdk"} {
			if strings.Contains(dep, client) {
				t.Errorf("messaging compiles %s", dep)
			}
		}
	}
}

// With no tracer provider a publish builds no spans. The bound has room for what the memory driver copies.
func TestPublishAllocations(t *testing.T) {
	_, b := newFlaky(t, nil)
	m := &messaging.Message{ID: "1", Data: []byte("x")}
	if n := testing.AllocsPerRun(100, func() {
		if err := b.Publish(t.Context(), "topic", m); err != nil {
			t.Fatal(err)
		}
	}); n > 12 {
		t.Errorf("a publish allocates %v times, want at most 12", n)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
