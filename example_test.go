package armature_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/transport/httpx"
)

func ExampleNew() {
	svc, err := armature.New(armature.Config{
		Name:      "greeter",
		HTTPAddr:  "127.0.0.1:0",
		LogWriter: io.Discard,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	type request struct {
		Name string `path:"name"`
	}
	type reply struct {
		Text string `json:"text"`
	}
	httpx.Handle(svc.HTTP, "GET /greet/{name}", func(_ context.Context, r request) (*reply, error) {
		return &reply{Text: "hello " + r.Name}, nil
	})
	svc.OnStop("say so", func(context.Context) error {
		fmt.Println("stopped")
		return nil
	})

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		<-svc.Ready()
		resp, err := http.Get("http://" + svc.HTTPAddr() + "/greet/ada")
		if err == nil {
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			fmt.Print(string(body))
		}
		stop()
	}()
	if err := svc.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"text":"hello ada"}
	// stopped
}

func ExampleService_Every() {
	svc, err := armature.New(armature.Config{Name: "order", LogWriter: io.Discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	svc.Every("sweep carts", time.Millisecond, func(context.Context) error {
		if ctx.Err() == nil {
			fmt.Println("swept")
		}
		stop()
		return nil
	})
	if err := svc.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// swept
}

func ExampleStandardPolicy() {
	policy, err := armature.StandardPolicy(armature.StandardConfig{Name: "payment"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range policy.Describe().Children {
		fmt.Println(p.Kind)
	}
	// Output:
	// timeout
	// retry
	// breaker
	// bulkhead
	// timeout
}
