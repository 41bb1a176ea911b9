package httpx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

const (
	instrumentation = "github.com/armature-go/armature/transport/httpx"
	traceIDHeader   = "X-Trace-Id"
)

var traceContext propagation.TraceContext

// asServer is kept because making it anew costs an allocation.
var asServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// traceHeader reads the two headers of a trace context by their canonical names,
// which http.Header.Get would work out each time.
type traceHeader struct{ propagation.HeaderCarrier }

func (h traceHeader) Get(key string) string {
	switch key {
	case "traceparent":
		key = "Traceparent"
	case "tracestate":
		key = "Tracestate"
	default:
		return h.HeaderCarrier.Get(key)
	}
	return first(h.HeaderCarrier[key])
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// identified gives a request without a correlation id a new one.
type identified struct{ flow.HTTPHeader }

func (h identified) Get(f flow.Field) string {
	value := h.HTTPHeader.Get(f)
	if value == "" && f == flow.Correlation {
		return flow.NewID()
	}
	return value
}

// response is the one thing that lives per request: it is what handlers write to
// and what the observation reads at the end.
type response struct {
	http.ResponseWriter
	ctx     context.Context // of the request, with span and flow
	server  *Server
	start   time.Time
	route   string
	traceID string
	status  int // 0 until the header is written
	bytes   int64
	err     error // why the answer is a 5xx
	// routing is true until a route is found or an answer of ours begins. What
	// http.ServeMux says in between, but for redirects, is muted: it is plain text.
	routing bool
	muted   bool

	values [5]string // of the headers of ours, which so need no slice of their own
	set    int
}

// setHeader is Header().Set for a name in canonical form.
func (res *response) setHeader(name, value string) {
	if res.set == len(res.values) {
		res.Header()[name] = []string{value}
		return
	}
	i := res.set
	res.set++
	res.values[i] = value
	res.Header()[name] = res.values[i : i+1 : i+1]
}

// routed tells the observation that a route was found.
type routed struct {
	route string
	http.Handler
}

func (h routed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := w.(*response) // the mux is reachable through Server.ServeHTTP alone
	res.route, res.routing = h.route, false
	h.Handler.ServeHTTP(w, r.WithContext(res.ctx))
}

// direct is routed for what takes the context from the response and so saves the
// copy of the request that would carry it.
type direct struct {
	route string
	serve func(*response, *http.Request)
}

func (h direct) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := w.(*response)
	res.route, res.routing = h.route, false
	h.serve(res, r)
}

// ServeHTTP answers and observes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := &response{ResponseWriter: w, server: s, start: time.Now(), routing: true}
	ctx := traceContext.Extract(r.Context(), traceHeader{propagation.HeaderCarrier(r.Header)})
	if s.cfg.TrustHeaders {
		ctx = flow.Extract(ctx, identified{flow.HTTPHeader(r.Header)})
	} else {
		ctx = flow.ExtractPublic(ctx, identified{flow.HTTPHeader(r.Header)})
	}
	id := flow.CorrelationID(ctx)
	if id == "" { // it came with one that is not fit to be passed on
		id = flow.NewID()
		ctx = flow.WithCorrelationID(ctx, id)
	}
	ctx, span := s.tracer.Start(ctx, knownMethod(r.Method), asServer...)
	res.ctx = ctx
	res.setHeader(flow.Correlation.HTTP(), id)
	if sc := span.SpanContext(); sc.HasTraceID() {
		res.traceID = sc.TraceID().String()
		res.setHeader(traceIDHeader, res.traceID)
	}
	defer s.finish(ctx, span, res, r)
	s.mux.ServeHTTP(res, r)
	if res.muted {
		unroutable(res, r)
	}
}

// unroutable replaces what http.ServeMux says when it has no handler.
func unroutable(res *response, r *http.Request) {
	status := res.status
	res.status = 0
	e := transport.Errorf(transport.CodeFromHTTP(status), "", "%s", http.StatusText(status)).WithStatus(status)
	switch status {
	case http.StatusNotFound:
		e = transport.Errorf(transport.NotFound, "ROUTE_NOT_FOUND", "there is nothing at this path").WithDomain(domain)
	case http.StatusMethodNotAllowed:
		e = transport.Errorf(transport.Unimplemented, "METHOD_NOT_ALLOWED", "%s is not allowed here; allowed: %s",
			knownMethod(r.Method), res.Header().Get("Allow")).WithDomain(domain).WithStatus(status)
	}
	e.Details.NotExecuted = true
	res.fail(r, e)
}

