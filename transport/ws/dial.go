package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/propagation"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// Dial opens a connection to url (ws, wss, http or https) that receives In and sends
// Out, with the same limits as a [Handler]; unknown fields are ignored. ctx bounds the
// handshake alone, which carries what flow knows and the trace. The caller closes the
// connection.
//
// A refused handshake is the [*transport.Error] of its answer. When no answer came it is
// CANCELED or DEADLINE_EXCEEDED when ctx has ended, else UNAVAILABLE.
//
// A connection that ends is not opened again, because nobody but the caller knows what
// was missed meanwhile. Where [*CloseError].Retryable is true, or the error is [ErrGone],
// dial again after a pause that grows and differs between clients.
func Dial[In, Out any](ctx context.Context, url string, cfg Config) (*Conn[In, Out], error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &wire{cfg: &cfg}
	if w.limiter, err = cfg.limiter(); err != nil {
		return nil, err
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	held := &capture{RoundTripper: client.Transport}
	if held.RoundTripper == nil {
		held.RoundTripper = http.DefaultTransport
	}
	client.Transport = held
	header := cfg.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	flow.Inject(ctx, flow.HTTPHeader(header))
	traceContext.Inject(ctx, propagation.HeaderCarrier(header))
	conn, answer, err := websocket.Dial(ctx, url, &websocket.DialOptions{ //nolint:bodyclose // the library says that it never needs to be
		HTTPClient:     &client,
		HTTPHeader:     header,
		Subprotocols:   cfg.Subprotocols,
		OnPingReceived: func(context.Context, []byte) bool { return w.allow() },
	})
	if err != nil {
		return nil, unanswered(ctx, answer, err)
	}
	w.ws, w.line = conn, held.line
	w.open(context.WithoutCancel(ctx))
	return &Conn[In, Out]{wire: w}, nil
}

func unanswered(ctx context.Context, answer *http.Response, err error) error {
	err = fmt.Errorf("ws: dial: %w", err)
	if answer != nil && answer.StatusCode >= 400 && answer.Body != nil {
		body, readErr := io.ReadAll(answer.Body)
		return transport.FromProblem(answer.StatusCode, body).WithCause(errors.Join(err, readErr))
	}
	if ctx.Err() != nil {
		return transport.AsError(ctx.Err()).WithCause(errors.Join(ctx.Err(), err))
	}
	e := transport.Errorf(transport.Unavailable, "", "the service is unavailable: %w", err)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		e.Details.NotExecuted = true
	}
	return e
}
