package resilience_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/resilience"
)

func TestBulkheadNeverRunsMoreThanMax(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 3, Queue: 100, MaxWait: time.Minute}))
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Microsecond)
				_ = resilience.Do(ctx, b, func(context.Context) error {
					n := running.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					running.Add(-1)
					return nil
				})
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d at once, want at most 3", most.Load())
	}
	if s := b.Stats(); s.Running != 0 || s.Waiting != 0 {
		t.Errorf("places lost: %+v", s)
	}
}

func TestBulkheadServesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "db", Max: 1, Queue: 3}))
		release := make(chan struct{})
		var order []int
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				_ = resilience.Do(context.Background(), b, func(context.Context) error {
					if i == 0 {
						<-release
					}
					order = append(order, i) // one at a time
					return nil
				})
			})
			synctest.Wait()
		}
		if s := b.Stats(); s.Running != 1 || s.Waiting != 3 {
			t.Errorf("stats = %+v", s)
		}
		err := do(t, b, works)
		var full *resilience.FullError
		if !errors.As(err, &full) || !errors.Is(err, resilience.ErrFull) || !full.NotExecuted() || !full.Retryable() {
			t.Errorf("error = %v, want a *FullError", err)
		}
		if got, want := err.Error(), `resilience: enter bulkhead "db": full`; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
		close(release)
		wg.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("order = %v", order)
		}
	})
}

func TestBulkheadEndsTheWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		maxWait time.Duration
		cancel  time.Duration
		took    time.Duration
		ctxErr  bool
	}{
		{"after MaxWait", time.Second, time.Hour, time.Second, false},
		{"with the context", time.Hour, time.Second, time.Second, true},
		{"with the context, no MaxWait", 0, time.Second, time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 1, MaxWait: tt.maxWait}))
				release := make(chan struct{})
				go func() {
					_ = resilience.Do(context.Background(), b, func(context.Context) error { <-release; return nil })
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), tt.cancel)
				defer cancel()
				start := time.Now()
				err := resilience.Do(ctx, b, works)
				var full *resilience.FullError
				if !errors.As(err, &full) || full.Waited != tt.took || time.Since(start) != tt.took {
					t.Errorf("error = %v after %v", err, time.Since(start))
				}
				if errors.Is(err, context.DeadlineExceeded) != tt.ctxErr || full.Retryable() == tt.ctxErr {
					t.Errorf("error = %v, context's = %v", err, tt.ctxErr)
				}
				close(release)
				synctest.Wait()
				if s := b.Stats(); s != (resilience.BulkheadStats{Max: 1, Queued: 1, Rejected: 1, WaitTime: tt.took}) {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

// A place handed to a caller in the very moment it gives up must reach the next.
func TestBulkheadHandoverToACancelledCaller(t *testing.T) {
	t.Parallel()
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 2}))
			ctx, cancel := context.WithCancel(t.Context())
			release := make(chan struct{})
			served := false
			var wg sync.WaitGroup
			for _, call := range []func(){
				func() {
					_ = resilience.Do(context.Background(), b, func(context.Context) error { <-release; return nil })
				},
				func() {
					err := resilience.Do(ctx, b, works)
					if !errors.Is(err, context.Canceled) {
						t.Errorf("cancelled caller: %v", err)
					}
				},
				func() { served = resilience.Do(context.Background(), b, works) == nil },
			} {
				wg.Go(call)
				synctest.Wait()
			}
			cancel()
			close(release)
			wg.Wait()
			if s := b.Stats(); !served || s.Running != 0 || s.Waiting != 0 {
				t.Fatalf("served = %v, stats = %+v", served, s)
			}
		})
	}
}

// caller makes calls through a policy one after another and notes who ran when.
type caller struct {
	policy resilience.Policy
	start  time.Time
	wg     sync.WaitGroup
	mu     sync.Mutex
	ran    []string
	at     []time.Duration
	errs   map[string]error
}

func newCaller(p resilience.Policy) *caller {
	return &caller{policy: p, start: time.Now(), errs: map[string]error{}}
}

