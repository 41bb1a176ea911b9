package otelresilience

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/resilience"
)

// The attributes of an event. Those after the first two are there when the event
// has them.
const (
	PolicyKey   = attribute.Key("armature.resilience.policy")   // kind: "breaker", "retry", …
	NameKey     = attribute.Key("armature.resilience.name")     // name of the policy
	FromKey     = attribute.Key("armature.resilience.from")     // state before
	ToKey       = attribute.Key("armature.resilience.to")       // state after
	AttemptKey  = attribute.Key("armature.resilience.attempt")  // number, from 1
	LimitKey    = attribute.Key("armature.resilience.limit")    // new limit of an adaptive policy
	DurationKey = attribute.Key("armature.resilience.duration") // seconds, as float64
	ShadowKey   = attribute.Key("armature.resilience.shadow")   // true: the call ran all the same
	ReasonKey   = attribute.Key("armature.resilience.reason")   // why a retry ended
	ErrorKey    = attribute.Key("error.type")                   // see SpanEvents
)

// SpanEvents returns an observer that adds each event to the span in the context of
// the call, if that span records. The event is called armature.resilience.retry,
// armature.resilience.state_changed and so on, after [resilience.EventKind].
//
// Of an error only its type is told, in error.type: the texts of errors quote what
// users typed. It is "open", "full", "rate_limited", "throttled" or "timeout" for
// the errors of package resilience, "canceled" or "deadline_exceeded" for those of
// a context, and otherwise the Go type of the innermost error that has one of its
// own: "syscall.Errno" for a refused connection.
//
// The observer is safe for concurrent use. Without a recording span it costs a look
// into the context and does not allocate.
func SpanEvents() resilience.Observer { return spanEvents{} }

type spanEvents struct{}

func (spanEvents) On(ctx context.Context, e resilience.Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent(eventName(e.Kind), trace.WithAttributes(attributes(e)...))
}

func eventName(k resilience.EventKind) string {
	return "armature.resilience." + strings.ReplaceAll(k.String(), " ", "_")
}

func attributes(e resilience.Event) []attribute.KeyValue {
	attrs := make([]attribute.KeyValue, 0, 6)
	attrs = append(attrs, PolicyKey.String(e.Policy))
	if e.Name != "" {
		attrs = append(attrs, NameKey.String(e.Name))
	}
	switch e.Kind {
	case resilience.EventStateChanged:
		attrs = append(attrs, FromKey.String(e.From.String()), ToKey.String(e.To.String()))
	case resilience.EventLimitChanged:
		attrs = append(attrs, LimitKey.Int(e.Limit))
	}
	if e.Attempt > 0 {
		attrs = append(attrs, AttemptKey.Int(e.Attempt))
	}
	if e.Duration > 0 {
		attrs = append(attrs, DurationKey.Float64(e.Duration.Seconds()))
	}
	if e.Shadow {
		attrs = append(attrs, ShadowKey.Bool(true))
	}
	err := e.Err
	if ended, ok := errors.AsType[*resilience.RetryError](err); ok {
		attrs = append(attrs, ReasonKey.String(string(ended.Reason)))
		if len(ended.Errs) > 0 {
			err = ended.Errs[len(ended.Errs)-1]
		}
	}
	if err != nil {
		attrs = append(attrs, ErrorKey.String(errorType(err)))
	}
	return attrs
}

var known = []struct {
	err  error
	name string
}{
	{resilience.ErrOpen, "open"},
	{resilience.ErrFull, "full"},
	{resilience.ErrRateLimited, "rate_limited"},
	{resilience.ErrThrottled, "throttled"},
	{resilience.ErrTimeout, "timeout"},
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "deadline_exceeded"},
}

// errorType names the error without a word of its text.
func errorType(err error) string {
	for _, k := range known {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil || anonymous(inner) && !anonymous(err) {
			return reflect.TypeOf(err).String()
		}
		err = inner
	}
}

// anonymous errors have a type that says nothing: those of errors.New and fmt.
func anonymous(err error) bool {
	name := reflect.TypeOf(err).String()
	return strings.HasPrefix(name, "*errors.") || strings.HasPrefix(name, "*fmt.")
}
