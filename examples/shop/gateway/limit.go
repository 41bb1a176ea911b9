package gateway

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// forget is how long a client that went silent is remembered; by then its allowance is full again.
const forget = time.Minute

// limiter gives each client its own allowance. It is safe for concurrent use.
type limiter struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	clients map[netip.Prefix]*client
	swept   time.Time
}

type client struct {
	allowance *rate.Limiter
	seen      time.Time
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{limit: rate.Limit(perSecond), burst: burst, clients: map[netip.Prefix]*client{}, swept: time.Now()}
}

// allow reports whether the client at addr ("host:port") may go on, and otherwise how long it should wait. An IPv6
// client is its /64: whoever has one address there has them all.
func (l *limiter) allow(addr string) (wait time.Duration, ok bool) {
	var key netip.Prefix
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		ip, bits := ap.Addr().Unmap(), 32
		if ip.Is6() {
			bits = 64
		}
		key, _ = ip.Prefix(bits)
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) > forget {
		for k, c := range l.clients {
			if now.Sub(c.seen) > forget {
				delete(l.clients, k)
			}
		}
		l.swept = now
	}
	c := l.clients[key]
	if c == nil {
		c = &client{allowance: rate.NewLimiter(l.limit, l.burst)}
		l.clients[key] = c
	}
	c.seen = now
	r := c.allowance.ReserveN(now, 1)
	if delay := r.DelayFrom(now); delay > 0 {
		r.CancelAt(now)
		return delay, false
	}
	return 0, true
}
