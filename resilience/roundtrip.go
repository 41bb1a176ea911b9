package resilience

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// What is read at most of a response that nobody will see, so that its connection
// can carry the next attempt: more than that costs more than a new connection.
const (
	drainBytes = 64 << 10
	drainTime  = 250 * time.Millisecond
)

// HTTPOptions adjusts a [RoundTripper]. The zero value is right for most clients.
type HTTPOptions struct {
	// FailIf turns a response into an error for the policies. It may look at status
	// and header; a body that it reads it must put back. It may be called by several
	// attempts at the same time. Nil means the status 408, 429 and 500 to 599 without
	// 501 and 505, which another attempt would meet again; the error is then a
	// *[StatusError].
	FailIf func(*http.Response) error

	// Repeatable says whether req may be sent again although an earlier attempt may
	// have been executed. Nil means the idempotent methods (RFC 9110, 9.2.2: GET,
	// HEAD, OPTIONS, TRACE, PUT, DELETE) and every request with an Idempotency-Key or
	// X-Idempotency-Key header. It is asked once per request.
	Repeatable func(req *http.Request) bool

	// MaxReplayBytes is how much of a request body is kept for another attempt when
	// the request has no GetBody, which those of [http.NewRequest] with a buffer, a
	// bytes.Reader or a strings.Reader have. A longer body is sent once. 0 means
	// 64 KiB, negative nothing.
	MaxReplayBytes int
}

// StatusError is what a response with a bad status is to the policies. Callers of
// a [RoundTripper] get the response instead.
type StatusError struct {
	Method string
	Host   string
	Code   int

	after   time.Duration
	afterOK bool
	final   string
}

// Error names method, host and status, and why there is no other attempt.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("resilience: send %s %q: status %d %s", e.Method, e.Host, e.Code, http.StatusText(e.Code))
	if e.final != "" {
		s += ": " + e.final
	}
	return s
}

// StatusCode reports Code.
func (e *StatusError) StatusCode() int { return e.Code }

// RetryAfter reports the Retry-After header, in seconds or as a date.
func (e *StatusError) RetryAfter() (time.Duration, bool) { return e.after, e.afterOK }

// Retryable reports whether the request can be sent again without harm.
func (e *StatusError) Retryable() bool { return e.final == "" }

// RoundTripper puts p around base, nil meaning [http.DefaultTransport]. It is safe
// for concurrent use if base is. A nil p returns base.
//
// To the policies a response is a failure if HTTPOptions.FailIf says so. When they
// give up on it the caller still gets the response, the last one that arrived,
// with its body unread and a nil error, as from any RoundTripper. When they reject
// the request, or no attempt brought a response, the caller gets their error.
//
// A request is sent again if that can do no harm, which is decided by
// HTTPOptions.Repeatable or because the attempt before certainly reached nobody,
// as when no connection could be made; and if its body can be read again. A
// failure that allows no other attempt says Retryable() false. The rule holds even
// if a policy does not ask: such an attempt is not made. Attempts get clones, the
// caller's request is not changed, and its body is closed in any case.
//
// Before another attempt the response of the last one is drained, up to 64 KiB or
// 250 ms, and closed, so that its connection can be used again. The context of the
// returned response stays alive until its body has been read to the end or closed;
// the deadline of a [Timeout] stays in force as well. Policies judge the response
// when its header is there, and do not hear of a body that breaks off later. A
// policy that holds a place, such as a bulkhead, gives it back at that moment.
//
// CloseIdleConnections reaches base, and the body of a 101 response is an
// [io.ReadWriteCloser] as base made it.
func RoundTripper(base http.RoundTripper, p Policy, o HTTPOptions) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	if p == nil {
		return base
	}
	if o.FailIf == nil {
		o.FailIf = failedStatus
	}
	if o.Repeatable == nil {
		o.Repeatable = repeatable
	}
	switch {
	case o.MaxReplayBytes == 0:
		o.MaxReplayBytes = 64 << 10
	case o.MaxReplayBytes < 0:
		o.MaxReplayBytes = 0
	}
	return &protected{base: base, policy: p, options: o}
}

type protected struct {
	base    http.RoundTripper
	policy  Policy
	options HTTPOptions
}

func (t *protected) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *protected) RoundTrip(req *http.Request) (*http.Response, error) {
	o := &roundTrip{req: req, exchange: &exchange{
		protected:  t,
		body:       newRequestBody(req, t.options.MaxReplayBytes),
		repeatable: t.options.Repeatable(req),
	}}
	kept := false
	defer func() {
		o.exchange.body.done()
		if !kept { // an error, a panic or Goexit
			o.discard()
		}
	}()
	err := t.policy.Run(req.Context(), Next{op: o})
	switch {
	case o.resp != nil && (err == nil || o.gaveUp(err)):
		kept = true
		o.resp.Request = req
		return o.resp, nil
	case err == nil:
		return nil, errNoResponse
	default:
		return nil, err
	}
}

const (
	errNoResponse = staticError("resilience: send request: a policy reports success without a response")
	errBodyGone   = staticError("resilience: send request: the body cannot be read again")
)

func failedStatus(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotImplemented, code == http.StatusHTTPVersionNotSupported:
		return nil
	case code >= 500 && code <= 599, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests:
		e := &StatusError{Code: code}
		if value := resp.Header.Get("Retry-After"); value != "" {
			e.after, e.afterOK = ParseRetryAfter(value, time.Now())
		}
		return e
	default:
		return nil
	}
}

