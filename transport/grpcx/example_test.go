package grpcx_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func ExampleNewServer() {
	ctx := context.Background()
	s, err := grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	// orderv1.RegisterOrdersServer(s, impl)
	if err := s.Listen(ctx); err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- s.Serve() }()

	fmt.Println("shutdown:", s.Shutdown(ctx))
	fmt.Println("serve:", <-served)
	// Output:
	// shutdown: <nil>
	// serve: <nil>
}

func ExampleNewClient() {
	ctx := context.Background()
	s, err := grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Listen(ctx); err != nil {
		fmt.Println(err)
		return
	}
	go s.Serve()
	defer s.Shutdown(ctx)

	registry, err := static.New(static.Config{Instances: []discovery.Instance{{Service: "order", Addr: s.Addr()}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: "armature:///order", Resolver: registry})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	health, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	fmt.Println(health.GetStatus(), err)
	// Output: SERVING <nil>
}

func ExampleNewFunc() {
	registry, err := static.New(static.Config{}) // nobody is there
	if err != nil {
		fmt.Println(err)
		return
	}
	cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: "armature:///order", Resolver: registry})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	check := grpcx.NewFunc[*healthpb.HealthCheckRequest, *healthpb.HealthCheckResponse](cc, healthpb.Health_Check_FullMethodName)
	_, err = check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(transport.CodeOf(err), errors.Is(err, discovery.ErrNoInstance))
	// Output: UNAVAILABLE true
}

func ExampleInterceptor() {
	var audit endpoint.Middleware = func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, request any) (any, error) {
			fmt.Println("before")
			return next(ctx, request)
		}
	}
	intercept := grpcx.Interceptor(audit)
	handler := func(context.Context, any) (any, error) { return "after", nil }
	fmt.Println(intercept(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/order.v1.Orders/Place"}, handler))
	// Output:
	// before
	// after <nil>
}
