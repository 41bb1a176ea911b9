package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
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

// notFound is an answer, if an unwelcome one.
type notFound struct{}

func (notFound) Error() string   { return "not found" }
func (notFound) StatusCode() int { return 404 }

// origin counts loads; the value of a load is its number.
type origin struct {
	loads atomic.Int64
	took  atomic.Int64 // a time.Duration
	err   atomic.Pointer[error]
}

func slowOrigin(took time.Duration) *origin {
	o := &origin{}
	o.took.Store(int64(took))
	return o
}

func (o *origin) fail(err error) { o.err.Store(&err) }

func (o *origin) load(ctx context.Context, _ string) (int, error) {
	n := int(o.loads.Add(1))
	if took := time.Duration(o.took.Load()); took > 0 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(took):
		}
	}
	if err := o.err.Load(); err != nil && *err != nil {
		return 0, *err
	}
	return n, nil
}

func cached(o *origin, cfg resilience.CachedConfig) *resilience.Cached[string, int] {
	return must(resilience.NewCached(o.load, cfg))
}

func wantGet(t *testing.T, c *resilience.Cached[string, int], key string, want int, wantErr error) {
	t.Helper()
	if got, err := c.Get(t.Context(), key); got != want || !errors.Is(err, wantErr) {
		t.Errorf("Get(%q) = %d, %v; want %d, %v", key, got, err, want, wantErr)
	}
}

func TestCachedKeepsValuesForTheirTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{}
		c := cached(o, resilience.CachedConfig{Name: "price", TTL: time.Minute})
		wantGet(t, c, "a", 1, nil)
		wantGet(t, c, "b", 2, nil)
		time.Sleep(time.Minute - 1)
		wantGet(t, c, "a", 1, nil)
		time.Sleep(time.Nanosecond)
		wantGet(t, c, "a", 3, nil)
		o.fail(errDown)
		wantGet(t, c, "b", 0, errDown) // no stale value was asked for
		wantGet(t, c, "b", 0, errDown) // nor are failures kept
		if s := c.Stats(); s != (resilience.CachedStats{Size: 2, Hits: 1, Misses: 5, Loads: 5, Failed: 2}) || c.Name() != "price" {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestCachedEvictsWhatIsLeastUsed(t *testing.T) {
	t.Parallel()
	o := &origin{}
	c := cached(o, resilience.CachedConfig{TTL: time.Hour, Size: 2})
	wantGet(t, c, "a", 1, nil)
	wantGet(t, c, "b", 2, nil)
	wantGet(t, c, "a", 1, nil)
	wantGet(t, c, "c", 3, nil) // b goes
	wantGet(t, c, "a", 1, nil)
	wantGet(t, c, "b", 4, nil) // c goes
	wantGet(t, c, "a", 1, nil)
	if s := c.Stats(); s.Size != 2 || s.Evictions != 2 {
		t.Errorf("stats = %+v", s)
	}
}

func TestCachedStaleIfError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{}
		var events []resilience.Event
		c := cached(o, resilience.CachedConfig{
			Name: "price", TTL: time.Minute, StaleIfError: time.Hour, NegativeTTL: time.Second,
			Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) { events = append(events, e) }),
		})
		wantGet(t, c, "a", 1, nil)
		time.Sleep(time.Minute)
		o.fail(errDown)
		wantGet(t, c, "a", 1, nil)
		wantGet(t, c, "unknown", 0, errDown)
		if len(events) != 1 || events[0] != (resilience.Event{
			Kind: resilience.EventFallback, Policy: "cache", Name: "price", Err: errDown,
		}) {
			t.Errorf("events = %+v", events)
		}
		o.fail(&resilience.OpenError{}) // a rejection further in
		wantGet(t, c, "a", 1, nil)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gave up: %v", err)
		}
		o.took.Store(int64(time.Hour))
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := c.Get(ctx, "a"); got != 1 || err != nil {
			t.Errorf("a callee that hangs: %d, %v", got, err)
		}
		o.took.Store(int64(0))
		if s := c.Stats(); s.Rescued != 3 {
			t.Errorf("stats = %+v", s)
		}

		o.fail(notFound{}) // that is an answer, which no old value may hide
		wantGet(t, c, "a", 0, notFound{})
		o.fail(errDown)
		wantGet(t, c, "a", 0, notFound{}) // kept
		time.Sleep(time.Second)
		wantGet(t, c, "a", 0, errDown) // and the value is gone

		o.fail(nil)
		value := int(o.loads.Load()) + 1
		wantGet(t, c, "a", value, nil)
		o.fail(errDown)
		time.Sleep(time.Minute + time.Hour - 1)
		wantGet(t, c, "a", value, nil)
		time.Sleep(time.Nanosecond)
		wantGet(t, c, "a", 0, errDown)
	})
}

