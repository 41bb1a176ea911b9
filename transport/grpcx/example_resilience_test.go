package grpcx_test

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport/grpcx"
)

func ExampleUnaryClient() {
	retry, _ := resilience.NewRetry(resilience.RetryConfig{})
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"})
	policy := resilience.Chain(retry, breaker)
	cc, err := grpc.NewClient("passthrough:///payment:9000",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(grpcx.UnaryClient(policy)),
		grpc.WithStreamInterceptor(grpcx.StreamClient(policy)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = cc.Close() }()
	fmt.Println(policy.Describe().Children[1].Name)
	// Output: payment
}

func ExampleUnaryServer() {
	bulkhead, _ := resilience.NewBulkhead(resilience.BulkheadConfig{Name: "orders", Max: 100})
	s := grpc.NewServer(
		grpc.UnaryInterceptor(grpcx.UnaryServer(bulkhead)),
		grpc.StreamInterceptor(grpcx.StreamServer(bulkhead)))
	defer s.Stop()
	fmt.Println(len(s.GetServiceInfo()), "services")
	// Output: 0 services
}
