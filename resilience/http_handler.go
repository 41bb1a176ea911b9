package resilience

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// HandlerOptions adjusts a [Handler]. The zero value is right for most servers.
type HandlerOptions struct {
	// Failed says whether a handler's status is a failure for the policies. Nil
	// means 500 and above.
	Failed func(status int) bool

	// RetryAfter is what rejected clients are told when the policy does not know
	// better. 0 means one second, negative nothing.
	RetryAfter time.Duration

	// Reject writes the answer for a request that was not handled; err says why. The
	// Retry-After header is set. Nil writes a problem of RFC 9457 with status 429
	// for a rate limit and 503 for everything else.
	Reject func(w http.ResponseWriter, r *http.Request, err error)
}

// Handler sheds load: it puts p around handlers, so that a bulkhead, an adaptive
// limit, a rate limit, a breaker or a throttle turns requests away before they cost
// anything. A rejected request gets 503, or 429 from a rate limit, with
// Retry-After in whole seconds. Safe for concurrent use; a nil p changes nothing.
//
// A handler's status of 500 and above is a failure for p, as is a panic, which
// passes through. The handler runs at most once per request, since it writes to
// the client: another attempt, of a [Retry] or a [Hedge], fails without running
// it. After a [Timeout] a handler that has written nothing is answered for with
// 503; one that has written keeps its answer.
//
// The ResponseWriter handed on works with [http.ResponseController] and has Flush,
// Hijack and ReadFrom; it adds nothing per byte.
func Handler(p Policy, o HandlerOptions) func(http.Handler) http.Handler {
	if o.Failed == nil {
		o.Failed = func(status int) bool { return status >= 500 }
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = time.Second
	}
	if o.Reject == nil {
		o.Reject = writeRejection
	}
	return func(next http.Handler) http.Handler {
		if p == nil {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := &serving{next: next, failed: o.Failed, r: r}
			s.w.ResponseWriter = w
			err := p.Run(r.Context(), Next{op: s})
			s.wait()
			if err == nil || s.w.status != 0 || s.begun && !s.gaveUp {
				return
			}
			after, known := retryAfter(err)
			if !known {
				after = o.RetryAfter
			}
			setRetryAfter(w.Header(), after)
			o.Reject(w, r, err)
		})
	}
}

const errServed = staticError("resilience: serve request: it was served already")

// serving is the operation of one request: the same for every fork, because there
// is one client to answer.
type serving struct {
	next   http.Handler
	failed func(int) bool
	r      *http.Request

	mu     sync.Mutex // held while the handler runs
	w      recorder
	begun  bool
	gaveUp bool // the handler found its context done and wrote nothing
}

// wait waits for a handler that runs on another goroutine, which happens within a
// hedge: w must not be used after the server has it back.
func (s *serving) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

func (s *serving) run(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return &servingError{err: errServed}
	}
	s.begun = true
	r := s.r
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	s.next.ServeHTTP(&s.w, r)
	switch {
	case s.w.status == 0 && ctx.Err() != nil:
		s.gaveUp = true
		return &servingError{err: ctx.Err()}
	case s.w.status != 0 && s.failed(s.w.status):
		return &servingError{status: s.w.status}
	default:
		return nil
	}
}

func (s *serving) fork() operation { return s }
func (s *serving) adopt(operation) {}
func (s *serving) discard()        {}

// servingError is how a handler failed. It is final: the client has its answer.
type servingError struct {
	status int
	err    error
}

func (e *servingError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return fmt.Sprintf("resilience: serve request: status %d", e.status)
}

func (e *servingError) Unwrap() error   { return e.err }
func (e *servingError) Retryable() bool { return false }

// recorder sees the status go by.
type recorder struct {
	http.ResponseWriter
	status int // 0 = nothing written
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) wrote() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.wrote()
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.wrote()
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush serves handlers that know http.Flusher only.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError sends the header too.
func (w *recorder) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.wrote()
	}
	return err
}

// Hijack hands out the connection; what happens on it is nobody's failure.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// setRetryAfter sets the header in whole seconds, rounded up, so that nobody comes
// back too early; nothing for a negative d.
func setRetryAfter(h http.Header, d time.Duration) {
	if d >= 0 {
		h.Set("Retry-After", strconv.FormatInt(max(1, wholeSeconds(d)), 10))
	}
}

func wholeSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// problem is RFC 9457's.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// writeRejection tells strangers what to do and nothing about the inside.
func writeRejection(w http.ResponseWriter, _ *http.Request, err error) {
	p := problem{Status: http.StatusServiceUnavailable, Detail: "the service cannot take this request now, try again later"}
	if errors.Is(err, ErrRateLimited) {
		p = problem{Status: http.StatusTooManyRequests, Detail: "too many requests, try again later"}
	}
	p.Title = http.StatusText(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, p.Title, p.Status)
		return
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
