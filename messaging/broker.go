package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
)

// Config configures a Broker. The zero value is useful.
type Config struct {
	Source         string               // default Source of messages; "/armature" when empty
	Logger         *slog.Logger         // nil is silent
	TracerProvider trace.TracerProvider // nil makes no spans; trace context is still passed on
	Middleware     []Middleware         // around every handler, the first is outermost
}

// Broker publishes and subscribes through a Driver. It is a [Publisher] and a [Subscriber], safe for concurrent use.
type Broker struct {
	driver Driver
	cfg    Config
	tel    telemetry

	mu       sync.Mutex
	subs     map[*Subscription]struct{}
	stopping bool // no new subscriptions
	closed   bool // no new publishes
	sending  sync.WaitGroup
	done     chan struct{}
	err      error
}

var (
	_ Publisher  = (*Broker)(nil)
	_ Subscriber = (*Broker)(nil)
)

// New returns a Broker that owns the driver: Close closes it.
func New(d Driver, cfg Config) (*Broker, error) {
	if d == nil {
		return nil, errors.New("messaging: new broker: driver is nil, use the Open or New function of a driver package")
	}
	if cfg.Source == "" {
		cfg.Source = "/armature"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Broker{
		driver: d,
		cfg:    cfg,
		tel:    newTelemetry(cfg.TracerProvider, d.Name()),
		subs:   map[*Subscription]struct{}{},
		done:   make(chan struct{}),
	}, nil
}

// Publish stores the messages on topic; see [Publisher]. The messages are not changed: an ID that Publish makes up stays
// with the stored copy. Messages that carry no trace context or flow values of their own get those of ctx.
// Messages of one call are pipelined, so one call with many is much faster than many calls with one.
func (b *Broker) Publish(ctx context.Context, topic string, msgs ...*Message) error {
	if err := ValidName(topic); err != nil {
		return fmt.Errorf("messaging: publish: topic: %w", err)
	}
	if len(msgs) == 0 {
		return nil
	}
	errs := make([]error, len(msgs))
	ready := make([]*Message, len(msgs))
	for i, m := range msgs {
		if err := m.validate(); err != nil {
			errs[i] = fmt.Errorf("messaging: publish message %d: %w", i, err)
			return &PublishError{Topic: topic, Errs: refused(errs, i)}
		}
		ready[i] = b.complete(topic, m)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return &PublishError{Topic: topic, Errs: fill(errs, ErrClosed)}
	}
	b.sending.Add(1)
	b.mu.Unlock()
	defer b.sending.Done()
	if err := ctx.Err(); err != nil {
		return &PublishError{Topic: topic, Errs: fill(errs, err)}
	}
	ended := b.tel.send(ctx, topic, ready)
	errs = b.driver.Send(ctx, topic, ready)
	ended(errs)
	for _, err := range errs {
		if err != nil {
			return &PublishError{Topic: topic, Errs: errs}
		}
	}
	return nil
}

var errNotSent = errors.New("messaging: not sent, another message of the call is invalid")

func refused(errs []error, bad int) []error {
	for i := range errs {
		if i != bad {
			errs[i] = errNotSent
		}
	}
	return errs
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (b *Broker) complete(topic string, m *Message) *Message {
	m = m.Clone()
	if m.ID == "" {
		m.ID = flow.NewID()
	}
	if m.Type == "" {
		m.Type = topic
	}
	if m.Source == "" {
		m.Source = b.cfg.Source
	}
	if m.ContentType == "" {
		m.ContentType = "application/octet-stream"
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	m.Time = m.Time.UTC().Round(0)
	if m.Header == nil {
		m.Header = Header{}
	}
	return m
}

// Ensure creates the topic and the group unless they exist, so that the group gets every message published from now on,
// also before its first Subscribe.
func (b *Broker) Ensure(ctx context.Context, topic, group string) error {
	if err := checkNames(topic, group); err != nil {
		return fmt.Errorf("messaging: ensure: %w", err)
	}
	if err := b.driver.Ensure(ctx, topic, group); err != nil {
		return fmt.Errorf("messaging: ensure topic %q, group %q: %w", topic, group, err)
	}
	return nil
}

func checkNames(topic, group string) error {
	if err := ValidName(topic); err != nil {
		return fmt.Errorf("topic: %w", err)
	}
	if err := ValidName(group); err != nil {
		return fmt.Errorf("group: %w", err)
	}
	return nil
}

// Subscribe starts to deliver the messages of topic to h, on behalf of group, until Drain or Close. The topic and the
// group are created unless they exist; a new group starts with the messages published after that (dead letter topics
// excepted: there it starts with the oldest). ctx is for the set-up only: cancelling it later stops nothing.
func (b *Broker) Subscribe(ctx context.Context, topic, group string, h Handler, opts ...SubscribeOption) (*Subscription, error) {
	if err := checkNames(topic, group); err != nil {
		return nil, fmt.Errorf("messaging: subscribe: %w", err)
	}
	if h == nil {
		return nil, fmt.Errorf("messaging: subscribe to %q: handler is nil", topic)
	}
	o, err := newSubscribeOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("messaging: subscribe to %q: %w", topic, err)
	}
	for _, mws := range [][]Middleware{o.middleware, b.cfg.Middleware} {
		for i := len(mws) - 1; i >= 0; i-- {
			h = mws[i](h)
		}
	}
	if err := b.Ensure(ctx, topic, group); err != nil {
		return nil, err
	}
	c, err := b.driver.Consume(ctx, topic, group)
	if err != nil {
		return nil, fmt.Errorf("messaging: subscribe to %q as %q: %w", topic, group, err)
	}
	s := newSubscription(b, c, topic, group, h, o)
	b.mu.Lock()
	stopping := b.stopping
	if !stopping {
		b.subs[s] = struct{}{}
		s.start()
	}
	b.mu.Unlock()
	if stopping {
		_, stopErr := c.Stop(ctx)
		return nil, errors.Join(fmt.Errorf("messaging: subscribe to %q: %w", topic, ErrClosed), stopErr, c.Close(ctx))
	}
	return s, nil
}

func (b *Broker) forget(s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// Ping asks the broker for a sign of life, for readiness checks.
func (b *Broker) Ping(ctx context.Context) error {
	if err := b.driver.Ping(ctx); err != nil {
		return fmt.Errorf("messaging: ping %s: %w", b.driver.Name(), err)
	}
	return nil
}

// Close drains all subscriptions, waits for the publishes under way and closes the driver. Handlers can publish while
// they are drained. When ctx ends first, the handlers still running are cancelled and their messages are delivered
// again later. Close is idempotent; later calls wait for the first.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.stopping {
		b.mu.Unlock()
		select {
		case <-b.done:
			return b.err
		case <-ctx.Done():
			return fmt.Errorf("messaging: close: %w", ctx.Err())
		}
	}
	b.stopping = true
	subs := make([]*Subscription, 0, len(b.subs))
	for s := range b.subs {
		subs = append(subs, s)
	}
	b.mu.Unlock()

	errs := make([]error, len(subs)+1)
	var wg sync.WaitGroup
	for i, s := range subs {
		wg.Go(func() { errs[i] = s.Drain(ctx) })
	}
	wg.Wait()

	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	sent := make(chan struct{})
	go func() { b.sending.Wait(); close(sent) }()
	select {
	case <-sent:
	case <-ctx.Done():
	}
	if err := b.driver.Close(); err != nil {
		errs[len(subs)] = fmt.Errorf("messaging: close %s: %w", b.driver.Name(), err)
	}
	b.err = errors.Join(errs...)
	close(b.done)
	return b.err
}
