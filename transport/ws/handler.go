package ws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
)

// domain is who defines the reasons of the errors this package makes itself.
const domain = "armature"

// defaultRate is what a stranger may send.
var defaultRate = resilience.RateLimit{Rate: 100}

var traceContext propagation.TraceContext

// Stats is a moment's view of a [Handler].
type Stats struct {
	Open     int    // connections, those in their handshake included
	Accepted uint64 // handshakes that succeeded
	Refused  uint64 // handshakes that did not
	Slow     uint64 // connections ended because the peer read too slowly
	Gone     uint64 // connections that broke, or whose peer gave no sign of life
	Failed   uint64 // connections whose function panicked or failed with 1011
}

// Handler serves WebSocket connections. It is an http.Handler to be mounted, on an
// httpx.Server for instance. Safe for concurrent use.
type Handler struct {
	cfg     Config
	limiter *resilience.RateLimiter
	run     func(ctx context.Context, w *wire, r *http.Request) error

	mu       sync.Mutex
	conns    map[*wire]context.CancelCauseFunc // ends the function's context
	stats    Stats
	draining bool
	idle     chan struct{} // closed when draining and nothing is open
}

// New returns a handler that runs fn for every connection, on the goroutine of its
// request. When fn returns, what it sent is written and the connection is closed with
// the code for its error, as the package comment says. A panic is logged and closes with
// 1011.
//
// ctx carries the correlation id and the trace of the request that opened the connection.
// It ends when the connection does, with the reason as its cause, and with [ErrDraining]
// when the handler shuts down: then Send and Receive go on to work for CloseTimeout.
func New[In, Out any](fn func(ctx context.Context, c *Conn[In, Out]) error, cfg Config) (*Handler, error) {
	if fn == nil {
		return nil, errors.New("ws: configure: the function is nil; pass one")
	}
	if cfg.Rate == (resilience.RateLimit{}) {
		cfg.Rate = defaultRate
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	limiter, err := cfg.limiter()
	if err != nil {
		return nil, err
	}
	return &Handler{
		cfg:     cfg,
		limiter: limiter,
		run: func(ctx context.Context, w *wire, r *http.Request) error {
			return fn(ctx, &Conn[In, Out]{wire: w, req: r, strict: true})
		},
		conns: make(map[*wire]context.CancelCauseFunc),
		idle:  make(chan struct{}),
	}, nil
}

// Stats returns the number of open connections and what became of the others.
func (h *Handler) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// ServeHTTP answers the handshake and returns when the connection is gone.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if err := h.enter(); err != nil {
		h.refuse(rw, r, err)
		return
	}
	defer h.leave()
	if !originAllowed(r, h.cfg.Origins) {
		h.refuse(rw, r, transport.Errorf(transport.PermissionDenied, "ORIGIN_NOT_ALLOWED", "pages of this origin may not connect").WithDomain(domain))
		return
	}
	r = r.WithContext(identified(r))
	w := &wire{cfg: &h.cfg, limiter: h.limiter}
	up := &upgrade{ResponseWriter: rw}
	conn, err := websocket.Accept(up, r, &websocket.AcceptOptions{
		Subprotocols:       h.cfg.Subprotocols,
		InsecureSkipVerify: true, // the origin has been looked at
		OnPingReceived:     func(context.Context, []byte) bool { return w.allow() },
	})
	if err != nil {
		if up.line != nil {
			up.line.Close()
			return
		}
		h.refuse(rw, r, transport.Errorf(transport.InvalidArgument, "NO_WEBSOCKET", "this is not a WebSocket handshake: %w", err).
			WithDomain(domain).WithStatus(up.refused))
		return
	}
	w.ws, w.line = conn, up.line
	h.serve(w, r)
}

func (h *Handler) serve(w *wire, r *http.Request) {
	ctx, drain := h.admit(w, r)
	defer drain(nil)
	err := error(transport.Errorf(transport.Internal, "", "internal error")) // of a function that ends its goroutine
	defer func() { h.settle(w, err) }()
	err = h.call(ctx, w, r)
}

