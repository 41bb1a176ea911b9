package armature_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/armature-go/armature"
)

func TestCounters(t *testing.T) {
	t.Parallel()
	svc := bare(t)
	orders := svc.Counter("orders_created_total", "Orders accepted.\nAll of them.")
	refused := svc.CounterVec("orders_refused_total", "Orders refused.", "reason", "channel")
	orders.Add(3)
	refused.WithLabelValues("stock", "web").Inc()
	want := `
# HELP orders_created_total Orders accepted.\nAll of them.
# TYPE orders_created_total counter
orders_created_total 3
# HELP orders_refused_total Orders refused.
# TYPE orders_refused_total counter
orders_refused_total{channel="web",reason="stock"} 1
`
	if err := testutil.GatherAndCompare(svc.Metrics, strings.NewReader(want), "orders_created_total", "orders_refused_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(svc.Metrics, "orders_created_total", "orders_refused_total"); err != nil || len(problems) > 0 {
		t.Errorf("promlint says %v, %v", problems, err)
	}
	if err := svc.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCountersRefuse(t *testing.T) {
	t.Parallel()
	svc := bare(t)
	svc.Counter("orders_created_total", "Orders accepted.")
	tests := []struct {
		name, help string
		labels     []string
		want       string
	}{
		{name: "orders_created", help: "x", want: `should have "_total" suffix`},
		{name: "orders_created_total", help: "x", want: "previously registered"},
		{name: "orders_shipped_total", want: "no help text"},
		{name: "ordersShipped_total", help: "x", want: "snake_case"},
		{name: "orders-shipped_total", help: "x", want: "orders-shipped_total"},
		{name: "", help: "x", want: "declare counter  of order"},
		{name: "waited_milliseconds_total", help: "x", want: `use base unit "seconds"`},
		{name: "a_total", help: "x", labels: []string{"orderId"}, want: "camelCase"},
		{name: "b_total", help: "x", labels: []string{"le"}, want: `"le"`},
		{name: "c_total", help: "x", labels: []string{"a-b"}, want: "declare counter c_total of order"},
		{name: "d_total", help: "x", labels: []string{"a", "a"}, want: "declare counter d_total of order"},
	}
	for _, tt := range tests {
		t.Run(tt.name+tt.want, func(t *testing.T) {
			if tt.labels != nil {
				wantPanic(t, tt.want, func() { svc.CounterVec(tt.name, tt.help, tt.labels...) })
				return
			}
			wantPanic(t, tt.want, func() { svc.Counter(tt.name, tt.help) })
		})
	}
	wantPanic(t, "there are no labels; use Counter", func() { svc.CounterVec("e_total", "x") })
	if err := svc.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func ExampleService_Counter() {
	svc, err := armature.New(armature.Config{Name: "order", LogWriter: io.Discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := svc.Counter("orders_created_total", "Orders accepted.")
	orders.Inc()
	fmt.Println(testutil.ToFloat64(orders))
	// Output:
	// 1
}
