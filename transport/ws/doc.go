// Package ws serves and opens WebSocket connections that carry typed JSON messages.
//
//	live, err := ws.New(func(ctx context.Context, c *ws.Conn[Command, Event]) error {
//		return svc.Live(ctx, c.Request().PathValue("id"), c)
//	}, ws.Config{Logger: log})
//	server.Mount("GET /orders/{id}/live", live)
//	err = live.Shutdown(ctx) // beside server.Shutdown, which does not wait for WebSockets
//
// # Failure semantics
//
// A connection ends once, for one reason, and that reason is what Receive and Send
// return from then on. What the peer is told is a close code:
//
//	1000  the function returned nil or io.EOF
//	1001  the handler drains ([ErrDraining])
//	1002  the peer broke the protocol
//	1003  a binary message; 1007 one that is not JSON; 1009 one that is too long
//	1008  a message of the wrong shape, too many messages, and every error of the
//	      function that is the caller's fault, with its safe message
//	1011  any other error, and a panic; details stay in the log
//	1013  the peer reads too slowly ([ErrSlow]), and UNAVAILABLE, RESOURCE_EXHAUSTED,
//	      ABORTED, CANCELED and DEADLINE_EXCEEDED
//
// A function that returns a [*CloseError] chooses for itself. A peer that answers no
// ping, or whose connection broke, is [ErrGone] and is told nothing. A message that
// Send took is queued, not delivered: those queued when a function returns are written
// first; those queued when a connection ends for another reason are lost.
//
// A handshake is refused with a problem document: 403 for another origin, 503 while
// draining or at MaxConns, 400, 405 or 426 for what is no WebSocket handshake.
//
// Messages are not compressed: compressing what strangers can influence beside secrets
// gives the secrets away, and costs much memory for each connection.
package ws
