package promresilience_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/promresilience"
)

func ExampleNew() {
	breaker, _ := resilience.NewBreaker(resilience.BreakerConfig{
		Name: "payment", Window: resilience.Consecutive(), Failures: 1,
	})
	metrics, err := promresilience.New(breaker)
	if err != nil {
		fmt.Println(err)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	_ = resilience.Do(context.Background(), breaker, func(context.Context) error { return errors.New("down") })

	families, _ := registry.Gather()
	for _, f := range families {
		if f.GetName() != "armature_resilience_breaker_state" {
			continue
		}
		for _, m := range f.GetMetric() {
			fmt.Println(m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue(), m.GetGauge().GetValue())
		}
	}
	// Output:
	// payment closed 0
	// payment half-open 0
	// payment open 1
}
