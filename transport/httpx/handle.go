package httpx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/internal/deadline"
	"github.com/armature-go/armature/transport"
)

// timeoutHeader carries how long the caller will wait, in milliseconds. A
// duration, not a point in time, because clocks differ.
const timeoutHeader = "Request-Timeout-Ms"

// RouteOption changes one route.
type RouteOption func(*route)

type route struct {
	pattern   pattern
	timeout   time.Duration
	maxBody   int64
	status    int
	heartbeat time.Duration // of Stream
	tagged    bool          // by AutoETag
	header    http.Header   // of every answer

	summary, description string // for OpenAPI, as what follows
	tags                 []string
	answers              []transport.Code
}

// Timeout replaces Config.Timeout for the route. It panics when d is not
// positive.
func Timeout(d time.Duration) RouteOption {
	if d <= 0 {
		panic(fmt.Sprintf("httpx: Timeout(%v): must be positive", d))
	}
	return func(rt *route) { rt.timeout = d }
}

// MaxBody replaces Config.MaxBody, in bytes, for the route. It panics when n is
// not positive.
func MaxBody(n int64) RouteOption {
	if n <= 0 {
		panic(fmt.Sprintf("httpx: MaxBody(%d): must be positive", n))
	}
	return func(rt *route) { rt.maxBody = n }
}

// Status sets the status of a success that does not choose its own by a
// StatusCode method. It panics when code is not a 2xx or 3xx.
func Status(code int) RouteOption {
	if code < 200 || code > 399 {
		panic(fmt.Sprintf("httpx: Status(%d): must be between 200 and 399", code))
	}
	return func(rt *route) { rt.status = code }
}

// Handle serves pattern, "METHOD /path/{wildcard}", with f. The request is bound
// as the package comment says and, if it has a Validate() error method, validated.
// The response is sent as JSON with the status of its StatusCode() int method, of
// the [Status] option, or 200 (204 for struct{}), and with the headers of its
// Headers() http.Header method. Like http.ServeMux, Handle panics on mistakes that
// only a programmer can mend: a bad or taken pattern, a tag that cannot work.
func Handle[Req, Resp any](on Router, pattern string, f transport.Func[Req, Resp], opts ...RouteOption) {
	s, pattern, opts := on.place(pattern, opts)
	rt := &route{timeout: s.cfg.Timeout, maxBody: s.cfg.MaxBody}
	plan := rt.prepare("handle", pattern, f == nil, reflect.TypeFor[Req](), opts)
	if rt.status == 0 {
		rt.status = http.StatusOK
		if reflect.TypeFor[Resp]() == reflect.TypeFor[struct{}]() {
			rt.status = http.StatusNoContent
		}
	}
	s.describe(described{rt: rt, plan: plan, resp: reflect.TypeFor[Resp]()})
	call := transport.Func[Req, Resp](func(ctx context.Context, req Req) (Resp, error) {
		resp, err := f(ctx, req)
		return resp, transport.Executed(err)
	}).With(s.cfg.Middleware...)
	s.mux.Handle(pattern, direct{rt.pattern.path, func(res *response, r *http.Request) {
		ctx := deadline.At(res.ctx, res.start.Add(rt.budget(r)))
		defer ctx.End()
		rt.mark(res)
		var req Req
		err := acceptable(r.Header, "application/json")
		if err == nil {
			err = bind(plan, rt, res, r, &req)
		}
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			e := transport.AsError(err)
			refused := *e
			refused.Details.NotExecuted = true
			res.fail(r, &refused)
			return
		}
		resp, err := call(ctx, req)
		if err != nil {
			res.fail(r, afterCall(ctx, err))
			return
		}
		res.succeed(r, rt, resp)
	}})
}

// prepare completes the route or panics with what is wrong.
func (rt *route) prepare(verb, pattern string, missing bool, req reflect.Type, opts []RouteOption) *plan {
	rt.pattern = parsePattern(pattern)
	for _, opt := range opts {
		opt(rt)
	}
	if missing {
		panic("httpx: " + verb + " " + pattern + ": the function is nil")
	}
	if rt.pattern.method == "" {
		panic("httpx: " + verb + " " + pattern + ": the pattern has no method; write it as \"GET /path\"")
	}
	plan, err := compile(req, rt.pattern)
	if err != nil {
		panic("httpx: " + verb + " " + pattern + ": " + err.Error())
	}
	return plan
}

// mark puts the route's own headers on an answer.
func (rt *route) mark(res *response) {
	header := res.Header()
	for name, values := range rt.header {
		header[name] = append(header[name], values...)
	}
}

// budget is the smaller of what the route allows and what the caller waits for. A
// header that is no number is ignored: it is advice, not input.
func (rt *route) budget(r *http.Request) time.Duration {
	said := first(r.Header[timeoutHeader])
	if said == "" {
		return rt.timeout
	}
	ms, err := strconv.ParseUint(said, 10, 63)
	if err != nil || ms >= uint64(rt.timeout/time.Millisecond) {
		return rt.timeout
	}
	return time.Duration(ms) * time.Millisecond
}

// afterCall makes err fit to be the answer of a function.
func afterCall(ctx context.Context, err error) error {
	e := transport.AsError(err)
	if e.Code == transport.Internal && e.Reason == "" && ctx.Err() != nil {
		// Drivers turn the end of a context into errors of their own.
		return transport.AsError(ctx.Err()).WithCause(err)
	}
	return err
}

// bind reads the request into *req, which is a struct, a pointer to one, or
// whatever JSON value the route takes.
func bind(pl *plan, rt *route, res *response, r *http.Request, req any) error {
	v := reflect.ValueOf(req).Elem()
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(pl.typ))
		v = v.Elem()
	}
	buf := bodies.Get().(*bytes.Buffer)
	defer func() { // nothing that was decoded shares memory with it
		if buf.Cap() <= maxPooled {
			bodies.Put(buf)
		}
	}()
	err := pl.read(r, func() ([]byte, error) { return readBody(buf, rt, res, r) }, v)
	if err != nil {
		return err
	}
	return validate(v)
}

