package httpx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
)

// ClientConfig configures [NewClient].
type ClientConfig struct {
	// BaseURL is where the pattern's path begins, as in "http://orders:8080/v1".
	// Required.
	BaseURL string
	// Client sends the requests. Nil makes one that keeps up to 100 idle
	// connections to the host. A client without CheckRedirect does not follow
	// redirects here, because they would carry identity to another host.
	Client *http.Client
	// Policy is run around every call; it may make several attempts.
	Policy         resilience.Policy
	TracerProvider trace.TracerProvider // nil makes no spans; a trace in the context is passed on
	Timeout        time.Duration        // of a call, attempts included, whose context has no deadline. Default 30s
	MaxBody        int64                // bytes of a response. Default 8 MiB
}

// NewClient returns a function that calls "METHOD /path/{wildcard}" of another
// service. Requests are written by the tags that [Handle] reads; responses may
// have unknown fields. An error answer is an [*transport.Error], whoever wrote it.
// When no answer came it is one as well: CANCELED or DEADLINE_EXCEEDED when the
// context has ended, else UNAVAILABLE, which is NotExecuted when no connection
// was made. An error of Policy (an open breaker) is returned as it is.
//
// Every attempt carries what flow knows, the trace, and in Request-Timeout-Ms how
// long the caller will wait. The function is safe for concurrent use.
func NewClient[Req, Resp any](cfg ClientConfig, pattern string) (transport.Func[Req, Resp], error) {
	c, err := newCaller(cfg, pattern, reflect.TypeFor[Req]())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, req Req) (Resp, error) {
		var zero Resp
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
			defer cancel()
		}
		out, err := c.encode(req)
		if err != nil {
			return zero, err
		}
		return resilience.Call(ctx, c.cfg.Policy, func(ctx context.Context) (Resp, error) {
			var resp Resp
			err := c.attempt(ctx, out, &resp)
			return resp, err
		})
	}, nil
}

type caller struct {
	cfg     ClientConfig
	base    *url.URL
	pattern pattern
	plan    *plan
	tracer  trace.Tracer
}

func newCaller(cfg ClientConfig, text string, req reflect.Type) (*caller, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.RawQuery != "" {
		shown := "malformed"
		if err == nil {
			shown = strconv.Quote(base.Redacted())
		}
		return nil, fmt.Errorf("httpx: configure client: BaseURL is %s: must be http or https with a host and no query; write it as \"http://orders:8080\"", shown)
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("httpx: configure client: Timeout is %v: must not be negative; leave it 0 for 30s", cfg.Timeout)
	}
	if cfg.MaxBody < 0 {
		return nil, fmt.Errorf("httpx: configure client: MaxBody is %d: must not be negative; leave it 0 for 8 MiB", cfg.MaxBody)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 8 << 20
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = noop.NewTracerProvider()
	}
	client := http.Client{Transport: pooled()}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	if client.CheckRedirect == nil {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	cfg.Client = &client
	p := parsePattern(text)
	if p.method == "" || !strings.HasPrefix(p.path, "/") {
		return nil, fmt.Errorf("httpx: configure client: the pattern is %q: must have a method and a path; write it as \"GET /orders/{id}\"", text)
	}
	plan, err := compile(req, p)
	if err != nil {
		return nil, fmt.Errorf("httpx: configure client: %q: %w", text, err)
	}
	for _, name := range p.wildcards {
		if !plan.fills(name) {
			return nil, fmt.Errorf("httpx: configure client: %q: %s fills no wildcard {%s}; add a field tagged `path:%q`", text, req, name, name)
		}
	}
	return &caller{cfg: cfg, base: base, pattern: p, plan: plan, tracer: cfg.TracerProvider.Tracer(instrumentation)}, nil
}

// pooled is http.DefaultTransport for a client that talks to one host.
func pooled() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.MaxIdleConnsPerHost = 100
	return t
}

func (pl *plan) fills(wildcard string) bool {
	for _, p := range pl.params {
		if p.in == inPath && p.name == wildcard {
			return true
		}
	}
	return false
}

// outgoing is a request that can be sent several times.
type outgoing struct {
	url    string
	header http.Header
	body   []byte // nil = none
}

