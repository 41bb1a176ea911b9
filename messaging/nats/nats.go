package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/messaging"
)

// Config configures a connection. The zero value is useful.
type Config struct {
	// Options are passed to the client, for credentials and TLS. They win over the defaults of this package.
	Options []natsgo.Option

	Replicas   int           // of new streams; 1
	MaxAge     time.Duration // how long new streams keep messages; 7 days, negative for ever. Dead letters are kept for ever
	Duplicates time.Duration // how long new streams recognise a repeated Message.ID; 2 minutes
	Lease      time.Duration // after this long without a sign of life a message is delivered again; 30 s, at least 1 s
	Window     int           // unacknowledged publishes at a time; 256

	Source         string                 // see messaging.Config
	Logger         *slog.Logger           // nil is silent
	TracerProvider trace.TracerProvider   // nil makes no spans
	Middleware     []messaging.Middleware // around every handler
}

func (c Config) withDefaults() (Config, error) {
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.MaxAge == 0 {
		c.MaxAge = 7 * 24 * time.Hour
	}
	if c.MaxAge < 0 {
		c.MaxAge = 0 // JetStream's word for ever
	}
	if c.Duplicates == 0 {
		c.Duplicates = 2 * time.Minute
	}
	if c.MaxAge > 0 && c.Duplicates > c.MaxAge {
		return c, fmt.Errorf("nats: field Duplicates is %s, must be at most MaxAge, which is %s", c.Duplicates, c.MaxAge)
	}
	if c.Lease == 0 {
		c.Lease = 30 * time.Second
	}
	if c.Window == 0 {
		c.Window = 256
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Replicas < 1 || c.Replicas > 5:
		return c, fmt.Errorf("nats: field Replicas is %d, must be 1 to 5", c.Replicas)
	case c.Duplicates < 0:
		return c, fmt.Errorf("nats: field Duplicates is %s, must not be negative", c.Duplicates)
	case c.Lease < time.Second:
		return c, fmt.Errorf("nats: field Lease is %s, must be at least 1s", c.Lease)
	case c.Window < 1:
		return c, fmt.Errorf("nats: field Window is %d, must be positive", c.Window)
	}
	return c, nil
}

// Open connects to url, a comma separated list of nats:// or tls:// URLs, and returns a broker that owns the connection.
// It fails when no server answers; a connection lost later is made again for ever.
func Open(ctx context.Context, url string, cfg Config) (*messaging.Broker, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	timeout := 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	options := append([]natsgo.Option{
		natsgo.Name("armature"),
		natsgo.Timeout(timeout),
		natsgo.MaxReconnects(-1),
		natsgo.ReconnectWait(250 * time.Millisecond),
		natsgo.ReconnectJitter(250*time.Millisecond, time.Second),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			if err != nil {
				log.Warn("nats connection lost", "error", err)
			}
		}),
		natsgo.ReconnectHandler(func(nc *natsgo.Conn) { log.Info("nats connection restored", "server", nc.ConnectedUrlRedacted()) }),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { log.Error("nats client", "error", err) }),
	}, cfg.Options...)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("nats: open: %w", err)
	}
	nc, err := natsgo.Connect(url, options...)
	if err != nil {
		return nil, fmt.Errorf("nats: open: %w", err) // the client's errors hold no URL and so no password
	}
	b, err := New(ctx, nc, cfg)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return b, nil
}

// New returns a broker on a connection, which belongs to the broker from then on: Close closes it. Of cfg it does not
// use Options. It fails when the server has no JetStream.
func New(ctx context.Context, nc *natsgo.Conn, cfg Config) (*messaging.Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &driver{nc: nc, cfg: cfg, window: make(chan struct{}, cfg.Window), streams: map[string]bool{}}
	d.js, err = jetstream.New(nc,
		// The window is ours: the client's own gives up after 200 ms when it is full.
		jetstream.WithPublishAsyncMaxPending(2*cfg.Window),
		jetstream.WithPublishAsyncTimeout(publishTimeout),
		jetstream.WithPublishAsyncAckHandler(func(jetstream.JetStream, *natsgo.Msg, *jetstream.PubAck) { d.release() }),
		jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *natsgo.Msg, error) { d.release() }),
	)
	if err != nil {
		return nil, fmt.Errorf("nats: open: %w", err)
	}
	if _, err := d.js.AccountInfo(ctx); err != nil {
		return nil, fmt.Errorf("nats: open: JetStream: %w", err)
	}
	return messaging.New(d, messaging.Config{
		Source:         cfg.Source,
		Logger:         cfg.Logger,
		TracerProvider: cfg.TracerProvider,
		Middleware:     cfg.Middleware,
	})
}

const (
	publishTimeout = 10 * time.Second // for one acknowledgement
	callTimeout    = 10 * time.Second // for calls whose context has no deadline
)

type driver struct {
	nc     *natsgo.Conn
	js     jetstream.JetStream
	cfg    Config
	window chan struct{} // one token per unacknowledged publish

	mu      sync.Mutex
	streams map[string]bool // topics whose stream is known to exist
}

func (d *driver) Name() string { return "nats" }

func (d *driver) release() {
	select {
	case <-d.window:
	default:
	}
}

