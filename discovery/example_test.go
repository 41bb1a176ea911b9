package discovery_test

import (
	"context"
	"fmt"
	"time"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
)

func ExampleNewPool() {
	reg, err := static.New(static.Config{Instances: []discovery.Instance{{Service: "order", Addr: "127.0.0.1:9001"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	pool, err := discovery.NewPool(discovery.PoolConfig[string]{
		Resolver: reg,
		Service:  "order",
		Dial: func(_ context.Context, in discovery.Instance) (string, func() error, error) {
			return "connection to " + in.Addr, nil, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	lease, err := pool.Pick(context.Background(), discovery.PickOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lease.Value())
	lease.Done(nil)
	// Output: connection to 127.0.0.1:9001
}

func ExampleRegistration_Drain() {
	ctx := context.Background()
	reg, err := static.New(static.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := reg.Register(ctx, discovery.Instance{Service: "order", Addr: "127.0.0.1:9001"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.State())
	if err := r.Drain(ctx, time.Millisecond); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.State())
	// Output:
	// active
	// departed
}

// A registry of one's own wraps each accepted instance with NewRegistration.
func ExampleNewRegistration() {
	in, err := discovery.Instance{Service: "order", Addr: "[::1]:9001"}.Normalize()
	if err != nil {
		fmt.Println(err)
		return
	}
	r := discovery.NewRegistration(in, &ledger{})
	fmt.Println(r.Instance().ID)
	// Output: order/[::1]:9001
}

func ExampleWithExclude() {
	ctx := discovery.WithExclude(context.Background())
	discovery.ExcludeFrom(ctx).Add("order/127.0.0.1:9001")
	fmt.Println(discovery.ExcludeFrom(ctx).Has("order/127.0.0.1:9001"))
	// Output: true
}

func ExampleNewSnapshot() {
	s := discovery.NewSnapshot(1, discovery.Instance{ID: "b"}, discovery.Instance{ID: "a"})
	fmt.Println(s.Instances[0].ID, s.Instances[1].ID)
	// Output: a b
}
