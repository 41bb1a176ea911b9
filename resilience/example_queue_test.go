package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/armature-go/armature/resilience"
)

func ExampleNewBulkhead_spacing() {
	// A partner that allows five calls at once and a new one every 20 ms.
	partner, err := resilience.NewBulkhead(resilience.BulkheadConfig{
		Name: "partner", Max: 5, Queue: 100, MinSpacing: 20 * time.Millisecond,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	start := time.Now()
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			_ = resilience.Do(context.Background(), partner, func(context.Context) error { return nil })
		})
	}
	calls.Wait()
	fmt.Println("took at least 60ms:", time.Since(start) >= 60*time.Millisecond)
	// Output: took at least 60ms: true
}

func ExampleWithPriority() {
	db, err := resilience.NewBulkhead(resilience.BulkheadConfig{
		Name: "db", Max: 1, Queue: 10, Order: resilience.ByPriority, Overflow: resilience.DropOldest,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := resilience.WithPriority(context.Background(), 10) // a paying customer
	err = resilience.Do(ctx, db, func(ctx context.Context) error {
		fmt.Println("priority", resilience.PriorityFromContext(ctx))
		return nil
	})
	fmt.Println(err)
	// Output:
	// priority 10
	// <nil>
}

func ExampleBulkhead_Update() {
	cfg := resilience.BulkheadConfig{Name: "db", Max: 10}
	db, err := resilience.NewBulkhead(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.Max = 20
	fmt.Println(db.Update(cfg), db.Stats().Max)
	// Output: <nil> 20
}

func ExampleNewAdaptive() {
	limit, err := resilience.NewAdaptive(resilience.AdaptiveConfig{
		Name: "search", Max: 200, MaxHealthyRTT: 500 * time.Millisecond,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), limit, func(context.Context) error { return nil })
	fmt.Println(err, limit.Stats().Limit)
	// Output: <nil> 20
}

func ExampleNewThrottle() {
	throttle, err := resilience.NewThrottle(resilience.ThrottleConfig{Name: "search"})
	if err != nil {
		fmt.Println(err)
		return
	}
	rejected := 0
	for range 1000 {
		err := resilience.Do(context.Background(), throttle, func(context.Context) error {
			return errors.New("overloaded")
		})
		if errors.Is(err, resilience.ErrThrottled) {
			rejected++
		}
	}
	fmt.Println("most were spared the callee:", rejected > 900)
	// Output: most were spared the callee: true
}

func ExampleNewFallback() {
	later, err := resilience.NewFallback(resilience.FallbackConfig{
		Name: "mail",
		Handle: func(_ context.Context, err error) error {
			fmt.Println("queued for later:", err)
			return nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), later, func(context.Context) error {
		return errors.New("smtp: connection refused")
	})
	fmt.Println(err)
	// Output:
	// queued for later: smtp: connection refused
	// <nil>
}

func ExampleNewChaos() {
	chaos, err := resilience.NewChaos(resilience.ChaosConfig{
		Name: "experiment", ErrRate: 1, Err: errors.New("connection reset"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = resilience.Do(context.Background(), chaos, func(context.Context) error { return nil })
	fmt.Println(err)
	fmt.Println(errors.Is(err, resilience.ErrInjected))
	// Output:
	// resilience: pass chaos "experiment": injected fault: connection reset
	// true
}

func ExampleNewSingleFlight() {
	price, err := resilience.NewSingleFlight(func(_ context.Context, sku string) (int, error) {
		return len(sku) * 100, nil // an expensive call
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(price.Do(context.Background(), "book"))
	fmt.Println(price.Bind("pen")(context.Background()))
	// Output:
	// 400 <nil>
	// 300 <nil>
}

func ExampleNewCached() {
	retry, err := resilience.NewRetry(resilience.RetryConfig{MaxAttempts: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	price, err := resilience.NewCached(func(ctx context.Context, sku string) (int, error) {
		return resilience.Call(ctx, retry, func(context.Context) (int, error) {
			fmt.Println("asking for", sku)
			return 1999, nil
		})
	}, resilience.CachedConfig{Name: "price", TTL: time.Minute, StaleIfError: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(price.Get(context.Background(), "book"))
	fmt.Println(price.Get(context.Background(), "book"))
	fmt.Println(price.Stats().Hits)
	// Output:
	// asking for book
	// 1999 <nil>
	// 1999 <nil>
	// 1
}
