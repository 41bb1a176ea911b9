package main

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDemonstration(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out, true); err != nil {
		t.Fatal(err)
	}
	for what, pattern := range map[string]string{
		"a row per second":           `(?m)^ +13 +recovering`,
		"the chain":                  `retry "price" attempts=3`,
		"the breaker opens":          `breaker price: closed -> open`,
		"the breaker probes":         `breaker price: open -> half-open`,
		"the breaker closes":         `breaker price: half-open -> closed`,
		"the outage is the reason":   `-> open \(dependency: 503 Service Unavailable\)`,
		"calls that the breaker met": `breaker_calls_total\{name="price",outcome="failure"\} [1-9]`,
		"hedges":                     `hedge_won_total\{name="price"\} \d`,
		"rejections":                 `rejections_total\{name="price",policy="breaker"\} [1-9]`,
	} {
		if !regexp.MustCompile(pattern).MatchString(out.String()) {
			t.Errorf("%s: the output has no %s", what, pattern)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if err := run(ctx, &out, false); err != nil {
		t.Error(err)
	}
	if strings.Contains(out.String(), "recovering") {
		t.Error("it went on after the interrupt")
	}
}
