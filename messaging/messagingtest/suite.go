package messagingtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/messaging"
)

// Config tells the suite how to get brokers. Open is required.
type Config struct {
	// Open returns an empty broker that makes spans with tp. The suite closes it; what else is to be cleaned up, Open
	// registers with t.Cleanup.
	Open func(t *testing.T, tp trace.TracerProvider) *messaging.Broker
	// Restart ends the broker and the server behind it and opens another on the same store; nil when nothing survives.
	Restart func(t *testing.T, b *messaging.Broker) *messaging.Broker
	// Virtual runs every test in a testing/synctest bubble, which makes the delays exact and free. The driver must not use
	// real network connections.
	Virtual bool
	// Features are what the broker can do beyond the common ground.
	Features Features
}

// Features are abilities that not all brokers have.
type Features struct {
	// Deduplicates: publishing a message with a known ID again stores nothing.
	Deduplicates bool
	// UncountedRelease: a released message keeps its attempt number.
	UncountedRelease bool
	// OrderAcrossSubscriptions: the order of a key holds between the subscriptions of a group.
	OrderAcrossSubscriptions bool
}

// Run runs the suite.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.Open == nil {
		t.Fatal("messagingtest: field Open is nil, name a function that opens a broker")
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.virtual && !cfg.Virtual {
				t.Skip("needs virtual time")
			}
			if test.needs != nil && !test.needs(cfg) {
				t.Skip("not a feature of this broker")
			}
			body := func(t *testing.T) { test.run(newEnv(t, cfg)) }
			if cfg.Virtual {
				synctest.Test(t, body)
				return
			}
			t.Parallel()
			body(t)
		})
	}
}

type test struct {
	name    string
	run     func(e *env)
	virtual bool
	needs   func(Config) bool
}

// patience bounds every wait of the suite.
const patience = time.Minute

// env is what one test works with.
type env struct {
	*testing.T
	cfg   Config
	b     *messaging.Broker
	spans *recorder
}

func newEnv(t *testing.T, cfg Config) *env {
	e := &env{T: t, cfg: cfg, spans: newRecorder()}
	e.b = cfg.Open(t, e.spans.provider)
	t.Cleanup(func() { e.close() })
	return e
}

func (e *env) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.b.Close(ctx); err != nil {
		e.Errorf("close: %v", err)
	}
}

func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e.Cleanup(cancel)
	return ctx
}

func (e *env) ensure(topic, group string) {
	e.Helper()
	if err := e.b.Ensure(e.ctx(), topic, group); err != nil {
		e.Fatalf("ensure: %v", err)
	}
}

func (e *env) publish(topic string, msgs ...*messaging.Message) {
	e.Helper()
	if err := e.b.Publish(e.ctx(), topic, msgs...); err != nil {
		e.Fatalf("publish: %v", err)
	}
}

func (e *env) subscribe(topic, group string, h messaging.Handler, opts ...messaging.SubscribeOption) *messaging.Subscription {
	e.Helper()
	s, err := e.b.Subscribe(e.ctx(), topic, group, h, append([]messaging.SubscribeOption{messaging.Backoff(time.Millisecond, 4*time.Millisecond)}, opts...)...)
	if err != nil {
		e.Fatalf("subscribe: %v", err)
	}
	return s
}

func (e *env) drain(s *messaging.Subscription) {
	e.Helper()
	if err := s.Drain(e.ctx()); err != nil {
		e.Fatalf("drain: %v", err)
	}
}

// text returns a message with a body.
func text(format string, args ...any) *messaging.Message {
	return &messaging.Message{Type: "test.text", Data: fmt.Appendf(nil, format, args...)}
}

// keyed returns a message with a key and a body.
func keyed(key, format string, args ...any) *messaging.Message {
	m := text(format, args...)
	m.Key = key
	return m
}

// next waits for a value.
func next[T any](e *env, ch <-chan T, what string) T {
	e.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case v := <-ch:
		return v
	case <-timeout.C:
		e.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// log collects values from handlers.
type log[T any] struct {
	mu     sync.Mutex
	values []T
	news   chan struct{}
}

func newLog[T any]() *log[T] { return &log[T]{news: make(chan struct{}, 1)} }

func (l *log[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = append(l.values, v)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *log[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]T(nil), l.values...)
}

// wait returns when there are n values.
func (l *log[T]) wait(e *env, n int, what string) []T {
	e.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		all := l.all()
		if len(all) >= n {
			return all
		}
		select {
		case <-l.news:
		case <-timeout.C:
			e.Fatalf("waited in vain for %d %s, got %d: %v", n, what, len(all), all)
		}
	}
}

// collect is a handler that succeeds and logs the bodies.
func collect(l *log[string]) messaging.Handler {
	return func(_ context.Context, d *messaging.Delivery) error {
		l.add(string(d.Message.Data))
		return nil
	}
}
