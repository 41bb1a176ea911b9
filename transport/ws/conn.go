package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/armature-go/armature/transport"
)

// Conn is an open connection that receives In and sends Out. All methods are safe for
// concurrent use; a message goes to one of several receivers. An idle one of a
// [Handler] costs three goroutines and, with their stacks and 8 KiB of buffers, some
// 36 KiB of memory.
type Conn[In, Out any] struct {
	wire   *wire
	req    *http.Request
	strict bool
}

// Request returns the request that opened the connection, for its path values, header
// and TLS state, and nil for a connection of [Dial]. Its body is gone.
func (c *Conn[In, Out]) Request() *http.Request { return c.req }

// Subprotocol returns which of Config.Subprotocols both sides agreed on, or "".
func (c *Conn[In, Out]) Subprotocol() string { return c.wire.ws.Subprotocol() }

// Receive returns the next message. It waits until there is one, ctx ends or the
// connection does: then it returns io.EOF when the peer closed it in peace, otherwise
// the reason. A message that is not an In ends the connection; for a connection of
// [New] that includes unknown fields and what In's Validate() error method, if it has
// one, refuses.
//
// While ReceiveQueue is full nothing is read, so that the peer is held back: its pings
// are not answered, and its goodbye is not noticed. A function that is busy for longer
// than a peer waits for a pong receives on a goroutine of its own.
func (c *Conn[In, Out]) Receive(ctx context.Context) (In, error) {
	var in In
	data, err := c.wire.receive(ctx)
	if err != nil {
		return in, err
	}
	if err := decode(data, &in, c.strict); err != nil {
		c.wire.end(err)
		var zero In
		return zero, err
	}
	return in, nil
}

// Send queues a message. When the queue is full it waits for room until ctx ends, and
// no longer than WriteTimeout: then the connection is closed with 1013 and the error is
// [ErrSlow]. A message that has no JSON is an error that leaves the connection open.
func (c *Conn[In, Out]) Send(ctx context.Context, out Out) error {
	data, err := encode(out)
	if err != nil {
		return err
	}
	return c.wire.send(ctx, data, c.wire.cfg.WriteTimeout)
}

// TrySend is Send without the wait, for those who send one message to many: when the
// queue is full the connection is closed at once, because a peer that misses one message
// unawares is worse off than one that has to connect again.
func (c *Conn[In, Out]) TrySend(out Out) error {
	data, err := encode(out)
	if err != nil {
		return err
	}
	return c.wire.send(context.Background(), data, 0)
}

// Close writes what is queued, closes the connection with 1000, and waits until it is
// gone, at most for CloseTimeout. Later calls wait too. It always returns nil. The
// function of [New] need not call it.
func (c *Conn[In, Out]) Close() error {
	c.wire.end(&finished{})
	<-c.wire.closed
	return nil
}

func encode(out any) ([]byte, error) {
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("ws: encode message %T: %w", out, err)
	}
	return data, nil
}

// decode reads one JSON value. What is no JSON is told apart from what is not an In.
func decode(data []byte, in any, strict bool) *CloseError {
	if !utf8.Valid(data) {
		return &CloseError{Code: codeBadPayload, Reason: "the message is not UTF-8"}
	}
	if !json.Valid(data) {
		return &CloseError{Code: codeBadPayload, Reason: "the message is not JSON"}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(in); err != nil {
		return &CloseError{Code: codePolicy, Reason: "the message has the wrong shape", cause: err}
	}
	if !strict {
		return nil
	}
	v, ok := in.(interface{ Validate() error })
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		reason := err.Error()
		if e, ok := errors.AsType[*transport.Error](err); ok {
			reason = e.Message
		}
		return &CloseError{Code: codePolicy, Reason: reason, cause: err}
	}
	return nil
}
