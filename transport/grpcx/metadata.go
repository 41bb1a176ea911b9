package grpcx

import (
	"context"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/metadata"

	"github.com/armature-go/armature/flow"
)

// traceContext is the W3C propagator; it has no state.
var traceContext propagation.TraceContext

// carrier lets the propagator read and write metadata. Keys are lower-case on
// both sides already.
type carrier metadata.MD

// Get returns the first value of a key.
func (c carrier) Get(key string) string {
	if v := c[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces the values of a key.
func (c carrier) Set(key, value string) { c[key] = []string{value} }

// Keys lists the keys.
func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// received gives a call without a correlation id a new one, so that everything it
// causes can be found.
type received struct{ flow.GRPCMetadata }

func (r received) Get(f flow.Field) string {
	value := r.GRPCMetadata.Get(f)
	if value == "" && f == flow.Correlation {
		return flow.NewID()
	}
	return value
}

// extract returns ctx with what the caller sent along.
func extract(ctx context.Context, edge bool) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	if edge {
		ctx = flow.ExtractPublic(ctx, received{flow.GRPCMetadata(md)})
	} else {
		ctx = flow.Extract(ctx, received{flow.GRPCMetadata(md)})
	}
	if flow.CorrelationID(ctx) == "" { // it came with one that is not fit to be passed on
		ctx = flow.WithCorrelationID(ctx, flow.NewID())
	}
	return traceContext.Extract(ctx, carrier(md))
}

// inject adds to the outgoing metadata what ctx carries. What the caller has put
// there, under whatever key, stays as it is.
func inject(ctx context.Context) context.Context {
	ours := make(metadata.MD, 4)
	flow.Inject(ctx, flow.GRPCMetadata(ours))
	traceContext.Inject(ctx, carrier(ours))
	if len(ours) == 0 {
		return ctx
	}
	theirs, _ := metadata.FromOutgoingContext(ctx)
	kv := make([]string, 0, 2*len(ours))
	for key, values := range ours {
		if len(theirs[key]) == 0 && sendable(values[0]) {
			kv = append(kv, key, values[0])
		}
	}
	return metadata.AppendToOutgoingContext(ctx, kv...)
}

// sendable tells what gRPC accepts as a text value. It would fail the whole call
// over anything else, and the receiver would drop it.
func sendable(value string) bool {
	for i := range len(value) {
		if value[i] < 0x20 || value[i] > 0x7e {
			return false
		}
	}
	return true
}
