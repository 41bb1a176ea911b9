package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/resilience"
)

func ExampleNewBudget() {
	budget, err := resilience.NewBudget(resilience.BudgetConfig{Name: "payment", Ratio: 0.1, MinPerSecond: 0.1})
	if err != nil {
		fmt.Println(err)
		return
	}
	retry, err := resilience.NewRetry(resilience.RetryConfig{Budget: budget, Backoff: resilience.Fixed(0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	refused := errors.New("connection refused")
	for range 2 {
		fmt.Println(resilience.Do(context.Background(), retry, func(context.Context) error { return refused }))
	}
	// Output:
	// resilience: retry: budget spent after 2 attempts: connection refused
	// resilience: retry: budget spent after 1 attempt: connection refused
}

func ExampleNewHedge() {
	hedge, err := resilience.NewHedge(resilience.HedgeConfig{Name: "price", After: time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	price, err := resilience.Call(context.Background(), hedge, func(ctx context.Context) (string, error) {
		if resilience.AttemptFromContext(ctx) == 1 {
			<-ctx.Done() // a replica that hangs
			return "", ctx.Err()
		}
		return "19.99 from the other replica", nil
	})
	fmt.Println(price, err)
	// Output: 19.99 from the other replica <nil>
}

func ExampleDelays() {
	delays := resilience.Delays{Base: 100 * time.Millisecond, Max: time.Second, Multiplier: 3, Jitter: resilience.NoJitter}
	retry, err := resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 5, Backoff: delays.BackOff})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = retry
	next := delays.BackOff()
	fmt.Println(next.NextBackOff(), next.NextBackOff(), next.NextBackOff(), next.NextBackOff())
	// Output: 100ms 300ms 900ms 1s
}

func ExampleFixed() {
	next := resilience.Fixed(time.Second)()
	fmt.Println(next.NextBackOff(), next.NextBackOff())
	// Output: 1s 1s
}

func ExampleExponential() {
	next := resilience.Exponential(time.Second, 3*time.Second, resilience.NoJitter)()
	fmt.Println(next.NextBackOff(), next.NextBackOff(), next.NextBackOff())
	// Output: 1s 2s 3s
}

func ExampleParseRetryAfter() {
	now := time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)
	fmt.Println(resilience.ParseRetryAfter("120", now))
	fmt.Println(resilience.ParseRetryAfter("Sat, 21 Nov 2026 12:00:30 GMT", now))
	fmt.Println(resilience.ParseRetryAfter("soon", now))
	// Output:
	// 2m0s true
	// 30s true
	// 0s false
}

func ExampleRetryAfter() {
	err := resilience.RetryAfter(errors.New("quota used up"), time.Minute)
	var wish interface {
		RetryAfter() (time.Duration, bool)
	}
	if errors.As(err, &wish) {
		fmt.Println(err)
		fmt.Println(wish.RetryAfter())
	}
	// Output:
	// quota used up
	// 1m0s true
}

func ExampleTimeout_With() {
	timeout, err := resilience.NewTimeout(time.Millisecond)
	if err != nil {
		fmt.Println(err)
		return
	}
	named := timeout.With("payment", nil)
	err = resilience.Do(context.Background(), named, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	fmt.Println(err)
	fmt.Println(named.Stats().Fired)
	// Output:
	// resilience: call "payment": timed out after 1ms
	// 1
}
