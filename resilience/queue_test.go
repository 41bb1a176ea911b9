package resilience_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestMoreConfigurationErrorsNameTheField(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	adaptive := func(c resilience.AdaptiveConfig) error { _, err := resilience.NewAdaptive(c); return err }
	throttle := func(c resilience.ThrottleConfig) error { _, err := resilience.NewThrottle(c); return err }
	chaos := func(c resilience.ChaosConfig) error { _, err := resilience.NewChaos(c); return err }
	bulkhead := func(c resilience.BulkheadConfig) error { _, err := resilience.NewBulkhead(c); return err }
	cache := func(c resilience.CachedConfig) error {
		_, err := resilience.NewCached(func(context.Context, int) (int, error) { return 0, nil }, c)
		return err
	}
	_, fallback := resilience.NewFallback(resilience.FallbackConfig{Name: "later"})
	_, noLoad := resilience.NewCached[int, int](nil, resilience.CachedConfig{TTL: 1})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{bulkhead(resilience.BulkheadConfig{Max: math.MaxInt}), "bulkhead: Max = 9"},
		{bulkhead(resilience.BulkheadConfig{Max: 1, MinSpacing: -1}), "bulkhead: MinSpacing = -1ns"},
		{bulkhead(resilience.BulkheadConfig{Max: 1, Order: 3}), "bulkhead: Order = invalid"},
		{bulkhead(resilience.BulkheadConfig{Max: 1, Overflow: 2}), "bulkhead: Overflow = invalid"},
		{adaptive(resilience.AdaptiveConfig{Name: "db", Min: -1}), `adaptive "db": Min = -1`},
		{adaptive(resilience.AdaptiveConfig{Max: -1}), "adaptive: Max = -1"},
		{adaptive(resilience.AdaptiveConfig{Max: math.MaxInt}), "adaptive: Max = 9"},
		{adaptive(resilience.AdaptiveConfig{Initial: -1}), "adaptive: Initial = -1"},
		{adaptive(resilience.AdaptiveConfig{Initial: 1001}), "adaptive: Initial = 1001"},
		{adaptive(resilience.AdaptiveConfig{Min: 10, Initial: 9}), "adaptive: Initial = 9"},
		{adaptive(resilience.AdaptiveConfig{Min: 10, Max: 9}), "adaptive: Min = 10"},
		{adaptive(resilience.AdaptiveConfig{Algorithm: 3}), "adaptive: Algorithm = invalid"},
		{adaptive(resilience.AdaptiveConfig{MaxHealthyRTT: -1}), "adaptive: MaxHealthyRTT = -1ns"},
		{adaptive(resilience.AdaptiveConfig{Queue: -1}), "adaptive: Queue = -1"},
		{adaptive(resilience.AdaptiveConfig{MaxWait: -1}), "adaptive: MaxWait = -1ns"},
		{throttle(resilience.ThrottleConfig{Name: "search", K: 0.5}), `throttle "search": K = 0.5`},
		{throttle(resilience.ThrottleConfig{K: nan}), "throttle: K = NaN"},
		{throttle(resilience.ThrottleConfig{K: math.Inf(1)}), "throttle: K = +Inf"},
		{throttle(resilience.ThrottleConfig{Window: -1}), "throttle: Window = -1ns"},
		{throttle(resilience.ThrottleConfig{Window: 19}), "throttle: Window = 19ns"},
		{throttle(resilience.ThrottleConfig{MinRequests: -1}), "throttle: MinRequests = -1"},
		{fallback, `fallback "later": Handle = nil`},
		{chaos(resilience.ChaosConfig{Name: "lab"}), `chaos "lab": Rate = 0`},
		{chaos(resilience.ChaosConfig{Rate: 0.5}), "chaos: Rate = 0.5: leaves no fault"},
		{chaos(resilience.ChaosConfig{Err: errDown}), "chaos: Rate = 0: leaves no fault"},
		{chaos(resilience.ChaosConfig{Rate: nan, Err: errDown}), "chaos: Rate = NaN"},
		{chaos(resilience.ChaosConfig{ErrRate: 1.1}), "chaos: ErrRate = 1.1"},
		{chaos(resilience.ChaosConfig{LatencyRate: 0.1}), "chaos: LatencyRate = 0.1: has no fault to inject; set Latency too"},
		{chaos(resilience.ChaosConfig{PanicRate: 0.1}), "chaos: PanicRate = 0.1"},
		{chaos(resilience.ChaosConfig{Rate: 0.1, Latency: -1}), "chaos: Latency = -1ns"},
		{noLoad, "cache: load = nil"},
		{cache(resilience.CachedConfig{Name: "price"}), `cache "price": TTL = 0s`},
		{cache(resilience.CachedConfig{TTL: 1, Size: -1}), "cache: Size = -1"},
		{cache(resilience.CachedConfig{TTL: 1, Jitter: nan}), "cache: Jitter = NaN"},
		{cache(resilience.CachedConfig{TTL: 1, NegativeTTL: -1}), "cache: NegativeTTL = -1ns"},
		{cache(resilience.CachedConfig{TTL: 1, StaleIfError: -1}), "cache: StaleIfError = -1ns"},
		{cache(resilience.CachedConfig{TTL: 1, StaleWhileRevalidate: -1}), "cache: StaleWhileRevalidate = -1ns"},
		{cache(resilience.CachedConfig{TTL: 1, RefreshTimeout: -1}), "cache: RefreshTimeout = -1ns"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			if tt.err == nil || !strings.HasPrefix(tt.err.Error(), "resilience: configure ") || !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("error = %v, want it to contain %q", tt.err, tt.want)
			}
		})
	}
}