// settle ends w, unless it has ended already, and waits for that.
func (h *Handler) settle(w *wire, err error) {
	w.end(&finished{err})
	<-w.closed
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, w)
	switch cause := context.Cause(w.ctx); {
	case errors.Is(cause, ErrSlow):
		h.stats.Slow++
	case errors.Is(cause, ErrGone):
		h.stats.Gone++
	}
}

// admit opens w, and returns the context of the function and what ends that alone.
func (h *Handler) admit(w *wire, r *http.Request) (context.Context, context.CancelCauseFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Accepted++
	w.key = strconv.FormatUint(h.stats.Accepted, 36)
	w.open(r.Context())
	ctx, drain := context.WithCancelCause(w.ctx)
	h.conns[w] = drain
	if h.draining {
		h.drain(w, drain)
	}
	return ctx, drain
}

// call runs the function. An error of it becomes 1001 while draining: that is why the
// function ended.
func (h *Handler) call(ctx context.Context, w *wire, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { // net/http compares the same way
				w.line.Close()
				return
			}
			h.failed()
			h.cfg.Logger.LogAttrs(ctx, slog.LevelError, "ws function panicked",
				slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
			err = transport.Errorf(transport.Internal, "", "internal error")
		}
	}()
	err = h.run(ctx, w, r)
	over := ctx.Err() != nil
	if over && errors.Is(context.Cause(ctx), ErrDraining) {
		return draining()
	}
	if code, _ := answer(err); code == codeInternal && !over {
		h.failed()
		h.cfg.Logger.LogAttrs(ctx, slog.LevelError, "ws function failed", slog.String("error", err.Error()))
	}
	return err
}

func (h *Handler) failed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Failed++
}

// identified is what the server in front has found out of the request, or, where that
// is a plain one, what the request says and may say.
func identified(r *http.Request) context.Context {
	ctx := r.Context()
	if flow.CorrelationID(ctx) == "" {
		ctx = flow.ExtractPublic(ctx, flow.HTTPHeader(r.Header))
	}
	if flow.CorrelationID(ctx) == "" {
		ctx = flow.WithCorrelationID(ctx, flow.NewID())
	}
	if !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	return ctx
}

func (h *Handler) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining || h.stats.Open >= h.cfg.MaxConns {
		e := transport.Errorf(transport.Unavailable, "NO_CONNECTIONS", "no more connections are accepted here").
			WithDomain(domain).WithRetryAfter(time.Second)
		e.Details.NotExecuted = true
		return e
	}
	h.stats.Open++
	return nil
}

func (h *Handler) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Open--
	h.signal()
}

func (h *Handler) signal() {
	if !h.draining || h.stats.Open > 0 {
		return
	}
	select {
	case <-h.idle:
	default:
		close(h.idle)
	}
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h.mu.Lock()
	h.stats.Refused++
	h.mu.Unlock()
	transport.EncodeError(r.Context(), err, w)
}

// Shutdown refuses new connections and ends the open ones with 1001: their functions'
// contexts end at once, and those that do not return within CloseTimeout are not waited
// for before the peer is told. Shutdown returns when every function has returned. When
// ctx ends first it cuts off what is left and returns an error that wraps ctx.Err().
// Later calls wait as well. Call it beside the Shutdown of the server, which neither
// ends nor waits for WebSocket connections.
func (h *Handler) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	if !h.draining {
		h.draining = true
		for w, drain := range h.conns {
			h.drain(w, drain)
		}
		h.signal()
	}
	h.mu.Unlock()
	select {
	case <-h.idle:
		return nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.conns {
		w.line.Close()
	}
	if h.stats.Open == 0 {
		return nil
	}
	return fmt.Errorf("ws: shut down: %d connections cut off: %w", h.stats.Open, context.Cause(ctx))
}

// drain asks the function to return, and does not wait for ever.
func (h *Handler) drain(w *wire, ask context.CancelCauseFunc) {
	ask(ErrDraining)
	late := time.AfterFunc(h.cfg.CloseTimeout, func() { w.end(draining()) })
	context.AfterFunc(w.ctx, func() { late.Stop() })
}
