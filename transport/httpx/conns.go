package httpx

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// conns knows every connection of a server. http.Server.Shutdown closes what it
// takes for idle, also when the first bytes of a request have just been read from
// it; here a connection ends only by a read that finds nothing, so a request is
// either answered or was never read.
type conns struct {
	grace time.Duration // to finish a request whose beginning was read

	mu       sync.Mutex
	open     map[*conn]struct{}
	draining bool
	empty    chan struct{} // closed when draining and open is empty
}

func newConns(grace time.Duration) *conns {
	return &conns{grace: grace, open: make(map[*conn]struct{}), empty: make(chan struct{})}
}

// drain ends the connections that carry no request, now and as they become so.
func (cs *conns) drain() (empty <-chan struct{}) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.draining = true
	for c := range cs.open {
		c.endIfUnread()
	}
	cs.signal()
	return cs.empty
}

// force closes everything and returns how many connections were open.
func (cs *conns) force() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	n := len(cs.open)
	for c := range cs.open {
		c.Conn.Close()
	}
	return n
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
	cs.signal()
}

func (cs *conns) signal() {
	if cs.draining && len(cs.open) == 0 {
		select {
		case <-cs.empty:
		default:
			close(cs.empty)
		}
	}
}

// state is the ConnState hook of the http.Server.
func (cs *conns) state(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateIdle:
		cs.mu.Lock()
		defer cs.mu.Unlock()
		c.unread, c.carried = !c.carried, false
		if cs.draining {
			c.endIfUnread()
		}
	case http.StateHijacked:
		cs.remove(c)
	}
}

type listener struct {
	net.Listener
	conns *conns
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, conns: l.conns, unread: true}
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	l.conns.open[c] = struct{}{}
	if l.conns.draining {
		c.endIfUnread()
	}
	return c, nil
}

// conn guards its fields with conns.mu.
type conn struct {
	net.Conn
	conns   *conns
	unread  bool // no byte of the request that comes next was read
	carried bool // the byte read while a handler ran belongs to the next request
	ended   bool
}

// linger is how long an ended connection still looks for a request: one that has
// arrived already, though nobody has read it, is answered too.
const linger = 20 * time.Millisecond

func (c *conn) endIfUnread() {
	if c.unread {
		c.ended = true
		c.Conn.SetReadDeadline(time.Now().Add(linger))
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.conns.mu.Lock()
		defer c.conns.mu.Unlock()
		c.unread = false
		// While a handler runs, net/http reads one byte ahead to notice that the
		// client has left. Nothing else reads with a buffer of one.
		c.carried = len(p) == 1
		if c.ended {
			c.ended = false
			c.Conn.SetReadDeadline(time.Now().Add(c.conns.grace))
		}
	}
	return n, err
}

// SetReadDeadline keeps net/http from lengthening the wait of an ended connection.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	if c.ended {
		t = time.Now().Add(linger)
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite lets net/http end an answer to an unread body without a reset.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.conns.remove(c)
	return err
}
