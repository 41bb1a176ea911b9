package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
)

// Propagator returns the W3C trace context propagator. Baggage crosses the border
// in both directions only under the keys given: it is written by strangers at the
// edge and read by everyone behind, so the default lets none through.
func Propagator(baggageKeys ...string) propagation.TextMapPropagator {
	if len(baggageKeys) == 0 {
		return propagation.TraceContext{}
	}
	return propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, allowedBaggage{keys: slices.Clone(baggageKeys)})
}

type allowedBaggage struct {
	propagation.Baggage
	keys []string
}

func (p allowedBaggage) Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	p.Baggage.Inject(baggage.ContextWithBaggage(ctx, p.filter(ctx)), carrier)
}

func (p allowedBaggage) Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	ctx = p.Baggage.Extract(ctx, carrier)
	return baggage.ContextWithBaggage(ctx, p.filter(ctx))
}

func (p allowedBaggage) filter(ctx context.Context) baggage.Baggage {
	b := baggage.FromContext(ctx)
	for _, m := range b.Members() {
		if !slices.Contains(p.keys, m.Key()) {
			b = b.DeleteMember(m.Key())
		}
	}
	return b
}