// call begins a call that takes d and returns once it runs, waits or is over.
func (c *caller) call(ctx context.Context, name string, d time.Duration) {
	c.wg.Go(func() {
		err := resilience.Do(ctx, c.policy, func(context.Context) error {
			c.mu.Lock()
			c.ran, c.at = append(c.ran, name), append(c.at, time.Since(c.start))
			c.mu.Unlock()
			time.Sleep(d)
			return nil
		})
		c.mu.Lock()
		c.errs[name] = err
		c.mu.Unlock()
	})
	synctest.Wait()
}

func (c *caller) err(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.errs[name]
}

func TestBulkheadSpacesStarts(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		max  int
		took time.Duration
		want []time.Duration
	}{
		{"the spacing decides", 10, ms, []time.Duration{0, 100 * ms, 200 * ms, 300 * ms}},
		{"so do the places", 2, 150 * ms, []time.Duration{0, 100 * ms, 200 * ms, 300 * ms}},
		{"a lack of places delays what follows", 1, 250 * ms, []time.Duration{0, 250 * ms, 500 * ms, 750 * ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: tt.max, Queue: 10, MinSpacing: 100 * ms}))
				c := newCaller(b)
				for _, name := range []string{"a", "b", "c", "d"} { // a burst
					c.call(t.Context(), name, tt.took)
				}
				c.wg.Wait()
				if !slices.Equal(c.at, tt.want) || !slices.Equal(c.ran, []string{"a", "b", "c", "d"}) {
					t.Errorf("%v at %v, want %v", c.ran, c.at, tt.want)
				}
				time.Sleep(time.Minute) // a pause saves up no starts
				c.start, c.at = time.Now(), nil
				c.call(t.Context(), "e", 0)
				c.call(t.Context(), "f", 0)
				c.wg.Wait()
				if want := []time.Duration{0, 100 * ms}; !slices.Equal(c.at, want) {
					t.Errorf("after a pause: %v, want %v", c.at, want)
				}
				if s := b.Stats(); s.Running != 0 || s.Waiting != 0 {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

func TestBulkheadCancelledWaiterUsesUpNoTurn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cancel time.Duration // of the second caller
	}{
		{"before its turn", 50 * time.Millisecond},
		{"in the moment of its turn", 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				synctest.Test(t, func(t *testing.T) {
					b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 5, Queue: 5, MinSpacing: 100 * time.Millisecond}))
					ctx, cancel := context.WithTimeout(t.Context(), tt.cancel)
					defer cancel()
					c := newCaller(b)
					c.call(t.Context(), "a", 0)
					c.call(ctx, "b", 0)
					c.call(t.Context(), "c", 0)
					c.wg.Wait()
					at := c.at[len(c.at)-1]
					if c.err("b") == nil { // its turn came first, and it was used
						at -= 100 * time.Millisecond
					}
					if at != 100*time.Millisecond || c.err("c") != nil {
						t.Fatalf("ran %v at %v, errors %v", c.ran, c.at, c.err("c"))
					}
				})
			}
		})
	}
}

func TestBulkheadWithoutQueueTellsTheNextStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "sms", Max: 2, MinSpacing: time.Second}))
		if err := do(t, b, works); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		err := do(t, b, works)
		var full *resilience.FullError
		if !errors.As(err, &full) {
			t.Fatalf("error = %v", err)
		}
		if after, ok := full.RetryAfter(); !ok || after != 700*time.Millisecond {
			t.Errorf("retry after %v, %v", after, ok)
		}
		if got, want := err.Error(), `resilience: enter bulkhead "sms": full, next start in 700ms`; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
		time.Sleep(full.After)
		if err := do(t, b, works); err != nil {
			t.Error(err)
		}
	})
}

// Who waits first is served first, also when a newcomer meets a free place.
func TestBulkheadNewcomerDoesNotOvertake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 2, Queue: 5, MinSpacing: time.Second}))
		c := newCaller(b)
		c.call(t.Context(), "a", 0)
		c.call(t.Context(), "b", 0) // waits for its turn beside two free places
		time.Sleep(time.Second / 2)
		c.call(t.Context(), "c", 0)
		c.wg.Wait()
		if !slices.Equal(c.ran, []string{"a", "b", "c"}) {
			t.Errorf("ran %v", c.ran)
		}
	})
}

