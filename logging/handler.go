package logging

import (
	"context"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
)

// Handler adds the ids found in the context to each record and redacts secrets,
// then passes the record to another handler. Safe for concurrent use.
type Handler struct {
	inner  slog.Handler // holds the attributes given before the first group
	redact redactor
	groups []group // open groups, outermost first
}

// group is kept here instead of in the inner handler, because ids belong to the
// top level of a line and the inner handler would put them into its open group.
type group struct {
	name  string
	attrs []slog.Attr
}

// NewHandler returns a handler in front of inner that redacts the words of
// [DefaultRedact] and those given.
func NewHandler(inner slog.Handler, redact ...string) *Handler {
	return &Handler{inner: inner, redact: newRedactor(redact)}
}

// Enabled asks the inner handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle passes the record on with correlation_id, saga_id, trace_id and span_id,
// as far as ctx holds them.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	if id := flow.CorrelationID(ctx); id != "" {
		out.AddAttrs(slog.String("correlation_id", id))
	}
	if id, _, ok := flow.Saga(ctx); ok {
		out.AddAttrs(slog.String("saga_id", id))
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		out.AddAttrs(
			slog.String("trace_id", span.TraceID().String()),
			slog.String("span_id", span.SpanID().String()))
	}
	if len(h.groups) == 0 {
		r.Attrs(func(a slog.Attr) bool {
			out.AddAttrs(h.redact.attr(a))
			return true
		})
		return h.inner.Handle(ctx, out)
	}

	attrs := make([]slog.Attr, 0, r.NumAttrs()+1)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, h.redact.attr(a))
		return true
	})
	for _, g := range slices.Backward(h.groups) {
		attrs = append(slices.Clip(g.attrs), attrs...)
		attrs = []slog.Attr{{Key: g.name, Value: slog.GroupValue(attrs...)}}
		if h.redact.secret(g.name) {
			attrs = []slog.Attr{slog.String(g.name, Redacted)}
		}
	}
	out.AddAttrs(attrs...)
	return h.inner.Handle(ctx, out)
}

// WithAttrs returns a handler that adds attrs, redacted, to each record.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	redacted := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		redacted[i] = h.redact.attr(a)
	}
	c := *h
	if len(h.groups) == 0 {
		c.inner = h.inner.WithAttrs(redacted)
		return &c
	}
	c.groups = slices.Clone(h.groups)
	last := &c.groups[len(c.groups)-1]
	last.attrs = slices.Concat(last.attrs, redacted)
	return &c
}

// WithGroup returns a handler that puts later attributes into a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.groups = append(slices.Clip(h.groups), group{name: name})
	return &c
}