func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != "" || req.Header.Get("X-Idempotency-Key") != ""
}

// exchange is what all attempts for one request share.
type exchange struct {
	*protected
	body       *requestBody
	repeatable bool
	begun      atomic.Bool // of a request that is not repeatable: it may have been executed
}

// roundTrip is the operation: attempts one after another, each on a clone of req.
type roundTrip struct {
	exchange *exchange
	req      *http.Request

	ctx    context.Context // of the attempt that brought resp
	resp   *http.Response
	body   *responseBody // that of resp, nil when there is none to read
	failed error         // what the policies were told of the last attempt
}

func (o *roundTrip) run(ctx context.Context) error {
	x := o.exchange
	if !x.repeatable && x.begun.Swap(true) {
		return o.refuse(&sendError{err: errNotRepeatable, final: reasonMethod})
	}
	body, err := x.body.open()
	if err != nil {
		return o.refuse(&sendError{err: err, unsent: true, final: reasonBody})
	}
	o.discard()
	inner, cancel := context.WithCancel(ctx)
	returned := false
	defer func() {
		if !returned {
			cancel()
			if body != nil {
				_ = body.Close()
			}
		}
	}()
	req := o.req.Clone(inner)
	req.Body = body
	req.Trailer = o.req.Trailer // reading the body fills it in
	req.GetBody = x.body.getBody()
	resp, err := x.base.RoundTrip(req) //nolint:bodyclose // by the caller or discard
	returned = true
	if err != nil {
		cancel()
		o.failed = x.unanswered(err)
		return o.failed
	}
	o.ctx, o.resp, o.body = ctx, resp, keepAlive(resp, cancel)
	if err := x.options.FailIf(resp); err != nil {
		o.failed = x.unwelcome(req, err)
	}
	return o.failed
}

// refuse makes no attempt. An earlier one has said it all, and its response stays.
func (o *roundTrip) refuse(err error) error {
	if o.failed != nil {
		return o.failed
	}
	return err
}

// gaveUp reports whether err is about the response at hand, and that can be read.
func (o *roundTrip) gaveUp(err error) bool {
	return o.failed != nil && errors.Is(err, o.failed) && (o.body == nil || o.ctx.Err() == nil)
}

func (o *roundTrip) fork() operation {
	// A clone, because an attempt that lost may begin or go on when the caller
	// has its request back.
	return &roundTrip{exchange: o.exchange, req: o.req.Clone(o.req.Context())}
}

func (o *roundTrip) adopt(fork operation) {
	o.discard()
	f := fork.(*roundTrip)
	o.ctx, o.resp, o.body, o.failed = f.ctx, f.resp, f.body, f.failed
	f.ctx, f.resp, f.body, f.failed = nil, nil, nil, nil
}

func (o *roundTrip) discard() {
	resp, body := o.resp, o.body
	o.ctx, o.resp, o.body, o.failed = nil, nil, nil, nil
	if body == nil {
		return
	}
	// A stream of HTTP/2 is closed without harm to the connection.
	if resp.ProtoMajor < 2 && resp.ContentLength <= drainBytes && resp.StatusCode != http.StatusSwitchingProtocols {
		slow := time.AfterFunc(drainTime, body.release)
		_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
		slow.Stop()
	}
	_ = resp.Body.Close()
	body.release() // FailIf may have put another body in its place
}

func (o *roundTrip) retain(_ context.Context, release func()) bool {
	return o.body != nil && o.body.hold(release)
}

// Why there is no other attempt.
const (
	errNotRepeatable = staticError("resilience: send request: it may have been executed")
	reasonMethod     = "not sent again: neither an idempotent method nor an Idempotency-Key"
	reasonBody       = "not sent again: the body is longer than what is kept of it"
)

// final returns why the request must not be sent again, "" if it may.
func (x *exchange) final(unsent bool) string {
	switch {
	case !x.repeatable && !unsent:
		return reasonMethod
	case !x.body.replayable():
		return reasonBody
	default:
		return ""
	}
}

// unanswered is for attempts without a response.
func (x *exchange) unanswered(err error) error {
	unsent := notExecuted(err)
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") {
		unsent = true
	}
	if unsent {
		x.begun.Store(false)
	}
	return &sendError{err: err, unsent: unsent, final: x.final(unsent)}
}

// unwelcome is for attempts with a response that FailIf refused.
func (x *exchange) unwelcome(req *http.Request, err error) error {
	final := x.final(false)
	if e, ok := err.(*StatusError); ok && e.Method == "" {
		e.Method, e.Host, e.final = req.Method, req.URL.Host, final
		if e.Method == "" {
			e.Method = http.MethodGet
		}
		return e
	}
	return &sendError{err: err, final: final}
}

// sendError adds to an error what is known of the attempt. Being a pointer it
// tells one attempt's failure from another's.
type sendError struct {
	err    error
	unsent bool
	final  string
}

func (e *sendError) Error() string {
	if e.final != "" {
		return e.err.Error() + ": " + e.final
	}
	return e.err.Error()
}

func (e *sendError) Unwrap() error     { return e.err }
func (e *sendError) NotExecuted() bool { return e.unsent }
func (e *sendError) Retryable() bool   { return e.final == "" && retryable(e.err) }

// Timeout serves [http.Client], which asks the outermost error only.
func (e *sendError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.err, &t) && t.Timeout()
}