func (d *driver) Send(ctx context.Context, topic string, msgs []*messaging.Message) []error {
	errs := make([]error, len(msgs))
	if err := d.ensureStream(ctx, topic); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	acks := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		select {
		case d.window <- struct{}{}:
		case <-ctx.Done():
			errs[i] = ctx.Err()
			continue
		}
		header, data := encode(m)
		header[natsgo.MsgIdHdr] = []string{dedupeID(m)}
		ack, err := d.js.PublishMsgAsync(&natsgo.Msg{Subject: topic, Header: header, Data: data})
		if err != nil {
			d.release()
			errs[i] = d.closedOr(fmt.Errorf("nats: publish: %w", err))
			continue
		}
		acks[i] = ack
	}
	failed := false
	for i, ack := range acks {
		if ack == nil {
			failed = true
			continue
		}
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			errs[i] = d.closedOr(fmt.Errorf("nats: publish: %w", err))
			failed = true
			if errors.Is(err, jetstream.ErrNoStreamResponse) {
				d.forgetStream(topic)
			}
		case <-ctx.Done():
			errs[i] = ctx.Err()
			failed = true
		}
	}
	if !failed {
		return nil
	}
	return errs
}

// dedupeID is the message's ID, except for dead letters and what is made of them: a message that is redriven, or fails
// again after that, is another one.
func dedupeID(m *messaging.Message) string {
	if of := m.Header[messaging.HeaderRedriveOf]; of != "" {
		return m.ID + "@" + m.Header[messaging.HeaderRedriveGroup] + "@redrive@" + of
	}
	if last := m.Header[messaging.HeaderDeadLast]; last != "" {
		return m.ID + "@" + m.Header[messaging.HeaderDeadGroup] + "@" + last
	}
	return m.ID
}

func (d *driver) closedOr(err error) error {
	if d.nc.IsClosed() {
		return fmt.Errorf("%w: %w", messaging.ErrClosed, err)
	}
	return err
}

func (d *driver) ensureStream(ctx context.Context, topic string) error {
	d.mu.Lock()
	known := d.streams[topic]
	d.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	cfg := jetstream.StreamConfig{
		Name:        assetName(topic),
		Description: "armature topic " + topic,
		Subjects:    []string{topic},
		Storage:     jetstream.FileStorage,
		Replicas:    d.cfg.Replicas,
		MaxAge:      d.cfg.MaxAge,
		Duplicates:  d.cfg.Duplicates,
		AllowDirect: true,
	}
	if messaging.IsDeadLetterTopic(topic) {
		cfg.MaxAge = 0
	}
	// An existing stream keeps its settings: an operator may have changed them.
	if _, err := d.js.CreateStream(ctx, cfg); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return d.closedOr(fmt.Errorf("nats: create stream %q: %w", cfg.Name, err))
	}
	d.mu.Lock()
	d.streams[topic] = true
	d.mu.Unlock()
	return nil
}

func (d *driver) forgetStream(topic string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, topic)
}

func (d *driver) Ensure(ctx context.Context, topic, group string) error {
	_, err := d.ensureGroup(ctx, topic, group)
	return err
}

func (d *driver) ensureGroup(ctx context.Context, topic, group string) (jetstream.ConsumerConfig, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	name := assetName(group)
	var none jetstream.ConsumerConfig
	for {
		if err := d.ensureStream(ctx, topic); err != nil {
			return none, err
		}
		c, err := d.js.Consumer(ctx, assetName(topic), name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			cfg := jetstream.ConsumerConfig{
				Durable:       name,
				Description:   "armature group " + group,
				DeliverPolicy: jetstream.DeliverNewPolicy,
				AckPolicy:     jetstream.AckExplicitPolicy,
				AckWait:       d.cfg.Lease,
				MaxDeliver:    -1, // attempts are counted here, so that the last failure ends in the dead letters
				MaxAckPending: -1, // each subscription bounds what it holds
				FilterSubject: topic,
			}
			if messaging.IsDeadLetterTopic(topic) {
				cfg.DeliverPolicy = jetstream.DeliverAllPolicy
			}
			c, err = d.js.CreateConsumer(ctx, assetName(topic), cfg)
			if errors.Is(err, jetstream.ErrConsumerExists) { // another process was faster, with another lease
				continue
			}
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) && ctx.Err() == nil { // deleted since we looked
			d.forgetStream(topic)
			continue
		}
		if err != nil {
			return none, d.closedOr(fmt.Errorf("nats: create consumer %q: %w", name, err))
		}
		cfg := c.CachedInfo().Config
		if cfg.AckWait == d.cfg.Lease {
			return cfg, nil
		}
		cfg.AckWait = d.cfg.Lease
		if _, err := d.js.UpdateConsumer(ctx, assetName(topic), cfg); err != nil {
			return none, d.closedOr(fmt.Errorf("nats: update consumer %q: %w", name, err))
		}
		return cfg, nil
	}
}

// assetName turns a topic or group into the name of a stream or consumer. Names are checked by package messaging and
// contain no "=", so that two never meet.
func assetName(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == '.' {
			b[i] = '='
		}
	}
	return string(b)
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

func (d *driver) Ping(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := d.js.AccountInfo(ctx); err != nil {
		return d.closedOr(fmt.Errorf("nats: account info: %w", err))
	}
	return nil
}

// Close closes the connection. What was published and settled before has been flushed by then.
func (d *driver) Close() error {
	d.nc.Close()
	return nil
}
