package tracing

import (
	"context"

	"github.com/go-kit/kit/endpoint"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/armature-go/armature/tracing"

type providerKey struct{}

// WithProvider returns a context in which Do and Middleware start root spans with
// tp. Contexts that hold a span of this process need none: the span's provider is
// used.
func WithProvider(ctx context.Context, tp trace.TracerProvider) context.Context {
	return context.WithValue(ctx, providerKey{}, tp)
}

// tracer looks for a provider: the local span's, the context's, the global one. A
// remote parent knows no provider.
func tracer(ctx context.Context) trace.Tracer {
	if span := trace.SpanFromContext(ctx); span.SpanContext().IsValid() && !span.SpanContext().IsRemote() {
		return span.TracerProvider().Tracer(scope)
	}
	if tp, ok := ctx.Value(providerKey{}).(trace.TracerProvider); ok && tp != nil {
		return tp.Tracer(scope)
	}
	return otel.GetTracerProvider().Tracer(scope)
}

// Do runs fn inside a span called name, a child of the span in ctx. An error sets
// the span's status to its text and is returned unchanged. A span ends also when
// fn panics or exits its goroutine. Without a provider in ctx (see [WithProvider])
// and without a global one, fn runs without a span.
func Do(ctx context.Context, name string, fn func(context.Context) error) error {
	ctx, span := tracer(ctx).Start(ctx, name)
	returned := false
	defer func() {
		if !returned {
			span.SetStatus(codes.Error, "did not return")
		}
		span.End()
	}()
	err := fn(ctx)
	returned = true
	fail(span, err)
	return err
}

// Middleware puts a span called name around a go-kit endpoint. A response that
// implements [endpoint.Failer] and failed fails the span too.
func Middleware(name string) endpoint.Middleware {
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, request any) (response any, err error) {
			err = Do(ctx, name, func(ctx context.Context) error {
				response, err = next(ctx, request)
				if f, ok := response.(endpoint.Failer); ok && err == nil {
					fail(trace.SpanFromContext(ctx), f.Failed())
				}
				return err
			})
			return response, err
		}
	}
}

func fail(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
}

// TraceID returns the trace id of the span in ctx, local or remote, as 32 hex
// digits, and "" without one.
func TraceID(ctx context.Context) string {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	return ""
}