func (c *caller) encode(req any) (*outgoing, error) {
	refuse := func(err error) error {
		e := transport.Errorf(transport.InvalidArgument, "", "the request cannot be sent: %w", err)
		e.Details.NotExecuted = true
		return e
	}
	v := reflect.ValueOf(req)
	if v.IsValid() && v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil, refuse(errors.New("httpx: the request is nil"))
	}
	// A copy, because hiding fields from encoding/json takes an addressable value.
	ptr := reflect.New(c.plan.typ)
	ptr.Elem().Set(v)
	out := &outgoing{header: http.Header{"Accept": {"application/json, " + transport.ProblemType}}}
	path, query := map[string]string{}, url.Values{}
	if err := c.plan.write(ptr.Elem(), path, query, out.header); err != nil {
		return nil, refuse(err)
	}
	escaped, err := c.pattern.expand(path)
	if err != nil {
		return nil, refuse(err)
	}
	out.url = strings.TrimSuffix(c.base.String(), "/") + escaped
	if len(query) > 0 {
		out.url += "?" + query.Encode()
	}
	if c.plan.body != nil {
		out.header.Set("Content-Type", "application/json")
		if out.body, err = json.Marshal(ptr.Convert(reflect.PointerTo(c.plan.body)).Interface()); err != nil {
			return nil, refuse(err)
		}
	}
	return out, nil
}

// attempt sends out once and decodes the answer into resp.
func (c *caller) attempt(ctx context.Context, out *outgoing, resp any) (err error) {
	ctx, span := c.tracer.Start(ctx, c.pattern.String(), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	status := 0
	if span.IsRecording() {
		defer func() { c.describe(span, status, err) }()
	}
	// bytes.Reader gives the request a Content-Length and a GetBody, so that
	// net/http can send it again over a connection that turned out dead.
	var body io.Reader
	if out.body != nil {
		body = bytes.NewReader(out.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.pattern.method, out.url, body)
	if err != nil {
		return transport.Errorf(transport.Internal, "", "internal error: %w", err)
	}
	req.Header = out.header.Clone()
	flow.Inject(ctx, flow.HTTPHeader(req.Header))
	traceContext.Inject(ctx, propagation.HeaderCarrier(req.Header))
	if deadline, ok := ctx.Deadline(); ok {
		req.Header.Set(timeoutHeader, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	answer, err := c.cfg.Client.Do(req)
	if err != nil {
		return unanswered(ctx, err)
	}
	defer func() {
		// Read on a little, so that the connection can be used again.
		_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
		answer.Body.Close()
	}()
	status = answer.StatusCode
	data, err := io.ReadAll(io.LimitReader(answer.Body, c.cfg.MaxBody+1))
	switch {
	case status < 200 || status > 299:
		return refusal(answer, data)
	case err != nil:
		return unanswered(ctx, err)
	case int64(len(data)) > c.cfg.MaxBody:
		return unreadable(fmt.Errorf("httpx: read response: more than %d bytes; raise MaxBody", c.cfg.MaxBody))
	case reflect.TypeOf(resp).Elem() == reflect.TypeFor[struct{}]() || status == http.StatusNoContent:
		return nil
	case !isJSON(answer.Header.Get("Content-Type")):
		return unreadable(fmt.Errorf("httpx: read response: Content-Type is %q, want application/json", answer.Header.Get("Content-Type")))
	}
	if err := json.Unmarshal(data, resp); err != nil {
		return unreadable(fmt.Errorf("httpx: decode response: %w", err))
	}
	return nil
}

func (c *caller) describe(span trace.Span, status int, err error) {
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", c.pattern.method),
		attribute.String("url.template", c.pattern.path),
		attribute.String("server.address", c.base.Hostname()),
	}
	if status != 0 {
		attributes = append(attributes, attribute.Int("http.response.status_code", status))
	}
	if err != nil {
		name := transport.CodeOf(err).String()
		span.SetStatus(codes.Error, name)
		attributes = append(attributes, attribute.String("error.type", name))
	}
	span.SetAttributes(attributes...)
}

// unanswered is for calls whose answer did not arrive, or not whole.
func unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return transport.AsError(ctx.Err()).WithCause(errors.Join(ctx.Err(), err))
	}
	e := transport.Errorf(transport.Unavailable, "", "the service is unavailable: %w", err)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		e.Details.NotExecuted = true
	}
	return e
}

// unreadable is for calls that succeeded with an answer nobody understands.
func unreadable(cause error) error {
	return transport.Errorf(transport.Internal, "", "the service gave an unreadable answer").WithCause(cause)
}

func refusal(answer *http.Response, body []byte) error {
	e := transport.FromProblem(answer.StatusCode, body)
	if e.Details.RetryAfter > 0 {
		return e
	}
	after := answer.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(after, 10, 64); err == nil {
		return e.WithRetryAfter(time.Duration(min(seconds, math.MaxInt32)) * time.Second)
	}
	if at, err := http.ParseTime(after); err == nil {
		if d := time.Until(at); d > 0 {
			return e.WithRetryAfter(d)
		}
	}
	return e
}