func TestCachedAnswerWithoutNegativeTTLDropsTheValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{}
		c := cached(o, resilience.CachedConfig{TTL: time.Minute, StaleIfError: time.Hour})
		wantGet(t, c, "a", 1, nil)
		time.Sleep(time.Minute)
		o.fail(notFound{})
		wantGet(t, c, "a", 0, notFound{})
		o.fail(errDown)
		wantGet(t, c, "a", 0, errDown)
		if s := c.Stats(); s.Size != 0 || s.Loads != 3 || s.Failed != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestCachedStaleWhileRevalidate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := slowOrigin(time.Second)
		c := cached(o, resilience.CachedConfig{TTL: time.Minute, StaleWhileRevalidate: time.Minute, RefreshTimeout: 10 * time.Second})
		wantGet(t, c, "a", 1, nil)
		time.Sleep(time.Minute)
		start := time.Now()
		for range 5 { // nobody waits, and one load is enough
			wantGet(t, c, "a", 1, nil)
		}
		if time.Since(start) != 0 {
			t.Errorf("waited %v", time.Since(start))
		}
		time.Sleep(time.Second + 1)
		wantGet(t, c, "a", 2, nil)
		if n := o.loads.Load(); n != 2 {
			t.Errorf("%d loads", n)
		}
		time.Sleep(2 * time.Minute) // too old to be shown
		wantGet(t, c, "a", 3, nil)

		o.took.Store(int64(time.Hour)) // hangs: RefreshTimeout ends it, the next Get tries again
		time.Sleep(time.Minute)
		wantGet(t, c, "a", 3, nil)
		time.Sleep(9 * time.Second)
		wantGet(t, c, "a", 3, nil)
		if n := o.loads.Load(); n != 4 {
			t.Errorf("%d loads", n)
		}
		time.Sleep(2 * time.Second)
		wantGet(t, c, "a", 3, nil)
		synctest.Wait()
		if n := o.loads.Load(); n != 5 {
			t.Errorf("%d loads", n)
		}

		start = time.Now()
		for range 2 {
			if err := c.Close(); err != nil || time.Since(start) != 0 {
				t.Errorf("Close: %v after %v", err, time.Since(start))
			}
		}
		wantGet(t, c, "a", 3, nil) // still, but nothing is loaded for it
		synctest.Wait()
		if n := o.loads.Load(); n != 5 {
			t.Errorf("%d loads after Close", n)
		}
	})
}