func TestBulkheadOrderAndOverflow(t *testing.T) {
	t.Parallel()
	type arrival struct {
		name     string
		priority int
	}
	for _, tt := range []struct {
		name     string
		order    resilience.Order
		overflow resilience.Overflow
		arrivals []arrival // one place, three may wait; the first runs at once
		ran      []string
		rejected []string
	}{
		{
			"fifo", resilience.FIFO, resilience.RejectNew,
			[]arrival{{"a", 0}, {"b", 0}, {"c", 9}, {"d", 0}, {"e", 9}},
			[]string{"a", "b", "c", "d"},
			[]string{"e"},
		},
		{
			"lifo", resilience.LIFO, resilience.RejectNew,
			[]arrival{{"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}, {"e", 0}},
			[]string{"a", "d", "c", "b"},
			[]string{"e"},
		},
		{
			"priority, equals in order", resilience.ByPriority, resilience.RejectNew,
			[]arrival{{"a", 0}, {"b", -1}, {"c", 5}, {"d", 5}, {"e", 9}},
			[]string{"a", "c", "d", "b"},
			[]string{"e"},
		},
		{
			"fifo drops the oldest", resilience.FIFO, resilience.DropOldest,
			[]arrival{{"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}, {"e", 0}},
			[]string{"a", "c", "d", "e"},
			[]string{"b"},
		},
		{
			"lifo drops the oldest", resilience.LIFO, resilience.DropOldest,
			[]arrival{{"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}, {"e", 0}},
			[]string{"a", "e", "d", "c"},
			[]string{"b"},
		},
		{
			"priority drops the lowest, of these the oldest", resilience.ByPriority, resilience.DropOldest,
			[]arrival{{"a", 0}, {"b", 2}, {"c", 1}, {"d", 1}, {"e", 2}, {"f", 1}},
			[]string{"a", "b", "e", "f"},
			[]string{"c", "d"},
		},
		{
			"priority drops a newcomer below all", resilience.ByPriority, resilience.DropOldest,
			[]arrival{{"a", 0}, {"b", 2}, {"c", 1}, {"d", 1}, {"e", 0}},
			[]string{"a", "b", "c", "d"},
			[]string{"e"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := must(resilience.NewBulkhead(resilience.BulkheadConfig{
					Max: 1, Queue: 3, Order: tt.order, Overflow: tt.overflow,
				}))
				c := newCaller(b)
				for _, a := range tt.arrivals {
					c.call(resilience.WithPriority(t.Context(), a.priority), a.name, time.Second)
				}
				var rejected []string
				for _, a := range tt.arrivals {
					if errors.Is(c.err(a.name), resilience.ErrFull) { // at once, not later
						rejected = append(rejected, a.name)
					}
				}
				c.wg.Wait()
				if !slices.Equal(c.ran, tt.ran) || !slices.Equal(rejected, tt.rejected) {
					t.Errorf("ran %v, rejected %v", c.ran, rejected)
				}
				if s := b.Stats(); s.Running != 0 || s.Waiting != 0 || int(s.Rejected) != len(tt.rejected) {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

func TestBulkheadTellsOfRejections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var b *resilience.Bulkhead
		var mu sync.Mutex
		var events []resilience.Event
		b = must(resilience.NewBulkhead(resilience.BulkheadConfig{
			Name: "db", Max: 1, Queue: 1, MaxWait: time.Second,
			Observer: resilience.ObserverFunc(func(ctx context.Context, e resilience.Event) {
				_ = b.Stats() // no lock is held
				if ctx.Value(key{}) != "mine" {
					t.Error("not the context of the call")
				}
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			}),
		}))
		c := newCaller(b)
		ctx := context.WithValue(t.Context(), key{}, "mine")
		c.call(ctx, "runs", time.Minute)
		c.call(ctx, "waits", 0)
		c.call(ctx, "rejected", 0)
		c.wg.Wait()
		if len(events) != 2 {
			t.Fatalf("events = %+v", events)
		}
		for i, name := range []string{"rejected", "waits"} {
			e := events[i]
			if e.Kind != resilience.EventRejected || e.Policy != "bulkhead" || e.Name != "db" || e.Err != c.err(name) {
				t.Errorf("event %d = %+v", i, e)
			}
		}
		if events[1].Duration != time.Second {
			t.Errorf("waited %v", events[1].Duration)
		}
	})
}

func TestBulkheadUpdate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := resilience.BulkheadConfig{Name: "db", Max: 1, Queue: 10}
		b := must(resilience.NewBulkhead(cfg))
		update := func(change func(*resilience.BulkheadConfig)) {
			t.Helper()
			change(&cfg)
			if err := b.Update(cfg); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		c := newCaller(b)
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			c.call(t.Context(), name, time.Second)
		}
		update(func(c *resilience.BulkheadConfig) { c.Max = 3 }) // two more at once
		if s := b.Stats(); s.Max != 3 || s.Running != 3 || s.Waiting != 3 {
			t.Errorf("raised: %+v", s)
		}
		update(func(c *resilience.BulkheadConfig) { c.Max = 1 }) // nobody is thrown out
		if s := b.Stats(); s.Running != 3 {
			t.Errorf("lowered: %+v", s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := b.Stats(); s.Running != 1 || s.Waiting != 2 {
			t.Errorf("after those ended: %+v", s)
		}
		update(func(c *resilience.BulkheadConfig) { c.Max, c.MinSpacing = 10, time.Minute })
		start := time.Now()
		c.call(t.Context(), "g", 0)
		c.wg.Wait()
		if took := time.Since(start); took != 2*time.Minute { // behind two that waited
			t.Errorf("spaced start after %v", took)
		}
		update(func(c *resilience.BulkheadConfig) { c.MinSpacing = 0 })
		start = time.Now()
		for range 5 {
			if err := do(t, b, works); err != nil || time.Since(start) != 0 {
				t.Errorf("without spacing: %v after %v", err, time.Since(start))
			}
		}
		for field, bad := range map[string]resilience.BulkheadConfig{
			"Max":   {Name: "db"},
			"Name":  {Name: "other", Max: 1},
			"Order": {Name: "db", Max: 1, Order: resilience.LIFO},
		} {
			if err := b.Update(bad); err == nil || !strings.Contains(err.Error(), `bulkhead "db": `+field+" = ") {
				t.Errorf("%s: %v", field, err)
			}
		}
		if b.Name() != "db" || b.Stats().Max != 10 {
			t.Errorf("a refused update changed something: %v", b.Describe())
		}
	})
}

// Built outside a bubble, where the clock shows another year.
func TestBulkheadFromAnotherClock(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1, Queue: 1, MinSpacing: time.Second}))
	if err := do(t, b, works); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for i := range 3 {
			if err := do(t, b, works); err != nil || time.Since(start) != time.Duration(i)*time.Second {
				t.Errorf("call %d: %v after %v", i, err, time.Since(start))
			}
		}
	})
}

// Whatever callers do, no more than Max run, starts keep their distance, nobody
// waits beside a place that could be had, and in the end everything is given back.
func TestBulkheadKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		cfg := resilience.BulkheadConfig{
			Max:        rapid.IntRange(1, 3).Draw(rt, "max"),
			Queue:      rapid.IntRange(0, 4).Draw(rt, "queue"),
			MaxWait:    time.Duration(rapid.IntRange(0, 5).Draw(rt, "max wait")) * time.Millisecond,
			MinSpacing: time.Duration(rapid.IntRange(0, 3).Draw(rt, "spacing")) * time.Millisecond,
			Order:      resilience.Order(rapid.IntRange(0, 2).Draw(rt, "order")),
			Overflow:   resilience.Overflow(rapid.IntRange(0, 1).Draw(rt, "overflow")),
		}
		type plan struct{ pause, took, patience, priority int }
		plans := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) plan {
			n := func(name string, most int) int { return rapid.IntRange(0, most).Draw(rt, name) }
			return plan{n("pause", 3), n("took", 4), n("patience", 8), n("priority", 2)}
		}), 1, 30).Draw(rt, "calls")

		synctest.Test(t, func(t *testing.T) {
			b := must(resilience.NewBulkhead(cfg))
			var running, ran, rejected atomic.Int64
			var mu sync.Mutex
			var last time.Time
			var wg sync.WaitGroup
			for _, p := range plans {
				time.Sleep(time.Duration(p.pause) * time.Millisecond)
				ctx := resilience.WithPriority(t.Context(), p.priority)
				if p.patience > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Duration(p.patience)*time.Millisecond)
					defer cancel()
				}
				wg.Go(func() {
					err := resilience.Do(ctx, b, func(context.Context) error {
						if n := running.Add(1); n > int64(cfg.Max) {
							t.Errorf("%d at once", n)
						}
						mu.Lock()
						if d := time.Since(last); !last.IsZero() && d < cfg.MinSpacing {
							t.Errorf("starts %v apart", d)
						}
						last = time.Now()
						mu.Unlock()
						ran.Add(1)
						time.Sleep(time.Duration(p.took) * time.Millisecond)
						running.Add(-1)
						return nil
					})
					if err != nil {
						rejected.Add(1)
					}
				})
				synctest.Wait()
				s := b.Stats()
				mu.Lock()
				overdue := cfg.MinSpacing == 0 || time.Since(last) > cfg.MinSpacing
				mu.Unlock()
				if s.Waiting > 0 && s.Running < s.Max && overdue {
					t.Errorf("a place is free and %d wait: %+v, last start %v ago, %+v", s.Waiting, s, time.Since(last), cfg)
				}
				if s.Waiting > cfg.Queue {
					t.Errorf("%d wait, %d may", s.Waiting, cfg.Queue)
				}
			}
			wg.Wait()
			s := b.Stats()
			if s.Running != 0 || s.Waiting != 0 || int(ran.Load()+rejected.Load()) != len(plans) || s.Rejected != uint64(rejected.Load()) {
				t.Errorf("ran %d, rejected %d of %d: %+v", ran.Load(), rejected.Load(), len(plans), s)
			}
		})
		if t.Failed() {
			rt.Fatalf("%+v", cfg)
		}
	})
}

