package ws

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// line is the byte stream below the protocol. It knows whether the peer was heard, and
// closing it ends every operation above, whatever that waits for.
type line struct {
	io.ReadWriteCloser
	heard  atomic.Uint64 // reads that brought something
	broken atomic.Bool   // a read has failed
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.ReadWriteCloser.Read(p)
	if n > 0 {
		l.heard.Add(1)
	}
	if err != nil {
		l.broken.Store(true)
	}
	return n, err
}

// lineConn reads through its line.
type lineConn struct {
	net.Conn
	line *line
}

func (c lineConn) Read(p []byte) (int, error) { return c.line.Read(p) }

// upgrade is the response to a handshake. It takes hold of the connection and keeps
// the text of a refusal back, which is answered as a problem document.
type upgrade struct {
	http.ResponseWriter
	line    *line
	refused int // the status
}

func (u *upgrade) WriteHeader(status int) {
	if status >= 400 {
		u.refused = status
		return
	}
	u.ResponseWriter.WriteHeader(status)
}

func (u *upgrade) Write(p []byte) (int, error) {
	if u.refused != 0 {
		return len(p), nil
	}
	return u.ResponseWriter.Write(p)
}

func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.line = &line{ReadWriteCloser: nc}
	return lineConn{nc, u.line}, rw, nil
}

// capture takes hold of the connection of a client.
type capture struct {
	http.RoundTripper
	line *line
}

func (c *capture) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	if rwc, ok := resp.Body.(io.ReadWriteCloser); ok {
		c.line = &line{ReadWriteCloser: rwc}
		resp.Body = c.line
	}
	return resp, nil
}
