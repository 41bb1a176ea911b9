package redisrate_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/redisrate"
)

func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	store, err := redisrate.New(redisrate.Config{Client: client})
	if err != nil {
		fmt.Println(err)
		return
	}
	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{
		Name: "search", Rate: 100, Burst: 10,
		Store: store, OnStoreError: resilience.StoreFailLocal, LocalShare: 0.25, // of 4 processes
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(limiter.Describe())
	// Output: rate-limiter "search" rate=100/1s burst=10 on-store-error=local
}
