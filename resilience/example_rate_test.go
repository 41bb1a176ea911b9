package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/resilience"
)

func ExampleNewRateLimiter() {
	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{Name: "search", Rate: 100, Per: time.Hour, Burst: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		err := resilience.Do(context.Background(), limiter, func(context.Context) error { return nil })
		fmt.Println(errors.Is(err, resilience.ErrRateLimited))
	}
	// Output:
	// false
	// false
	// true
}

func ExampleKeyed() {
	type host struct{}
	perHost, err := resilience.Keyed(
		func(ctx context.Context) string { h, _ := ctx.Value(host{}).(string); return h },
		func(h string) (resilience.Policy, error) {
			return resilience.NewBreaker(resilience.BreakerConfig{Name: h, Window: resilience.Consecutive(), Failures: 1})
		},
		resilience.KeyedConfig{Name: "hosts", MaxKeys: 100},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, h := range []string{"a.example", "a.example", "b.example"} {
		ctx := context.WithValue(context.Background(), host{}, h)
		err := resilience.Do(ctx, perHost, func(context.Context) error { return errors.New("connection refused") })
		fmt.Println(h, errors.Is(err, resilience.ErrOpen))
	}
	// Output:
	// a.example false
	// a.example true
	// b.example false
}
