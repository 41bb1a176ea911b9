package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/resilience"
)

func Example() {
	timeout, err := resilience.NewTimeout(2 * time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		MaxAttempts: 3,
		Backoff:     resilience.Exponential(time.Millisecond, 10*time.Millisecond, resilience.FullJitter),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy := resilience.Chain(timeout, retry, breaker)

	answer, err := resilience.Call(context.Background(), policy, func(ctx context.Context) (string, error) {
		if n := resilience.AttemptFromContext(ctx); n < 3 {
			return "", fmt.Errorf("attempt %d failed", n)
		}
		return "charged", nil
	})
	fmt.Println(answer, err)
	// Output: charged <nil>
}

func ExampleNewRetry() {
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name:        "reserve",
		MaxAttempts: 2,
		Backoff:     resilience.Exponential(time.Millisecond, time.Second, resilience.NoJitter),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), retry, func(context.Context) error {
		return errors.New("inventory: busy")
	})
	fmt.Println(err)
	// Output: resilience: retry "reserve": attempts exhausted after 2 attempts: inventory: busy
}

func ExampleNewTimeout() {
	timeout, err := resilience.NewTimeout(time.Millisecond)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), timeout, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	fmt.Println(err, errors.Is(err, resilience.ErrTimeout))
	// Output: resilience: call: timed out after 1ms true
}

func ExampleNewBulkhead() {
	bulkhead, err := resilience.NewBulkhead(resilience.BulkheadConfig{Name: "db", Max: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), bulkhead, func(ctx context.Context) error {
		return resilience.Do(ctx, bulkhead, func(context.Context) error { return nil })
	})
	fmt.Println(err)
	// Output: resilience: enter bulkhead "db": full
}

func ExampleChain() {
	timeout, err := resilience.NewTimeout(time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	bulkhead, err := resilience.NewBulkhead(resilience.BulkheadConfig{Name: "db", Max: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resilience.Chain(timeout, bulkhead).Describe())
	// Output:
	// chain
	//   timeout after=1s
	//   bulkhead "db" max=10 queue=0
}

func ExampleWrap() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "price"})
	if err != nil {
		fmt.Println(err)
		return
	}
	price := resilience.Wrap(breaker, func(context.Context) (int, error) { return 1999, nil })
	fmt.Println(price(context.Background()))
	// Output: 1999 <nil>
}

func ExampleOrElse() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "price"})
	if err != nil {
		fmt.Println(err)
		return
	}
	breaker.Trip(time.Minute)
	price, err := resilience.Call(context.Background(), breaker,
		func(context.Context) (int, error) { return 1999, nil },
		resilience.OrElse(func(context.Context, error) (int, error) { return 2499, nil }))
	fmt.Println(price, err)
	// Output: 2499 <nil>
}

func ExampleMiddleware() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "catalog"})
	if err != nil {
		fmt.Println(err)
		return
	}
	endpoint := resilience.Middleware(breaker)(func(_ context.Context, request any) (any, error) {
		return fmt.Sprint("hello ", request), nil
	})
	fmt.Println(endpoint(context.Background(), "world"))
	// Output: hello world <nil>
}
