package redisstore_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/redisstore"
)

func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	store, err := redisstore.New(redisstore.Config{Client: client})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = idempotency.New(idempotency.Config{Store: store})
	fmt.Println(err)
	// Output: <nil>
}
