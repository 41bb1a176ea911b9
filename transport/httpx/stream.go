package httpx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/transport"
)

// Defaults of [Stream].
const (
	defaultHeartbeat = 15 * time.Second
	// firstWait is how long the header waits for the first event, so that a function
	// that fails at once is still answered with a problem document.
	firstWait = time.Second
	// reconnectAfter is what clients are told when a stream ends.
	reconnectAfter = time.Second
)

// ErrDraining is the cause of the context of a stream that ends because the
// server is about to stop. The client is told to connect again.
var ErrDraining = errors.New("httpx: the server is draining")

// Heartbeat sets how often a stream without events sends a comment, which keeps
// proxies from closing it and finds out that a client has gone. Default 15 s. It
// panics when d is not positive.
func Heartbeat(d time.Duration) RouteOption {
	if d <= 0 {
		panic(fmt.Sprintf("httpx: Heartbeat(%v): must be positive", d))
	}
	return func(rt *route) { rt.heartbeat = d }
}

// Stream serves pattern with server-sent events, one for each value that f
// yields, as JSON. The request is bound as for [Handle]; a field
// `header:"Last-Event-ID"` receives where a client that connects again left off.
// An event has the id of its EventID() string method and the name of its
// EventName() string method, where the type has them.
//
// The stream ends when f does, when the client leaves, and when the server drains;
// f sees that as the end of its context (cause [ErrDraining] in the last case) and
// as a yield that returns false. An error before the first event is the answer, as
// a problem document; a later one is sent as an event named "error", and the
// stream ends. Streams have no timeout: [Timeout] bounds the wait for the first
// event only when it is shorter than a second. f runs on the request's goroutine
// and must not yield from two goroutines at a time. An idle stream costs that
// goroutine and a timer.
//
// Like [Handle], Stream panics on mistakes that only a programmer can mend.
func Stream[Req, Event any](on Router, pattern string, f func(context.Context, Req) iter.Seq2[Event, error], opts ...RouteOption) {
	s, pattern, opts := on.place(pattern, opts)
	rt := &route{maxBody: s.cfg.MaxBody, heartbeat: defaultHeartbeat, timeout: firstWait}
	plan := rt.prepare("stream", pattern, f == nil, reflect.TypeFor[Req](), opts)
	s.describe(described{rt: rt, plan: plan, resp: reflect.TypeFor[Event](), streaming: true})
	open := transport.Func[Req, iter.Seq2[Event, error]](func(ctx context.Context, req Req) (iter.Seq2[Event, error], error) {
		return f(ctx, req), nil
	}).With(s.cfg.Middleware...)
	s.mux.Handle(pattern, routed{rt.pattern.path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := w.(*response)
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		r = r.WithContext(ctx)
		rt.mark(res)
		var req Req
		err := acceptable(r.Header, "text/event-stream")
		if err == nil {
			err = bind(plan, rt, res, r, &req)
		}
		if err != nil {
			refused := *transport.AsError(err)
			refused.Details.NotExecuted = true
			res.fail(r, &refused)
			return
		}
		events, err := open(ctx, req)
		if err != nil {
			res.fail(r, afterCall(ctx, err))
			return
		}
		defer context.AfterFunc(s.draining, func() { cancel(ErrDraining) })()
		out := newEventStream(res, r, rt.heartbeat, min(firstWait, rt.timeout), cancel)
		defer out.stop()
		for event, err := range events {
			if ctx.Err() != nil || !out.send(event, err) {
				break
			}
		}
		out.finish(ctx)
	})})
}

// eventStream writes one response. The mutex is between the function's goroutine
// and the timer.
type eventStream struct {
	res       *response
	r         *http.Request
	heartbeat time.Duration
	cancel    context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	begun   bool
	stopped bool
}

func newEventStream(res *response, r *http.Request, heartbeat, first time.Duration, cancel context.CancelCauseFunc) *eventStream {
	// The deadline of the whole request would end the stream with it.
	_ = http.NewResponseController(res.ResponseWriter).SetReadDeadline(time.Time{})
	o := &eventStream{res: res, r: r, heartbeat: heartbeat, cancel: cancel}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = time.AfterFunc(min(first, heartbeat), o.beat)
	return o
}

// beat keeps a silent stream alive; the first one sends the header. A stream that
// is being written to is not silent, and sets the timer anew by itself.
func (o *eventStream) beat() {
	if !o.mu.TryLock() {
		return
	}
	defer o.mu.Unlock()
	if o.stopped {
		return
	}
	if err := o.write([]byte(":\n\n")); err != nil {
		o.cancel(err)
	}
}

// stop makes sure that the timer does not write to a response that is over.
func (o *eventStream) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	o.timer.Stop()
}

// send reports whether the stream goes on.
func (o *eventStream) send(event any, failed error) bool {
	if failed != nil {
		o.fail(failed)
		return false
	}
	text, err := encodeEvent(event)
	if err != nil {
		o.fail(transport.Errorf(transport.Internal, "", "internal error").WithCause(err))
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.write(text); err != nil {
		o.cancel(err)
		return false
	}
	return true
}

// fail answers, or ends a stream that has begun with an event that says why.
func (o *eventStream) fail(err error) {
	err = afterCall(o.r.Context(), err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	o.timer.Stop()
	if !o.begun {
		o.res.fail(o.r, err)
		return
	}
	e := transport.AsError(err)
	problem := e.Problem()
	problem.Instance, problem.TraceID = o.r.URL.EscapedPath(), o.res.traceID
	if problem.Status >= 500 {
		o.res.err = err
	}
	data, err := json.Marshal(problem)
	if err != nil {
		return // strings and finite numbers always encode
	}
	_ = o.write(append(append([]byte("event: error\ndata: "), data...), '\n', '\n'))
}

// finish sends the header of a stream without events, and tells the client of a
// server that drains when to come back.
func (o *eventStream) finish(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return
	}
	text := ""
	if errors.Is(context.Cause(ctx), ErrDraining) {
		text = "retry: " + strconv.FormatInt(reconnectAfter.Milliseconds(), 10) + "\n\n"
	}
	if !o.begun || text != "" {
		_ = o.write([]byte(text))
	}
}

// write sends text at once. Called with mu held.
func (o *eventStream) write(text []byte) error {
	control := http.NewResponseController(o.res.ResponseWriter)
	if !o.begun {
		o.begun = true
		header := o.res.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no") // nginx would hold events back
		header.Set("X-Content-Type-Options", "nosniff")
		o.res.WriteHeader(http.StatusOK)
	}
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := o.res.Write(text); err != nil {
		return err
	}
	o.timer.Reset(o.heartbeat)
	return control.Flush()
}

// encodeEvent renders one event. JSON has no line breaks of its own, so one data
// line is enough; id and name lose theirs, which would begin another field.
func encodeEvent(event any) ([]byte, error) {
	data, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("httpx: encode event %T: %w", event, err)
	}
	var text []byte
	field := func(name, value string) {
		text = append(append(append(append(text, name...), ": "...), lineBreaks.Replace(value)...), '\n')
	}
	if e, ok := event.(interface{ EventName() string }); ok && e.EventName() != "" {
		field("event", e.EventName())
	}
	if e, ok := event.(interface{ EventID() string }); ok && e.EventID() != "" {
		field("id", e.EventID())
	}
	return append(append(append(text, "data: "...), data...), '\n', '\n'), nil
}

var lineBreaks = strings.NewReplacer("\r", "", "\n", "", "\x00", "")
