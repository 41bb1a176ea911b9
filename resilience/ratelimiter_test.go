package resilience_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func newLimiter(t *testing.T, cfg resilience.RateConfig) *resilience.RateLimiter {
	t.Helper()
	l, err := resilience.NewRateLimiter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func drain(l *resilience.RateLimiter, tries int) (n int) {
	for range tries {
		if l.Allow(context.Background()) {
			n++
		}
	}
	return n
}

func TestRateLimiterNeverExceedsBurstAtOneInstant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 1e6, Burst: 3})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { drain(l, 100) })
		}
		wg.Wait()
		if s := l.Stats(); s.Allowed != 3 || s.Rejected != 997 {
			t.Errorf("allowed %d, rejected %d of 1000, want 3 and 997", s.Allowed, s.Rejected)
		}
	})
}

// Rates that do not divide their period must not drift.
func TestRateLimiterIsExactOverAnHour(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rate int
		per  time.Duration
		want int // per hour, plus the burst of 1
	}{
		"3 per second":         {3, time.Second, 10801},
		"7 per minute":         {7, time.Minute, 421},
		"11 per 13 s":          {11, 13 * time.Second, 3600*11/13 + 1},
		"997 per 7 s":          {997, 7 * time.Second, 3600*997/7 + 1},
		"1 per 59m59.999999s":  {1, time.Hour - time.Microsecond, 2},
		"1000003 per 1000003s": {1000003, 1000003 * time.Second, 3601},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, resilience.RateConfig{Rate: tt.rate, Per: tt.per, Burst: 1})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour+1)
				defer cancel()
				n := 0
				for l.Wait(ctx) == nil {
					n++
				}
				if n < tt.want-1 || n > tt.want+1 {
					t.Errorf("%d permits in an hour, want %d", n, tt.want)
				}
			})
		})
	}
}

// A caller that waits as long as it was told gets its permit, and not earlier.
func TestRetryAfterIsExact(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]resilience.RateConfig{
		"gcra":                 {Rate: 7, Burst: 3},
		"gcra, fast":           {Rate: 999_999_937, Burst: 1},
		"gcra, once a day":     {Rate: 1, Per: 24 * time.Hour},
		"fixed window":         {Rate: 7, Algorithm: resilience.FixedWindow},
		"fixed window, minute": {Rate: 1, Per: time.Minute, Algorithm: resilience.FixedWindow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(t, cfg)
				for range 20 {
					for l.Allow(t.Context()) {
					}
					d, err := l.Take(t.Context(), "", 1)
					if err != nil || d.Allowed || d.Remaining != 0 || d.RetryAfter <= 0 {
						t.Fatalf("empty: %+v, %v", d, err)
					}
					time.Sleep(d.RetryAfter - 1)
					if l.Allow(t.Context()) {
						t.Fatalf("allowed before %v", d.RetryAfter)
					}
					time.Sleep(time.Nanosecond)
					if !l.Allow(t.Context()) {
						t.Fatalf("not allowed after %v", d.RetryAfter)
					}
				}
			})
		})
	}
}

func TestFixedWindowsBeginAtMultiplesOfTheirLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(900*time.Millisecond - time.Duration(time.Now().Nanosecond()))
		l := newLimiter(t, resilience.RateConfig{Rate: 5, Algorithm: resilience.FixedWindow})
		if n := drain(l, 10); n != 5 {
			t.Fatalf("%d in the first window, want 5", n)
		}
		time.Sleep(100*time.Millisecond - 1)
		if n := drain(l, 10); n != 0 {
			t.Fatalf("%d before the border, want 0", n)
		}
		time.Sleep(time.Nanosecond)
		if n := drain(l, 10); n != 5 {
			t.Errorf("%d after the border, want 5", n)
		}
	})
}

func TestTakeTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 10, Burst: 5})
		steps := []struct {
			sleep time.Duration
			n     int
			want  resilience.RateDecision
		}{
			{0, 0, resilience.RateDecision{Allowed: true, Limit: 5, Remaining: 5}},
			{0, 3, resilience.RateDecision{Allowed: true, Limit: 5, Remaining: 2, ResetAfter: 300 * time.Millisecond}},
			{0, 3, resilience.RateDecision{Limit: 5, Remaining: 2, RetryAfter: 100 * time.Millisecond, ResetAfter: 300 * time.Millisecond}},
			{50 * time.Millisecond, 0, resilience.RateDecision{Allowed: true, Limit: 5, Remaining: 2, ResetAfter: 250 * time.Millisecond}},
			{time.Second, 5, resilience.RateDecision{Allowed: true, Limit: 5, ResetAfter: 500 * time.Millisecond}},
		}
		for i, s := range steps {
			time.Sleep(s.sleep)
			if got, err := l.Take(t.Context(), "user", s.n); err != nil || got != s.want {
				t.Errorf("step %d: %+v, %v, want %+v", i, got, err, s.want)
			}
		}
		for _, n := range []int{-1, 6, math.MaxInt} {
			if _, err := l.Take(t.Context(), "user", n); !errors.Is(err, resilience.ErrRateLimited) {
				t.Errorf("%d permits: error %v", n, err)
			}
		}
	})
}

func TestRunWaitsUpToMaxWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Name: "search", Rate: 1, MaxWait: 2 * time.Second})
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var rejected int
		for range 5 {
			wg.Go(func() {
				if err := do(t, l, works); err != nil {
					mu.Lock()
					defer mu.Unlock()
					rejected++
					var limited *resilience.RateLimitedError
					if !errors.As(err, &limited) || limited.After != 3*time.Second || !limited.NotExecuted() || !limited.Retryable() {
						t.Errorf("error %v", err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 2*time.Second || rejected != 2 {
			t.Errorf("%d rejected after %v, want 2 after 2s", rejected, took)
		}
		if s := l.Stats(); s.Waited != 2 || s.WaitTime != 3*time.Second || s.Allowed != 3 || s.Rejected != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Defect 16 of x/time/rate: the error of a wait that cannot end in time is untyped.
func TestWaitThatCannotFitTheDeadlineIsNotBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 1})
		l.Allow(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := l.Wait(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, resilience.ErrRejected) || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		var limited *resilience.RateLimitedError
		if !errors.As(err, &limited) || limited.Retryable() {
			t.Errorf("%v is retryable", err)
		}
		time.Sleep(time.Second)
		if !l.Allow(t.Context()) {
			t.Error("the wait that was not begun took a permit")
		}
	})
}

func TestCancelledWaitGivesItsPermitBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 1})
		l.Allow(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		if err := l.Wait(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, resilience.ErrRateLimited) {
			t.Errorf("error %v", err)
		}
		time.Sleep(500 * time.Millisecond)
		if !l.Allow(t.Context()) {
			t.Error("the permit is gone")
		}
		if err := do(t, l, func(context.Context) error { t.Error("ran"); return nil }); !errors.Is(err, resilience.ErrRateLimited) {
			t.Errorf("error %v", err)
		}
		if err := l.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("dead context: error %v", err)
		}
	})
}

func TestReservationsAreGivenBackAsFarAsLaterOnesAllow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 1, Burst: 3})
		delays := func(rs ...*resilience.Reservation) {
			t.Helper()
			for i, want := range []time.Duration{0, 3 * time.Second, 4 * time.Second} {
				if rs[i].Delay() != want || !rs[i].OK() {
					t.Errorf("reservation %d: delay %v, want %v", i, rs[i].Delay(), want)
				}
			}
		}
		first, second, third := l.Reserve(3), l.Reserve(3), l.Reserve(1)
		delays(first, second, third)
		first.Cancel() // used: nothing to give back
		second.Cancel()
		second.Cancel()
		// Of the three permits one stands behind the third reservation.
		if got := l.Reserve(1); got.Delay() != 3*time.Second {
			t.Errorf("after the cancellation: delay %v, want 3s", got.Delay())
		}
		if r := l.Reserve(4); r.OK() || !errors.Is(r.Err(), resilience.ErrRateLimited) || r.Delay() != 0 {
			t.Errorf("more than the burst: %v", r.Err())
		}
	})
}

func TestUpdateKeepsWhatWasLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 10, Burst: 10, Key: func(ctx context.Context) string {
			key, _ := ctx.Value(keyOf{}).(string)
			return key
		}})
		user := context.WithValue(t.Context(), keyOf{}, "user")
		for _, ctx := range []context.Context{t.Context(), user} {
			if !l.AllowN(ctx, 7) {
				t.Fatal("not allowed")
			}
		}
		for _, step := range []struct {
			limit resilience.RateLimit
			want  int
		}{
			{resilience.RateLimit{Rate: 100, Burst: 100}, 3},
			{resilience.RateLimit{Rate: 7, Per: time.Minute, Burst: 2}, 2},
			{resilience.RateLimit{Rate: 5, Algorithm: resilience.FixedWindow}, 2},
		} {
			if err := l.Update(step.limit); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"", "user"} {
				if d, err := l.Take(t.Context(), key, 0); err != nil || d.Remaining != step.want {
					t.Errorf("%+v, key %q: %d left, want %d (%v)", step.limit, key, d.Remaining, step.want, err)
				}
			}
		}
		if err := l.Update(resilience.RateLimit{}); err == nil {
			t.Error("a limit of nothing was taken")
		}
		if s := l.Stats(); s.Allowed != 2+6 {
			t.Errorf("allowed %d, want 8", s.Allowed)
		}
	})
}