func TestCachedRefreshSurvivesPanicAndGoexit(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var bad atomic.Bool
				c := must(resilience.NewCached(func(context.Context, string) (int, error) {
					if bad.Load() {
						end()
					}
					return 1, nil
				}, resilience.CachedConfig{TTL: time.Second, StaleWhileRevalidate: time.Hour}))
				wantGet(t, c, "a", 1, nil)
				time.Sleep(time.Second)
				bad.Store(true)
				wantGet(t, c, "a", 1, nil)
				synctest.Wait()
				if s := c.Stats(); s.Failed != 1 || s.Loads != 2 {
					t.Errorf("stats = %+v", s)
				}
				bad.Store(false)
				wantGet(t, c, "a", 1, nil)
				synctest.Wait()
				if s := c.Stats(); s.Failed != 1 || s.Loads != 3 {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

func TestCachedMissesShareOneLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := slowOrigin(time.Second)
		c := cached(o, resilience.CachedConfig{TTL: time.Minute})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if n, err := c.Bind("a")(context.Background()); n != 1 || err != nil {
					t.Errorf("got %d, %v", n, err)
				}
			})
		}
		wg.Wait()
		if s := c.Stats(); s.Loads != 1 || s.Misses != 100 {
			t.Errorf("stats = %+v", s)
		}
	})
}

// What Put and Forget say is newer than a load that was under way.
func TestCachedPutAndForgetOutdoALoadUnderWay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*resilience.Cached[string, int])
		then   int
	}{
		{"Put", func(c *resilience.Cached[string, int]) { c.Put("a", 42) }, 42},
		{"Forget", func(c *resilience.Cached[string, int]) { c.Forget("a") }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := slowOrigin(time.Second)
				c := cached(o, resilience.CachedConfig{TTL: time.Minute})
				var wg sync.WaitGroup
				wg.Go(func() {
					if n, err := c.Get(context.Background(), "a"); n != 1 || err != nil {
						t.Errorf("who waits for the load got %d, %v", n, err)
					}
				})
				time.Sleep(time.Second / 2)
				tt.change(c)
				wg.Wait()
				wantGet(t, c, "a", tt.then, nil)
				wantGet(t, c, "a", tt.then, nil)
			})
		})
	}
	c := cached(&origin{}, resilience.CachedConfig{TTL: time.Minute})
	wantGet(t, c, "a", 1, nil)
	c.Forget("a")
	c.Forget("never seen")
	wantGet(t, c, "a", 2, nil)
}

func TestCachedAbandonedLoadIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := slowOrigin(time.Second)
		c := cached(o, resilience.CachedConfig{TTL: time.Minute, NegativeTTL: time.Minute,
			Classify: func(context.Context, error) resilience.Outcome { return resilience.Success }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		synctest.Wait()
		wantGet(t, c, "a", 2, nil)
	})
}

func TestCachedJitterShortensTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := cached(&origin{}, resilience.CachedConfig{
			TTL: 100 * time.Second, Jitter: 0.2, Rand: func() float64 { return 0.5 },
		})
		wantGet(t, c, "a", 1, nil)
		time.Sleep(90*time.Second - 1)
		wantGet(t, c, "a", 1, nil)
		time.Sleep(time.Nanosecond)
		wantGet(t, c, "a", 2, nil)
	})
}

// Against a model that keeps everything: never more than Size keys, never a value
// older than its time, never another key's, and the least used key goes.
func TestCachedAgainstAModel(t *testing.T) {
	t.Parallel()
	type loaded struct {
		n  int
		at time.Time
	}
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 4).Draw(rt, "size")
		type step struct {
			op, key, pause int
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				rapid.IntRange(0, 9).Draw(rt, "op"), rapid.IntRange(0, 6).Draw(rt, "key"), rapid.IntRange(0, 3).Draw(rt, "pause"),
			}
		}), 1, 60).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			n := 0
			c := must(resilience.NewCached(func(context.Context, int) (int, error) { n++; return n, nil },
				resilience.CachedConfig{Size: size, TTL: 10 * time.Second}))
			model := map[int]loaded{}
			var recent []int // latest last
			put := func(key, value int) {
				if _, ok := model[key]; !ok && len(model) == size {
					delete(model, recent[0])
					recent = recent[1:]
				}
				model[key] = loaded{value, time.Now()}
			}
			use := func(key int) {
				recent = append(slices.DeleteFunc(recent, func(k int) bool { return k == key }), key)
			}
			for _, s := range steps {
				time.Sleep(time.Duration(s.pause) * time.Second)
				switch s.op {
				case 0:
					c.Put(s.key, -s.key)
					put(s.key, -s.key)
					use(s.key)
				case 1:
					c.Forget(s.key)
					delete(model, s.key)
					recent = slices.DeleteFunc(recent, func(k int) bool { return k == s.key })
				default:
					if l, ok := model[s.key]; !ok || time.Since(l.at) >= 10*time.Second {
						put(s.key, n+1)
					}
					use(s.key)
					if got, err := c.Get(context.Background(), s.key); err != nil || got != model[s.key].n {
						t.Fatalf("Get(%d) = %d, %v; want %d", s.key, got, err, model[s.key].n)
					}
				}
				if got := c.Stats().Size; got != len(model) || got > size {
					t.Fatalf("%d keys, want %d", got, len(model))
				}
			}
		})
	})
}

