package memory

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/messaging"
)

// Config configures a broker. The zero value is useful.
type Config struct {
	// MaxPending bounds the messages that wait for one group, and those kept in one dead letter topic; Publish refuses
	// more with ErrFull. 0 means one million.
	MaxPending int

	Source         string                 // see messaging.Config
	Logger         *slog.Logger           // nil is silent
	TracerProvider trace.TracerProvider   // nil makes no spans
	Middleware     []messaging.Middleware // around every handler
}

// ErrFull is returned by Publish when a group of the topic has Config.MaxPending messages waiting. No group gets the message.
var ErrFull = fmt.Errorf("memory: too many messages wait for a group")

// New returns a broker of its own: nothing is shared between two.
func New(cfg Config) (*messaging.Broker, error) {
	d, err := NewDriver(cfg)
	if err != nil {
		return nil, err
	}
	return messaging.New(d, messaging.Config{
		Source:         cfg.Source,
		Logger:         cfg.Logger,
		TracerProvider: cfg.TracerProvider,
		Middleware:     cfg.Middleware,
	})
}

// NewDriver returns the driver alone, for those who wrap it, for example to inject faults. Of cfg it reads MaxPending.
func NewDriver(cfg Config) (messaging.Driver, error) {
	if cfg.MaxPending < 0 {
		return nil, fmt.Errorf("memory: field MaxPending is %d, must be positive, or 0 for one million", cfg.MaxPending)
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = 1_000_000
	}
	return &driver{max: cfg.MaxPending, topics: map[string]*topic{}}, nil
}

type driver struct {
	max int

	mu     sync.Mutex
	closed bool
	topics map[string]*topic
}

type topic struct {
	groups map[string]*group
	seq    uint64
	kept   []*entry // of dead letter topics
}

// group is the queue of one group: ordered by seq, without what a consumer holds.
type group struct {
	queue  []*entry
	owners map[string]*owner // keys of which a consumer holds messages
	wake   chan struct{}     // closed and replaced when the queue changed
}

type owner struct {
	c *consumer
	n int
}

// entry is one message in one group.
type entry struct {
	msg       *messaging.Message
	seq       uint64
	delivered int
	due       time.Time // not before, when not zero
}

func (g *group) changed() {
	close(g.wake)
	g.wake = make(chan struct{})
}

func (d *driver) Name() string { return "memory" }

func (d *driver) Send(ctx context.Context, name string, msgs []*messaging.Message) []error {
	err := d.send(ctx, name, msgs)
	if err == nil {
		return nil
	}
	errs := make([]error, len(msgs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (d *driver) send(ctx context.Context, name string, msgs []*messaging.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	t := d.topic(name)
	keep := messaging.IsDeadLetterTopic(name)
	for _, g := range t.groups {
		if len(g.queue)+len(msgs) > d.max {
			return ErrFull
		}
	}
	if keep && len(t.kept)+len(msgs) > d.max {
		return ErrFull
	}
	for _, m := range msgs {
		m = m.Clone()
		m.Data = slices.Clone(m.Data) // the caller may reuse its buffer
		t.seq++
		if keep {
			t.kept = append(t.kept, &entry{msg: m, seq: t.seq})
		}
		for _, g := range t.groups {
			g.queue = append(g.queue, &entry{msg: m, seq: t.seq})
		}
	}
	for _, g := range t.groups {
		g.changed()
	}
	return nil
}

func (d *driver) topic(name string) *topic {
	t := d.topics[name]
	if t == nil {
		t = &topic{groups: map[string]*group{}}
		d.topics[name] = t
	}
	return t
}

func (d *driver) Ensure(ctx context.Context, topic, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	t := d.topic(topic)
	if t.groups[name] == nil {
		g := &group{owners: map[string]*owner{}, wake: make(chan struct{})}
		for _, e := range t.kept {
			c := *e
			g.queue = append(g.queue, &c)
		}
		t.groups[name] = g
	}
	return nil
}

func (d *driver) Consume(ctx context.Context, topic, name string) (messaging.Consumer, error) {
	if err := d.Ensure(ctx, topic, name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &consumer{d: d, g: d.topic(topic).groups[name], held: map[*entry]struct{}{}}, nil
}

func (d *driver) Ping(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usable(ctx)
}

// usable needs d.mu.
func (d *driver) usable(ctx context.Context) error {
	if d.closed {
		return messaging.ErrClosed
	}
	return ctx.Err()
}

func (d *driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	for _, t := range d.topics {
		for _, g := range t.groups {
			g.changed()
		}
	}
	return nil
}