type keyOf struct{}

// No grant is lost or doubled by an Update at the same time, and no count either.
func TestUpdateWhileInUse(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, resilience.RateConfig{Rate: 1, Per: time.Hour, Burst: 5000})
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for range 4 {
		wg.Go(func() {
			n := drain(l, 2000)
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	for range 200 {
		if err := l.Update(l.Limit()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if s := l.Stats(); total != 5000 || s.Allowed != 5000 || s.Rejected != 3000 {
		t.Errorf("%d granted, stats %+v, want 5000 and 3000 rejected", total, s)
	}
}

func TestKeysAreBoundedAndFullOnesGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(t, resilience.RateConfig{Rate: 1, Burst: 2, MaxKeys: 3, IdleTTL: time.Hour})
		take := func(key string) int {
			d, err := l.Take(t.Context(), key, 1)
			if err != nil {
				t.Fatal(err)
			}
			return d.Remaining
		}
		take("a")
		time.Sleep(10 * time.Second) // a is full again, b and c are not
		take("b")
		take("c")
		take("d")
		if s := l.Stats(); s.Keys != 3 || s.Evicted != 0 {
			t.Errorf("stats %+v, want the full key gone and nothing lost", s)
		}
		if left := take("b"); left != 0 {
			t.Errorf("b has %d left, want 0: it was forgotten", left)
		}
		take("e") // c is the one unused longest
		if s := l.Stats(); s.Keys != 3 || s.Evicted != 1 {
			t.Errorf("stats %+v, want one key lost", s)
		}
		time.Sleep(time.Hour)
		take("f")
		if s := l.Stats(); s.Keys != 1 {
			t.Errorf("%d keys after an hour, want 1", s.Keys)
		}
	})
}

type failingStore struct {
	err   error
	calls int
	wait  time.Duration
}

func (s *failingStore) Take(ctx context.Context, key string, _ resilience.RateLimit, _ int) (resilience.RateDecision, error) {
	s.calls++
	if key != "api/user" {
		return resilience.RateDecision{}, errors.New("wrong key " + key)
	}
	if s.wait > 0 {
		select {
		case <-time.After(s.wait):
		case <-ctx.Done():
			return resilience.RateDecision{}, ctx.Err()
		}
	}
	return resilience.RateDecision{Allowed: s.err == nil}, s.err
}

func TestStoreFailures(t *testing.T) {
	t.Parallel()
	for mode, want := range map[resilience.StoreFailure]int{
		resilience.StoreFailOpen: 100, resilience.StoreFailClosed: 0, resilience.StoreFailLocal: 5,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &failingStore{err: errDown}
				var told []resilience.Event
				l := newLimiter(t, resilience.RateConfig{
					Name: "api", Rate: 20, Store: store, OnStoreError: mode, LocalShare: 0.25,
					Key: func(context.Context) string { return "user" },
					Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
						if e.Kind == resilience.EventStoreFailed {
							told = append(told, e)
						}
					}),
				})
				if n := drain(l, 100); n != want {
					t.Errorf("%d of 100 allowed, want %d", n, want)
				}
				if store.calls != 1 || l.Stats().StoreErrors != 1 || len(told) != 1 || !errors.Is(told[0].Err, errDown) {
					t.Errorf("%d calls, %d errors, events %v: want one each", store.calls, l.Stats().StoreErrors, told)
				}
				if mode == resilience.StoreFailClosed {
					if _, err := l.Take(t.Context(), "user", 1); !errors.Is(err, errDown) {
						t.Errorf("error %v", err)
					}
				}
				time.Sleep(499 * time.Millisecond)
				drain(l, 10)
				if store.calls != 1 {
					t.Errorf("%d calls within the pause", store.calls)
				}
				time.Sleep(time.Millisecond)
				store.err = nil
				if n := drain(l, 50); n != 50 || store.calls != 51 {
					t.Errorf("recovered: %d of 50 allowed, %d calls", n, store.calls)
				}
			})
		})
	}
}

func TestOnlyCallersWithTimeSayThatTheStoreFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &failingStore{wait: time.Hour}
		l := newLimiter(t, resilience.RateConfig{Name: "api", Rate: 1, Store: store})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := l.Take(ctx, "user", 1); !errors.Is(err, context.Canceled) || l.Stats().StoreErrors != 0 {
			t.Errorf("cancelled: %v, %+v", err, l.Stats())
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Take(ctx, "user", 1); !errors.Is(err, context.DeadlineExceeded) || l.Stats().StoreErrors != 1 {
			t.Errorf("timed out: %v, %+v", err, l.Stats())
		}
	})
}

