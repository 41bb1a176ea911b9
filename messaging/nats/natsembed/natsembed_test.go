package natsembed_test

import (
	"context"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server/ats"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/messagingtest"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

func TestMain(m *testing.M) {
	// The server's clock for cache ages belongs to the process. Started inside a bubble it would be stuck there.
	ats.Register()
	code := m.Run()
	ats.Unregister()
	if code == 0 {
		// nats-server 2.15.2 now and then leaves the store of a stream open when it is shut down with clients on its port,
		// and with the store its hold on the clock.
		if err := goleak.Find(
			goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
			goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// servers remembers which server is behind a broker, for restarts.
type servers struct {
	mu  sync.Mutex
	all map[*messaging.Broker]*natsembed.Server
	dir map[*messaging.Broker]string
}

func (s *servers) open(t *testing.T, dir string, tp trace.TracerProvider) *messaging.Broker {
	t.Helper()
	server, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir, TracerProvider: tp})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[server.Broker()], s.dir[server.Broker()] = server, dir
	return server.Broker()
}

func (s *servers) restart(t *testing.T, b *messaging.Broker) *messaging.Broker {
	t.Helper()
	s.mu.Lock()
	server, dir := s.all[b], s.dir[b]
	s.mu.Unlock()
	if err := server.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s.open(t, dir, nil)
}

func config() messagingtest.Config {
	s := &servers{all: map[*messaging.Broker]*natsembed.Server{}, dir: map[*messaging.Broker]string{}}
	return messagingtest.Config{
		Features: messagingtest.Features{Deduplicates: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			return s.open(t, t.TempDir(), tp)
		},
		Restart: s.restart,
	}
}

// forgetTimers empties the client's pool of timers, which belongs to the process: a timer of one bubble must not be used in
// another, or outside. A sync.Pool keeps nothing for longer than two collections.
func forgetTimers() {
	runtime.GC()
	runtime.GC()
}

func TestConformance(t *testing.T) {
	cfg := config()
	cfg.Virtual = true
	open := cfg.Open
	cfg.Open = func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
		forgetTimers()
		return open(t, tp)
	}
	t.Cleanup(forgetTimers)
	messagingtest.Run(t, cfg)
}

func TestConformanceInRealTime(t *testing.T) {
	messagingtest.Run(t, config())
}
