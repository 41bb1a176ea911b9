package ws

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/armature-go/armature/resilience"
)

// Config configures [New] and [Dial]. The zero value is usable and safe.
type Config struct {
	Logger *slog.Logger // what functions fail of, and panics; nil is silent

	PingInterval time.Duration // between pings. Default 30s
	PongTimeout  time.Duration // for a sign of life after a ping. Default 10s
	WriteTimeout time.Duration // of a message, and of the wait for room in the queue. Default 10s
	// CloseTimeout bounds the end of a connection: writing what is queued and the
	// closing handshake together, and once more, while draining, the time that the
	// function has to return. Default 5s, which is also the most.
	CloseTimeout time.Duration

	MaxMessage int64 // bytes of a received message. Default 64 KiB
	SendQueue  int   // messages waiting to be written to one connection. Default 32
	// ReceiveQueue is how many messages are read ahead of Receive. Default 4.
	ReceiveQueue int

	// Rate is how many messages and pings one connection may send. New: default 100
	// per second. Dial: the zero value is no limit, for a client has chosen its server.
	Rate resilience.RateLimit

	// Subprotocols in order of preference. A peer that offers none of them gets a
	// connection without one; see [Conn.Subprotocol].
	Subprotocols []string

	// Origins of other sites whose pages may connect with the cookies of a user, as in
	// "https://app.example.com" or "https://*.example.com", where the star stands for
	// one or more labels. "*" alone allows every site: only for endpoints that look at
	// no cookies. Pages of the host that is called and programs that send no Origin
	// always may. For New.
	Origins []string
	// MaxConns bounds the open connections of the handler. Default 10000. For New.
	MaxConns int

	// Client makes the handshake. Nil uses http.DefaultTransport and follows no
	// redirects, because they would carry identity to another host. For Dial.
	Client *http.Client
	// Header is sent with the handshake. For Dial.
	Header http.Header
}

const maxCloseTimeout = 5 * time.Second // the protocol library waits no longer

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		field    string
		value    *time.Duration
		fallback time.Duration
	}{
		{"PingInterval", &c.PingInterval, 30 * time.Second},
		{"PongTimeout", &c.PongTimeout, 10 * time.Second},
		{"WriteTimeout", &c.WriteTimeout, 10 * time.Second},
		{"CloseTimeout", &c.CloseTimeout, maxCloseTimeout},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("ws: configure: %s is %v: must not be negative; leave it 0 for %v", d.field, *d.value, d.fallback)
		}
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if c.CloseTimeout > maxCloseTimeout {
		return c, fmt.Errorf("ws: configure: CloseTimeout is %v: must be at most %v; leave it 0 for that", c.CloseTimeout, maxCloseTimeout)
	}
	if c.MaxMessage < 0 {
		return c, fmt.Errorf("ws: configure: MaxMessage is %d: must not be negative; leave it 0 for 64 KiB", c.MaxMessage)
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 10
	}
	for _, n := range []struct {
		field    string
		value    *int
		fallback int
	}{
		{"SendQueue", &c.SendQueue, 32},
		{"ReceiveQueue", &c.ReceiveQueue, 4},
		{"MaxConns", &c.MaxConns, 10_000},
	} {
		if *n.value < 0 {
			return c, fmt.Errorf("ws: configure: %s is %d: must not be negative; leave it 0 for %d", n.field, *n.value, n.fallback)
		}
		if *n.value == 0 {
			*n.value = n.fallback
		}
	}
	for i, o := range c.Origins {
		if err := checkOrigin(o); err != nil {
			return c, fmt.Errorf("ws: configure: Origins[%d] is %q: %w", i, o, err)
		}
	}
	for i, p := range c.Subprotocols {
		if !isToken(p) {
			return c, fmt.Errorf("ws: configure: Subprotocols[%d] is %q: must be a token, as \"orders.v1\"; mend or remove it", i, p)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// limiter returns nil for no limit.
func (c Config) limiter() (*resilience.RateLimiter, error) {
	if c.Rate == (resilience.RateLimit{}) {
		return nil, nil
	}
	l, err := resilience.NewRateLimiter(resilience.RateConfig{
		Rate: c.Rate.Rate, Per: c.Rate.Per, Burst: c.Rate.Burst, Algorithm: c.Rate.Algorithm,
		MaxKeys: 2 * c.MaxConns, // twice, so that no key of an open connection is evicted
	})
	if err != nil {
		return nil, fmt.Errorf("ws: configure: Rate: %w", err)
	}
	return l, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		case b == '-' || b == '.' || b == '_' || b == '+' || b == '~' || b == '!':
		default:
			return false
		}
	}
	return s != ""
}
