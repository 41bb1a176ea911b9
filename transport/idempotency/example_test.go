package idempotency_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/idempotency"
)

func ExampleNew() {
	store, err := idempotency.NewMemory(idempotency.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := idempotency.New(idempotency.Config{Store: store, Required: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	place := idempotency.Once(keys, "orders.Place", func(_ context.Context, sku string) (string, error) {
		fmt.Println("reserve", sku)
		return "order-1", nil
	})

	ctx := flow.WithIdempotencyKey(context.Background(), "5b0c") // a transport has done this
	fmt.Println(place(ctx, "blue"))
	fmt.Println(place(ctx, "blue"))
	_, err = place(ctx, "red")
	fmt.Println(errors.Is(err, idempotency.ErrReused), transport.AsError(err).StatusCode())
	// Output:
	// reserve blue
	// order-1 <nil>
	// order-1 <nil>
	// true 422
}

func ExampleNewMemory() {
	_, err := idempotency.NewMemory(idempotency.MemoryConfig{MaxBytes: -1})
	fmt.Println(err)
	// Output: idempotency: configure memory: MaxBytes = -1: must not be negative; use 0 for 64 MiB
}

func ExampleMiddleware() {
	store, err := idempotency.NewMemory(idempotency.MemoryConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := idempotency.New(idempotency.Config{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	n := 0
	next := func(context.Context, any) (any, error) { // any go-kit endpoint
		n++
		return n, nil
	}
	endpoint := idempotency.Middleware[int](keys, "count")(next)
	ctx := flow.WithIdempotencyKey(context.Background(), "5b0c")
	fmt.Println(endpoint(ctx, "request"))
	fmt.Println(endpoint(ctx, "request"))
	// Output:
	// 1 <nil>
	// 1 <nil>
}
