package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/resilience"
)

func ExampleNewBreaker() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
		Name:     "payment",
		Window:   resilience.Consecutive(),
		Failures: 2,
		OpenFor:  resilience.OpenFixed(time.Minute),
		Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
			if e.Kind == resilience.EventStateChanged {
				fmt.Printf("%s: %v, was %v\n", e.Name, e.To, e.From)
			}
		}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	charge := func(context.Context) error { return errors.New("connection refused") }
	for range 3 {
		err := resilience.Do(context.Background(), breaker, charge)
		fmt.Println("rejected:", errors.Is(err, resilience.ErrOpen))
	}
	// Output:
	// rejected: false
	// payment: open, was closed
	// rejected: false
	// rejected: true
}

func ExampleBreaker_Allow() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "stream"})
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := breaker.Allow(context.Background())
	if err != nil {
		fmt.Println("rejected:", err)
		return
	}
	// … work on the stream, then report how it ended.
	done(nil)
	fmt.Println(breaker.State(), breaker.Stats().Calls)
	// Output: closed 1
}

func ExampleBreaker_SetMode() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{Name: "search"})
	if err != nil {
		fmt.Println(err)
		return
	}
	search := func(context.Context) error { return nil }
	breaker.SetMode(resilience.ForcedOpen) // an operator takes the callee out
	fmt.Println(resilience.Do(context.Background(), breaker, search))
	breaker.SetMode(resilience.Auto)
	fmt.Println(resilience.Do(context.Background(), breaker, search))
	// Output:
	// resilience: pass breaker "search": open
	// <nil>
}

func ExampleBreaker_Update() {
	cfg := resilience.BreakerConfig{Name: "search", FailureRate: 0.5}
	breaker, err := resilience.NewBreaker(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.FailureRate = 25
	fmt.Println(breaker.Update(cfg)) // and the old settings stay
	cfg.FailureRate = 0.25
	fmt.Println(breaker.Update(cfg))
	// Output:
	// resilience: configure breaker "search": FailureRate = 25: must be within 0 and 1; use 0.5 for half of the calls
	// <nil>
}

func ExampleOpenBackoffRand() {
	openFor := resilience.OpenBackoffRand(time.Second, 10*time.Second, func() float64 { return 0.5 })
	for episode := range 5 {
		fmt.Println(openFor(episode+1, nil))
	}
	// Output:
	// 1.05s
	// 2.1s
	// 4.2s
	// 8.4s
	// 10.5s
}

func ExampleBreakerConfig_readyToTrip() {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
		Name:   "ledger",
		Window: resilience.Count(100),
		// Three failures open it, but not while more than 50 calls went well.
		ReadyToTrip: func(s resilience.BreakerStats) bool {
			return s.Failures >= 3 && s.Calls-s.Failures <= 50
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		_ = resilience.Do(context.Background(), breaker, func(context.Context) error { return errors.New("locked") })
	}
	fmt.Println(breaker.State())
	// Output: open
}