// finish runs deferred: a panicking request is counted like any other.
func (s *Server) finish(ctx context.Context, span trace.Span, res *response, r *http.Request) {
	var abort any
	if v := recover(); v != nil {
		abort = s.recovered(ctx, v, res, r)
	}
	status := res.status
	switch {
	case status == 0 && abort != nil:
		status = transport.StatusClientClosedRequest
	case status == 0:
		status = http.StatusOK
	}
	elapsed := time.Since(res.start)
	method, route := knownMethod(r.Method), res.route
	if route == "" {
		route = unmatched
	}
	o := s.outcomes.of(method, route, status)
	if o.duration != nil {
		o.duration.Observe(elapsed.Seconds())
	}
	if span.IsRecording() {
		if o.span != "" {
			span.SetName(o.span)
		}
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
		span.SetAttributes(append(o.attributes, attribute.String("url.path", r.URL.Path))...)
	}
	if s.cfg.Logger.Enabled(ctx, slog.LevelInfo) {
		// A record of one's own comes without the line of code it is made in, which
		// says nothing here and costs a walk over the stack.
		line := slog.NewRecord(res.start.Add(elapsed), slog.LevelInfo, "http request", 0)
		line.AddAttrs(
			slog.String("method", method),
			slog.String("route", route),
			slog.Int("status", status),
			slog.Duration("duration", elapsed),
			slog.Int64("bytes", res.bytes),
		)
		if res.err != nil {
			line.AddAttrs(slog.String("error", res.err.Error()))
		}
		_ = s.cfg.Logger.Handler().Handle(ctx, line) // slog.Logger ignores it too
	}
	span.End()
	if abort != nil {
		panic(abort)
	}
}

// recovered answers for a handler that panicked. It returns what to panic with
// once the request is observed: when an answer had begun, only a broken
// connection tells the client that it is not complete.
func (s *Server) recovered(ctx context.Context, v any, res *response, r *http.Request) (abort any) {
	if v == http.ErrAbortHandler { // net/http compares the same way
		return v
	}
	route := res.route
	if route == "" {
		route = unmatched
	}
	s.metrics.panicked(knownMethod(r.Method), route)
	s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "http handler panicked",
		slog.String("method", knownMethod(r.Method)), slog.String("route", route),
		slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
	if res.status != 0 {
		return http.ErrAbortHandler
	}
	res.fail(r, transport.Errorf(transport.Internal, "", "internal error").WithCause(errors.New("handler panicked")))
	return nil
}

func (res *response) WriteHeader(status int) {
	if res.status != 0 {
		if !res.muted {
			res.ResponseWriter.WriteHeader(status) // net/http reports the mistake
		}
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		res.ResponseWriter.WriteHeader(status)
		return
	}
	res.status = status
	if res.routing && status >= 400 {
		res.muted = true
		return
	}
	if status != http.StatusSwitchingProtocols && res.server.draining.Err() != nil {
		res.Header().Set("Connection", "close")
	}
	res.ResponseWriter.WriteHeader(status)
}

func (res *response) Write(p []byte) (int, error) {
	if res.status == 0 {
		res.WriteHeader(http.StatusOK)
	}
	if res.muted {
		return len(p), nil
	}
	n, err := res.ResponseWriter.Write(p)
	res.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (res *response) Unwrap() http.ResponseWriter { return res.ResponseWriter }

// Flush serves handlers that know http.Flusher only.
func (res *response) Flush() {
	if res.status == 0 {
		res.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(res.ResponseWriter).Flush()
}

// Hijack serves handlers that know http.Hijacker only.
func (res *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(res.ResponseWriter).Hijack()
	if err == nil && res.status == 0 {
		res.status = http.StatusSwitchingProtocols
	}
	return nc, rw, err
}

// fail answers err as a problem document.
func (res *response) fail(r *http.Request, err error) {
	res.routing, res.muted = false, false
	e := transport.AsError(err)
	problem := e.Problem()
	if problem.Status >= 500 {
		res.err = err
	}
	problem.Instance = r.URL.EscapedPath()
	problem.TraceID = res.traceID
	header := res.Header()
	for name, values := range transport.HeadersOf(err) {
		header[name] = values
	}
	_ = res.json(problem.Status, transport.ProblemType, problem, nil) // strings and numbers always encode
}
