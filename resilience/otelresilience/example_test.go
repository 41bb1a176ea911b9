package otelresilience_test

import (
	"context"
	"errors"
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/otelresilience"
)

func ExampleSpanEvents() {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("example")
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{
		Name: "payment", Window: resilience.Consecutive(), Failures: 1,
		Observer: otelresilience.SpanEvents(),
	})

	ctx, span := tracer.Start(context.Background(), "checkout")
	_ = resilience.Do(ctx, breaker, func(context.Context) error { return errors.New("down") })
	_ = resilience.Do(ctx, breaker, func(context.Context) error { return nil })
	span.End()

	for _, event := range spans.Ended()[0].Events() {
		fmt.Println(event.Name)
	}
	// Output:
	// armature.resilience.state_changed
	// armature.resilience.rejected
}
