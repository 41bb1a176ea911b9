package main

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a network of pipes, which virtual time understands.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*listener
}

type listener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (m *memory) Listen() (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &listener{
		address: fmt.Sprintf("127.0.0.1:%d", 8001+len(m.listeners)),
		conns:   make(chan net.Conn), closed: make(chan struct{}),
	}
	if m.listeners == nil {
		m.listeners = map[string]*listener{}
	}
	m.listeners[l.address] = l
	return l, nil
}

func (m *memory) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	m.mu.Lock()
	l := m.listeners[address]
	m.mu.Unlock()
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error    { l.once.Do(func() { close(l.closed) }); return nil }
func (l *listener) Addr() net.Addr  { return l }
func (l *listener) Network() string { return "memory" }
func (l *listener) String() string  { return l.address }

// The whole demonstration, in virtual time: no machine is too slow for it.
func TestDemonstration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		start := time.Now()
		if err := run(t.Context(), &out, new(memory), time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		for what, pattern := range map[string]string{
			"the chain":            `retry "price" attempts=3`,
			"good days":            `(?m)^ +1 +healthy +\d\d +\d\d +0 +0 +0 +0 +0 +0 +5ms +closed$`,
			"slowness opens":       `breaker price: closed -> open \(too many slow calls\)`,
			"the breaker probes":   `breaker price: open -> half-open`,
			"the outage reopens":   `half-open -> open \(dependency: 503 Service Unavailable\)`,
			"nobody gets through":  `(?m)^ +8 +down +60 +0 `,
			"recovery closes":      `breaker price: half-open -> closed`,
			"the end is well":      `(?m)^ +13 +recovering .* closed$`,
			"failures are counted": `breaker_calls_total\{name="price",outcome="failure"\} [1-9]`,
			"rejections by rate":   `rejections_total\{name="price",policy="rate-limiter"\} [1-9]`,
			"rejections when full": `rejections_total\{name="price",policy="bulkhead"\} [1-9]`,
			"rejections when open": `rejections_total\{name="price",policy="breaker"\} [1-9]`,
			"hedges are counted":   `hedge_hedges_total\{name="price"\} [1-9]`,
		} {
			if !regexp.MustCompile(pattern).MatchString(out.String()) {
				t.Errorf("%s: the output has no %s", what, pattern)
			}
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out, loopback{new(net.Dialer)}, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `armature_resilience_rejections_total{name="price",policy="breaker"}`) {
		t.Errorf("no metrics over HTTP:\n%s", &out)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if err := run(ctx, &out, loopback{new(net.Dialer)}, time.Second); err != nil {
		t.Error(err)
	}
	if strings.Contains(out.String(), "recovering") {
		t.Error("it went on after the interrupt")
	}
}