func TestRateLimiterBuiltOutsideTheBubble(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, resilience.RateConfig{Rate: 1, Burst: 2})
	w := newLimiter(t, resilience.RateConfig{Rate: 2, Algorithm: resilience.FixedWindow})
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []*resilience.RateLimiter{l, w} {
			if n := drain(l, 10); n != 2 {
				t.Errorf("%d allowed, want 2", n)
			}
		}
	})
}

func TestRateConfigErrors(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]resilience.RateConfig{
		"Rate = 0":                 {},
		"Rate = -1":                {Rate: -1},
		"Rate = 2000000000":        {Rate: 2e9},
		"Per = -1ns":               {Rate: 1, Per: -1},
		"Burst = -1":               {Rate: 1, Burst: -1},
		"Burst = 9000":             {Rate: 1, Per: 24 * time.Hour, Burst: 9000},
		"Burst = 2":                {Rate: 1, Burst: 2, Algorithm: resilience.FixedWindow},
		"Algorithm = 9":            {Rate: 1, Algorithm: 9},
		"MaxWait = -1ns":           {Rate: 1, MaxWait: -1},
		"MaxKeys = -1":             {Rate: 1, MaxKeys: -1},
		"IdleTTL = -1ns":           {Rate: 1, IdleTTL: -1},
		"OnStoreError = 3":         {Rate: 1, OnStoreError: 3},
		"LocalShare = NaN":         {Rate: 1, LocalShare: math.NaN()},
		"LocalShare = 1.5":         {Rate: 1, LocalShare: 1.5},
		`"": must be set with`:     {Rate: 1, Store: &failingStore{}},
		`rate-limiter "x": Rate =`: {Name: "x"},
	} {
		if _, err := resilience.NewRateLimiter(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: error %v, want it to say %q", cfg, err, field)
		}
	}
}

func TestRateLimiterAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	l := newLimiter(t, resilience.RateConfig{Rate: 1e9, Burst: 1e9})
	keyed := newLimiter(t, resilience.RateConfig{Rate: 1e9, Burst: 1e9, Key: func(context.Context) string { return "key" }})
	empty := newLimiter(t, resilience.RateConfig{Rate: 1, Per: time.Hour})
	empty.Allow(ctx)
	for name, call := range map[string]func(){
		"Allow":          func() { l.Allow(ctx) },
		"Allow rejected": func() { empty.Allow(ctx) },
		"Allow keyed":    func() { keyed.Allow(ctx) },
		"Wait":           func() { _ = l.Wait(ctx) },
		"Do":             func() { _ = resilience.Do(ctx, l, works) },
		"Take":           func() { _, _ = l.Take(ctx, "key", 1) },
	} {
		if got := testing.AllocsPerRun(200, call); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

// The text of a rejection goes to logs; a key may be an address.
func TestRejectionKeepsTheKeyOutOfItsText(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, resilience.RateConfig{Name: "api", Rate: 1, Key: func(context.Context) string { return "10.1.2.3" }})
	l.Allow(t.Context())
	err := do(t, l, works)
	var limited *resilience.RateLimitedError
	if !errors.As(err, &limited) || limited.Key != "10.1.2.3" || strings.Contains(err.Error(), "10.1.2.3") {
		t.Errorf("error %v", err)
	}
}

func FuzzRateConfig(f *testing.F) {
	f.Add(1, int64(time.Second), 1, uint8(0), 0.5, 1)
	f.Add(1<<40, int64(math.MaxInt64), math.MaxInt, uint8(1), 1.0, 3)
	f.Fuzz(func(t *testing.T, rate int, per int64, burst int, algorithm uint8, share float64, n int) {
		cfg := resilience.RateConfig{
			Name: "fuzz", Rate: rate, Per: time.Duration(per), Burst: burst, Algorithm: resilience.RateAlgorithm(algorithm),
			LocalShare: share, OnStoreError: resilience.StoreFailLocal, Store: &failingStore{err: errDown},
		}
		if _, err := resilience.NewRateLimiter(cfg); err != nil {
			return
		}
		cfg.Store = nil
		l := must(resilience.NewRateLimiter(cfg))
		limit := l.Limit()
		most := limit.Burst
		d, err := l.Take(t.Context(), "", n)
		if fits := n >= 0 && n <= most; fits != (err == nil) || fits != d.Allowed {
			t.Fatalf("%+v: take %d: %+v, %v", limit, n, d, err)
		}
		if d.Remaining < 0 || d.Remaining > most || d.RetryAfter < 0 || d.ResetAfter < 0 {
			t.Fatalf("%+v: take %d: %+v", limit, n, d)
		}
		if r := l.Reserve(1); r.Delay() < 0 || !r.OK() {
			t.Fatalf("%+v: reserve: %v, %v", limit, r.Delay(), r.Err())
		}
	})
}