func TestCachedRace(t *testing.T) {
	t.Parallel()
	c := must(resilience.NewCached(func(_ context.Context, key int) (int, error) {
		if key%5 == 0 {
			return 0, errDown
		}
		return key, nil
	}, resilience.CachedConfig{
		Size: 8, TTL: 20 * time.Microsecond, StaleWhileRevalidate: 20 * time.Microsecond, StaleIfError: time.Second, Jitter: 1,
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				key := (i + j) % 16
				switch j % 10 {
				case 0:
					c.Forget(key)
				case 1:
					c.Put(key, key)
				default:
					if n, err := c.Get(context.Background(), key); err == nil && n != key {
						t.Errorf("got %d for %d", n, key)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Size > 8 {
		t.Errorf("stats = %+v", s)
	}
}

func TestCachedHitDoesNotAllocate(t *testing.T) {
	ctx := context.Background()
	c := cached(&origin{}, resilience.CachedConfig{TTL: time.Hour})
	if got := testing.AllocsPerRun(200, func() { _, _ = c.Get(ctx, "a") }); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

func FuzzCachedConfig(f *testing.F) {
	f.Add(0, int64(1), 0.0, int64(0), int64(0), int64(0), int64(0))
	f.Add(1, int64(math.MaxInt64), 1.0, int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64))
	f.Add(-1, int64(-1), math.NaN(), int64(-1), int64(-1), int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, size int, ttl int64, jitter float64, negative, ifError, revalidate, refresh int64) {
		o := &origin{}
		c, err := resilience.NewCached(o.load, resilience.CachedConfig{
			Size: size, TTL: time.Duration(ttl), Jitter: jitter, NegativeTTL: time.Duration(negative),
			StaleIfError: time.Duration(ifError), StaleWhileRevalidate: time.Duration(revalidate), RefreshTimeout: time.Duration(refresh),
		})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "resilience: configure cache: ") {
				t.Errorf("error = %v", err)
			}
			return
		}
		for i := range 3 {
			if _, err := c.Get(t.Context(), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		}
		if ttl > int64(time.Hour) && jitter == 0 && (size == 0 || size > 2) {
			wantGet(t, c, "0", 1, nil) // still fresh, whatever the durations add up to
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// hooked is a context that does something when it is first asked whether it is done.
type hooked struct {
	context.Context //nolint:containedctx // it is one
	once            sync.Once
	hook            func()
}

func (h *hooked) Err() error {
	h.once.Do(h.hook)
	return h.Context.Err()
}

// What somebody else stored between a miss and its load makes the load needless.
func TestCachedLooksAgainBeforeItLoads(t *testing.T) {
	t.Parallel()
	o := &origin{}
	c := cached(o, resilience.CachedConfig{TTL: time.Hour})
	ctx := &hooked{Context: t.Context(), hook: func() { c.Put("a", 42) }}
	if n, err := c.Get(ctx, "a"); n != 42 || err != nil || o.loads.Load() != 0 {
		t.Errorf("got %d, %v after %d loads", n, err, o.loads.Load())
	}
}
