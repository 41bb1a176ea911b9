package resiliencetest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/resiliencetest"
)

func ExampleScript() {
	busy := errors.New("busy")
	script := resiliencetest.Script(
		resiliencetest.OK(),
		resiliencetest.FailWith(busy).Times(2),
		resiliencetest.OK().Forever(),
	)
	for range 5 {
		fmt.Println(script.Call(context.Background()))
	}
	// Output:
	// <nil>
	// busy
	// busy
	// <nil>
	// <nil>
}

func ExampleReturns() {
	script := resiliencetest.Script(resiliencetest.Fail(1), resiliencetest.OK())
	retry, _ := resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)})

	price, err := resilience.Call(context.Background(), retry, resiliencetest.Returns(script, 450))

	fmt.Println(price, err)
	for _, call := range script.Calls() {
		fmt.Println(call.Attempt, call.Err)
	}
	// Output:
	// 450 <nil>
	// 1 resiliencetest: scripted failure
	// 2 <nil>
}

func ExampleRecorder() {
	events := new(resiliencetest.Recorder)
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{
		Name: "payment", Window: resilience.Consecutive(), Failures: 1, Observer: events,
		OpenFor: resilience.OpenFixed(time.Second),
	})
	script := resiliencetest.Script(resiliencetest.Fail(1))

	_ = resilience.Do(context.Background(), breaker, script.Call)

	for _, e := range events.Events() {
		fmt.Println(resiliencetest.Line(e))
	}
	// Output:
	// state changed: breaker "payment", closed to open, 1s, resiliencetest: scripted failure
}
