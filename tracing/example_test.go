package tracing_test

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/propagation"

	"github.com/armature-go/armature/tracing"
)

func ExampleSetup() {
	ctx := context.Background()
	provider, err := tracing.Setup(ctx, tracing.Config{Service: "order"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = provider.Shutdown(ctx) }()

	err = tracing.Do(tracing.WithProvider(ctx, provider), "reserve stock", func(ctx context.Context) error {
		fmt.Println("trace id has", len(tracing.TraceID(ctx)), "digits")
		return nil
	})
	fmt.Println(err)
	// Output:
	// trace id has 32 digits
	// <nil>
}

func ExampleDo() {
	err := tracing.Do(context.Background(), "charge card", func(context.Context) error {
		return errors.New("declined")
	})
	fmt.Println(err)
	// Output: declined
}

func ExampleMiddleware() {
	endpoint := tracing.Middleware("get order")(func(_ context.Context, request any) (any, error) {
		return fmt.Sprint("order ", request), nil
	})
	fmt.Println(endpoint(context.Background(), 7))
	// Output: order 7 <nil>
}

func ExamplePropagator() {
	propagator := tracing.Propagator("tenant")
	ctx := propagator.Extract(context.Background(), propagation.MapCarrier{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"baggage":     "tenant=blue,user=ann",
	})
	out := propagation.MapCarrier{}
	propagator.Inject(ctx, out)
	fmt.Println(tracing.TraceID(ctx))
	fmt.Println(out["baggage"])
	// Output:
	// 0af7651916cd43dd8448eb211c80319c
	// tenant=blue
}
