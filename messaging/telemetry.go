package messaging

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
)

// telemetry holds everything that depends on OpenTelemetry. The attribute names follow the messaging semantic
// conventions, which are still in development: they are spelled here and nowhere else.
type telemetry struct {
	tracer trace.Tracer // nil makes no spans, and builds no attributes for them
	system attribute.KeyValue
}

const traceparent = "traceparent"

var w3c = propagation.TraceContext{}

func newTelemetry(tp trace.TracerProvider, system string) telemetry {
	t := telemetry{system: attribute.String("messaging.system", system)}
	if tp != nil {
		t.tracer = tp.Tracer("github.com/armature-go/armature/messaging")
	}
	return t
}

// send starts a producer span per message and writes trace context and flow values into the headers, where they are not
// there already: a message that waited in an outbox keeps those of the request that wrote it.
func (t telemetry) send(ctx context.Context, topic string, msgs []*Message) (ended func([]error)) {
	values := flow.EventHeader{}
	flow.Inject(ctx, values)
	spans := make([]trace.Span, len(msgs))
	for i, m := range msgs {
		parent := ctx
		carried := m.Header[traceparent] != ""
		if carried {
			parent = w3c.Extract(ctx, propagation.MapCarrier(m.Header))
		}
		if t.tracer != nil {
			parent, spans[i] = t.tracer.Start(parent, "send "+topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
				t.system,
				attribute.String("messaging.operation.name", "send"),
				attribute.String("messaging.operation.type", "send"),
				attribute.String("messaging.destination.name", topic),
				attribute.String("messaging.message.id", m.ID),
				attribute.Int("messaging.message.body.size", len(m.Data)),
			))
		}
		if !carried {
			w3c.Inject(parent, propagation.MapCarrier(m.Header))
		}
		for k, v := range values {
			if m.Header[k] == "" {
				m.Header[k] = v
			}
		}
	}
	return func(errs []error) {
		for i, span := range spans {
			if span == nil {
				continue
			}
			if i < len(errs) && errs[i] != nil {
				span.SetStatus(codes.Error, "not stored")
				span.RecordError(errs[i])
			}
			span.End()
		}
	}
}

// process starts the consumer span of one attempt as a child of the span that published the message.
func (t telemetry) process(ctx context.Context, d *Delivery) (context.Context, func(error)) {
	m := d.Message
	ctx = w3c.Extract(ctx, propagation.MapCarrier(m.Header))
	ctx = flow.Extract(ctx, flow.EventHeader(m.Header))
	ctx = flow.WithCausationID(ctx, m.ID)
	if flow.CorrelationID(ctx) == "" {
		ctx = flow.WithCorrelationID(ctx, m.ID)
	}
	if t.tracer == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, "process "+d.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		t.system,
		attribute.String("messaging.operation.name", "process"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", d.Topic),
		attribute.String("messaging.consumer.group.name", d.Group),
		attribute.String("messaging.message.id", m.ID),
		attribute.Int("messaging.message.body.size", len(m.Data)),
		attribute.Int("armature.messaging.attempt", d.Attempt),
	))
	return ctx, func(err error) {
		switch a, _, _, _ := classify(err); a {
		case actAck:
		case actDrop, actRelease:
			span.SetAttributes(attribute.String("armature.messaging.result", err.Error()))
		default:
			span.SetStatus(codes.Error, fmt.Sprintf("attempt %d failed", d.Attempt))
			span.RecordError(err)
		}
		span.End()
	}
}