func TestDescriptionsNameTheSettings(t *testing.T) {
	t.Parallel()
	handle := func(context.Context, error) error { return nil }
	for _, tt := range []struct {
		policy resilience.Policy
		want   string
	}{
		{
			must(resilience.NewBulkhead(resilience.BulkheadConfig{
				Name: "db", Max: 2, Queue: 3, MinSpacing: time.Second, Order: resilience.LIFO, Overflow: resilience.DropOldest,
			})), `bulkhead "db" max=2 queue=3 min-spacing=1s order=lifo overflow=drop-oldest`,
		},
		{must(resilience.NewAdaptive(resilience.AdaptiveConfig{Name: "db"})), `adaptive "db" algorithm=vegas min=1 max=1000 initial=20`},
		{must(resilience.NewAdaptive(resilience.AdaptiveConfig{
			Algorithm: resilience.Gradient2, Max: 5, MaxHealthyRTT: time.Second, Queue: 2, MaxWait: time.Minute,
		})), `adaptive algorithm=gradient2 min=1 max=5 initial=5 max-healthy-rtt=1s queue=2 max-wait=1m0s`},
		{must(resilience.NewThrottle(resilience.ThrottleConfig{Name: "search"})), `throttle "search" k=2 window=10s min-requests=10`},
		{must(resilience.NewFallback(resilience.FallbackConfig{Name: "later", Handle: handle})), `fallback "later"`},
		{must(resilience.NewChaos(resilience.ChaosConfig{Name: "lab", Rate: 0.1, Latency: time.Second, ErrRate: 0.2})), `chaos "lab" latency=1s latency-rate=0.1 err=<nil> err-rate=0.2`},
	} {
		if got := tt.policy.Describe().String(); got != tt.want {
			t.Errorf("description = %q, want %q", got, tt.want)
		}
	}
	var words []string
	for _, w := range []interface{ String() string }{
		resilience.FIFO, resilience.LIFO, resilience.ByPriority, resilience.RejectNew, resilience.DropOldest,
		resilience.Vegas, resilience.Gradient2, resilience.AIMD, resilience.Order(9),
	} {
		words = append(words, w.String())
	}
	if !slices.Equal(words, strings.Fields("fifo lifo by-priority reject-new drop-oldest vegas gradient2 aimd invalid")) {
		t.Errorf("words = %v", words)
	}
}
