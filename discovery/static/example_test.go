package static_test

import (
	"context"
	"fmt"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
)

func ExampleNew() {
	reg, err := static.New(static.Config{Instances: []discovery.Instance{
		{Service: "order", Addr: "127.0.0.1:9001"},
		{Service: "order", Addr: "[::1]:9002"},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for s := range reg.Watch(context.Background(), "order") {
		for _, in := range s.Instances {
			fmt.Println(in.Addr, in.Health)
		}
		break // a watch goes on for as long as the loop does
	}
	// Output:
	// 127.0.0.1:9001 passing
	// [::1]:9002 passing
}

func ExampleOpen() {
	r, err := static.Open("static:order=10.0.0.7:7001,10.0.0.8:7001;payment=[::1]:7002")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, in := range r.Services()["order"].Instances {
		fmt.Println(in.Service, in.Addr)
	}
	// Output:
	// order 10.0.0.7:7001
	// order 10.0.0.8:7001
}
