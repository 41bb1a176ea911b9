package messagingtest

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder is a tracer provider that remembers the spans that ended. It needs the OpenTelemetry API alone.
type recorder struct {
	provider provider

	ids   atomic.Uint64
	mu    sync.Mutex
	spans []*span
}

type provider struct {
	noop.TracerProvider
	r *recorder
}

type tracer struct {
	noop.Tracer
	r *recorder
}

// span is one recorded span.
type span struct {
	noop.Span
	r       *recorder
	name    string
	kind    trace.SpanKind
	parent  trace.SpanContext
	context trace.SpanContext
	failed  atomic.Bool
}

func newRecorder() *recorder {
	r := &recorder{}
	r.provider.r = r
	return r
}

func (p provider) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{r: p.r} }

func (t tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(opts...)
	s := &span{r: t.r, name: name, kind: cfg.SpanKind(), parent: trace.SpanContextFromContext(ctx)}
	id := t.r.ids.Add(1)
	traceID := s.parent.TraceID()
	if !traceID.IsValid() {
		binary.BigEndian.PutUint64(traceID[8:], id)
	}
	var spanID trace.SpanID
	binary.BigEndian.PutUint64(spanID[:], id)
	s.context = trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled})
	return trace.ContextWithSpan(ctx, s), s
}

func (s *span) SpanContext() trace.SpanContext { return s.context }

func (s *span) IsRecording() bool { return true }

func (s *span) SetStatus(code codes.Code, _ string) { s.failed.Store(code == codes.Error) }

func (s *span) End(...trace.SpanEndOption) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.spans = append(s.r.spans, s)
}

// named returns the ended spans of a name, oldest first.
func (r *recorder) named(name string) []*span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*span
	for _, s := range r.spans {
		if s.name == name {
			found = append(found, s)
		}
	}
	return found
}