func validate(v reflect.Value) error {
	validator, ok := v.Addr().Interface().(interface{ Validate() error })
	if !ok {
		return nil
	}
	err := validator.Validate()
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*transport.Error](err)
	if !ok {
		e = transport.Errorf(transport.InvalidArgument, "INVALID_REQUEST", "%s", err.Error()).WithDomain(domain)
	}
	if e.StatusCode() == http.StatusBadRequest {
		e = e.WithStatus(http.StatusUnprocessableEntity)
	}
	return e
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readBody reads into buf, which holds what is returned.
func readBody(buf *bytes.Buffer, rt *route, res *response, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if e := mediaType(r.Header); e != nil {
		return nil, e
	}
	if r.ContentLength > rt.maxBody {
		res.Header().Set("Connection", "close") // rather than read on to the end
		return nil, tooLarge(rt.maxBody)
	}
	buf.Reset()
	var data []byte
	var err error
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength))
		data = buf.AvailableBuffer()[:r.ContentLength]
		_, err = io.ReadFull(r.Body, data)
	} else {
		_, err = buf.ReadFrom(http.MaxBytesReader(res.ResponseWriter, r.Body, rt.maxBody))
		data = buf.Bytes()
	}
	if err == nil {
		return data, nil
	}
	switch _, large := errors.AsType[*http.MaxBytesError](err); {
	case large:
		return nil, tooLarge(rt.maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, transport.Errorf(transport.DeadlineExceeded, "BODY_TIMEOUT", "the body took too long: %w", err).
			WithDomain(domain).WithStatus(http.StatusRequestTimeout)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, malformed("it ends before its Content-Length")
	default:
		return nil, transport.Errorf(transport.InvalidArgument, "MALFORMED_BODY", "the body cannot be read: %w", err).WithDomain(domain)
	}
}

func tooLarge(limit int64) *transport.Error {
	return transport.Errorf(transport.InvalidArgument, "BODY_TOO_LARGE", "the body is larger than %d bytes", limit).
		WithDomain(domain).WithStatus(http.StatusRequestEntityTooLarge)
}

// mediaType also refuses a missing Content-Type: a browser sends such requests
// across origins without asking first.
func mediaType(h http.Header) *transport.Error {
	refuse := func(format string, args ...any) *transport.Error {
		return transport.Errorf(transport.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", format, args...).
			WithDomain(domain).WithStatus(http.StatusUnsupportedMediaType)
	}
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse("Content-Encoding %q is not supported; send the body as it is", encoding)
	}
	if !isJSON(h.Get("Content-Type")) {
		return refuse("Content-Type %q is not supported; send application/json", h.Get("Content-Type"))
	}
	return nil
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || (params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8")) {
		return false
	}
	return media == "application/json" || (strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"))
}

func (res *response) succeed(r *http.Request, rt *route, resp any) {
	status := rt.status
	if sc, ok := resp.(interface{ StatusCode() int }); ok {
		if status = sc.StatusCode(); status < 200 || status > 599 {
			res.fail(r, transport.Errorf(transport.Internal, "", "internal error").
				WithCause(fmt.Errorf("httpx: send response: %T has the status %d", resp, status)))
			return
		}
	}
	if h, ok := resp.(interface{ Headers() http.Header }); ok {
		header := res.Header()
		for name, values := range h.Headers() {
			header[http.CanonicalHeaderKey(name)] = values
		}
	}
	if status < 300 && res.validators(resp).unchanged(r) {
		status = http.StatusNotModified
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		res.WriteHeader(status)
		return
	}
	var revise func([]byte) int
	if rt.tagged && status == http.StatusOK {
		revise = func(body []byte) int { return res.tag(r, body) }
	}
	if err := res.json(status, "application/json", resp, revise); err != nil {
		res.fail(r, transport.Errorf(transport.Internal, "", "internal error").WithCause(err))
	}
}

// encoder is a buffer with what writes JSON into it.
type encoder struct {
	bytes.Buffer
	json *json.Encoder
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.Buffer)
	return e
}}

// maxPooled keeps one huge answer from staying in memory for good.
const maxPooled = 64 << 10

// writeTimeout bounds how long a client may take to read an answer that is in
// memory already.
const writeTimeout = 30 * time.Second

// json encodes before it writes, so an encoding error leaves the answer open. revise,
// if not nil, looks at the body and chooses the status.
func (res *response) json(status int, contentType string, value any, revise func([]byte) int) error {
	buf := encoders.Get().(*encoder)
	buf.Reset()
	defer func() {
		if buf.Cap() <= maxPooled {
			encoders.Put(buf)
		}
	}()
	if err := buf.json.Encode(value); err != nil {
		return fmt.Errorf("httpx: encode %T: %w", value, err)
	}
	if revise != nil {
		if status = revise(buf.Bytes()); status == http.StatusNotModified {
			res.WriteHeader(status)
			return nil
		}
	}
	header := res.Header()
	if first(header["Content-Type"]) == "" || contentType == transport.ProblemType {
		res.setHeader("Content-Type", contentType)
	}
	res.setHeader("X-Content-Type-Options", "nosniff")
	res.setHeader("Content-Length", strconv.Itoa(buf.Len()))
	// Not every ResponseWriter has deadlines; those of net/http do.
	_ = http.NewResponseController(res.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout))
	res.WriteHeader(status)
	_, _ = res.Write(buf.Bytes()) // a client that left is not our failure
	return nil
}
