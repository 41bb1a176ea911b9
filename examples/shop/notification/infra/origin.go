package infra

import (
	"context"

	"go.opentelemetry.io/otel/propagation"

	"github.com/armature-go/armature/examples/shop/notification/domain"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/tracing"
)

const traceParent = "traceparent"

// originOf reads what Resume puts back.
func originOf(ctx context.Context) domain.Origin {
	carrier := propagation.MapCarrier{}
	tracing.Propagator().Inject(ctx, carrier)
	return domain.Origin{TraceParent: carrier[traceParent], CorrelationID: flow.CorrelationID(ctx)}
}

// Resume is an app.Resume: spans and log lines made with its context belong to the trace of origin.
func Resume(ctx context.Context, origin domain.Origin) context.Context {
	ctx = tracing.Propagator().Extract(ctx, propagation.MapCarrier{traceParent: origin.TraceParent})
	return flow.WithCorrelationID(ctx, origin.CorrelationID)
}
