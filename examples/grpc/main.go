// Command grpc serves functions over gRPC without generated stubs, and calls them through policies: two instances behind
// one name, errors that stay what they are, a stream as an iterator, and a retry that meets the other instance.
//
//	go run ./examples/grpc
//
// It starts two servers on free ports, visits them, prints what it saw, and stops.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const service = "demo.v1.Greeter"

type text = wrapperspb.StringValue

// errNobody crosses the wire: a client compares with the same value.
var errNobody = transport.Errorf(transport.NotFound, "NOBODY", "there is nobody to greet").WithDomain("demo")

// greeter is one instance.
type greeter struct{ tired atomic.Bool }

func (g *greeter) greet(_ context.Context, in *text) (*text, error) {
	switch {
	case g.tired.Load():
		return nil, transport.Errorf(transport.Unavailable, "TIRED", "come back later")
	case in.GetValue() == "":
		return nil, errNobody
	}
	return wrapperspb.String("hello " + in.GetValue()), nil
}

func (g *greeter) count(_ context.Context, in *text) iter.Seq2[*text, error] {
	return func(yield func(*text, error) bool) {
		for n := 1; n <= 3; n++ {
			if !yield(wrapperspb.String(fmt.Sprintf("%s %d", in.GetValue(), n)), nil) {
				return
			}
		}
	}
}

// start serves g and registers it; stop waits until it is gone.
func (g *greeter) start(ctx context.Context, registry *static.Registry) (stop func() error, err error) {
	s, err := grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	grpcx.Register(s, service, grpcx.Unary("Greet", g.greet), grpcx.ServerStream("Count", g.count))
	if err := s.Listen(ctx); err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	_, err = registry.Register(ctx, discovery.Instance{ID: s.Addr(), Service: "greeter", Addr: s.Addr()})
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(s.Shutdown(ctx), <-served)
	}, err
}

func run(ctx context.Context, out io.Writer) (err error) {
	registry, err := static.New(static.Config{})
	if err != nil {
		return err
	}
	instances := []*greeter{{}, {}}
	for _, g := range instances {
		stop, failed := g.start(ctx, registry)
		if stop != nil {
			defer func() { err = errors.Join(err, stop()) }()
		}
		if failed != nil {
			return failed
		}
	}
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name: "greeter", Backoff: resilience.Fixed(10 * time.Millisecond), MaxAttempts: 4,
		Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
			if e.Kind == resilience.EventRetry {
				fmt.Fprintln(out, "   an instance is tired, asking again")
			}
		}),
	})
	if err != nil {
		return err
	}
	cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: "armature:///greeter", Resolver: registry, Policy: retry})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cc.Close()) }()
	return visit(ctx, out, cc, instances)
}

func visit(ctx context.Context, out io.Writer, cc grpc.ClientConnInterface, instances []*greeter) error {
	greet := grpcx.NewFunc[*text, *text](cc, "/"+service+"/Greet")
	count := grpcx.NewStream[*text, *text](cc, "/"+service+"/Count")

	fmt.Fprintln(out, "1. A function, called like one:")
	answer, err := greet(ctx, wrapperspb.String("Ada"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "   %s\n", answer.GetValue())

	fmt.Fprintln(out, "2. An error is the same on this side:")
	_, err = greet(ctx, wrapperspb.String(""))
	fmt.Fprintf(out, "   it is errNobody: %t\n", errors.Is(err, errNobody))

	fmt.Fprintln(out, "3. A stream is an iterator:")
	for answer, err := range count(ctx, wrapperspb.String("step")) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "   %s\n", answer.GetValue())
	}

	fmt.Fprintln(out, "4. One instance is tired; the other one answers:")
	instances[0].tired.Store(true)
	for range 2 { // one of two calls in turn meets it first
		if answer, err = greet(ctx, wrapperspb.String("Grace")); err != nil {
			return err
		}
		fmt.Fprintf(out, "   %s\n", answer.GetValue())
	}
	return nil
}