func FuzzBulkheadConfig(f *testing.F) {
	f.Add(1, 0, int64(0), int64(0), uint8(0), uint8(0))
	f.Add(math.MaxInt, math.MaxInt, int64(math.MaxInt64), int64(math.MaxInt64), uint8(2), uint8(1))
	f.Add(-1, -1, int64(-1), int64(-1), uint8(3), uint8(2))
	f.Fuzz(func(t *testing.T, most, queue int, maxWait, spacing int64, order, overflow uint8) {
		b, err := resilience.NewBulkhead(resilience.BulkheadConfig{
			Max: most, Queue: queue, MaxWait: time.Duration(maxWait), MinSpacing: time.Duration(spacing),
			Order: resilience.Order(order), Overflow: resilience.Overflow(overflow),
		})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "resilience: configure bulkhead: ") {
				t.Errorf("error = %v", err)
			}
			return
		}
		if err := do(t, b, works); err != nil {
			t.Errorf("the first call: %v", err)
		}
		if s := b.Stats(); s != (resilience.BulkheadStats{Max: most}) {
			t.Errorf("stats = %+v", s)
		}
	})
}

// gone is the context of a caller that leaves without waking anybody up.
type gone struct {
	context.Context //nolint:containedctx // it is one
	left            atomic.Bool
}

func (g *gone) Done() <-chan struct{} { return nil }

func (g *gone) Err() error {
	if g.left.Load() {
		return context.Canceled
	}
	return nil
}

// A caller that finds out that it is gone only when its turn has come passes on
// both its place and its turn.
func TestBulkheadPassesOnATurnThatCameTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := must(resilience.NewBulkhead(resilience.BulkheadConfig{Max: 5, Queue: 5, MinSpacing: 100 * time.Millisecond}))
		late := &gone{Context: t.Context()}
		c := newCaller(b)
		c.call(t.Context(), "a", 0)
		c.call(late, "b", 0)
		c.call(t.Context(), "c", 0)
		c.call(t.Context(), "d", 0)
		late.left.Store(true)
		c.wg.Wait()
		want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}
		if !slices.Equal(c.ran, []string{"a", "c", "d"}) || !slices.Equal(c.at, want) {
			t.Errorf("ran %v at %v", c.ran, c.at)
		}
		if err := c.err("b"); !errors.Is(err, context.Canceled) || b.Stats().Running != 0 {
			t.Errorf("b: %v, %+v", err, b.Stats())
		}
	})
}
