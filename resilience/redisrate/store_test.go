package redisrate_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/redisrate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, server string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(server)
	if err != nil {
		t.Fatal(err)
	}
	options.ContextTimeoutEnabled = true
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// newStore has a timeout that a loaded machine keeps.
func newStore(t *testing.T, cfg redisrate.Config) *redisrate.Store {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	s, err := redisrate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// spy counts script calls and logs what was answered, in Redis time.
type spy struct {
	redis.Scripter

	calls   atomic.Int64
	mu      sync.Mutex
	answers []answer
}

type answer struct {
	at      int64 // microseconds
	granted bool
}

func (s *spy) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	s.calls.Add(1)
	cmd := s.Scripter.EvalSha(ctx, sha, keys, args...)
	if reply, err := cmd.Int64Slice(); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers = append(s.answers, answer{reply[1], reply[0] == 1})
	}
	return cmd
}

// The same steps against the process's own memory and against Redis.
func TestStoreDecidesAsALimiterDoes(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	store := newStore(t, redisrate.Config{Client: connect(t, server), Prefix: testsvc.RedisPrefix(t, server)})
	for _, limit := range []resilience.RateLimit{
		{Rate: 7, Per: time.Hour, Burst: 5},
		{Rate: 1, Per: 7 * time.Hour, Burst: 5},
		{Rate: 5, Per: 1000 * time.Hour, Burst: 5, Algorithm: resilience.FixedWindow},
	} {
		cfg := resilience.RateConfig{Name: fmt.Sprint(limit), Rate: limit.Rate, Per: limit.Per, Algorithm: limit.Algorithm}
		if limit.Algorithm == resilience.GCRA {
			cfg.Burst = limit.Burst
		}
		local, err := resilience.NewRateLimiter(cfg)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Store = store
		shared, err := resilience.NewRateLimiter(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range []int{0, 2, 1, 3, 2, 1, 5, 0, 6, -1} {
			want, wantErr := local.Take(t.Context(), "key", n)
			got, gotErr := shared.Take(t.Context(), "key", n)
			if (gotErr == nil) != (wantErr == nil) {
				t.Fatalf("%v step %d: error %v, want %v", limit, i, gotErr, wantErr)
			}
			near := func(a, b time.Duration) bool { return (a - b).Abs() < time.Minute }
			if got.Allowed != want.Allowed || got.Limit != want.Limit || got.Remaining != want.Remaining ||
				!near(got.RetryAfter, want.RetryAfter) || !near(got.ResetAfter, want.ResetAfter) {
				t.Errorf("%v step %d: take %d: %+v, want %+v", limit, i, n, got, want)
			}
		}
	}
}

// TestHelperProcess is one of the processes of TestLimitHoldsAcrossProcesses.
func TestHelperProcess(t *testing.T) {
	job := os.Getenv("REDISRATE_JOB")
	if job == "" {
		t.Skip("a helper of TestLimitHoldsAcrossProcesses")
	}
	server, prefix, _ := strings.Cut(job, " ")
	s := &spy{Scripter: connect(t, server)}
	store := newStore(t, redisrate.Config{Client: s, Prefix: prefix})
	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{
		Name: "test", Rate: 100, Burst: 10, Store: store, OnStoreError: resilience.StoreFailClosed,
	})
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond) // four processes: 400 a second
	defer tick.Stop()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); <-tick.C {
		limiter.Allow(t.Context())
	}
	if stats := limiter.Stats(); stats.StoreErrors > 0 {
		t.Fatalf("stats %+v", stats)
	}
	for _, a := range s.answers {
		fmt.Println("answer", a.at, a.granted)
	}
}

func TestLimitHoldsAcrossProcesses(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	job := server + " " + testsvc.RedisPrefix(t, server)
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		answers []answer
		granted []int64
	)
	for range 4 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperProcess$")
			cmd.Env = append(os.Environ(), "REDISRATE_JOB="+job)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("process: %v\n%s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
				var a answer
				if _, err := fmt.Sscanf(lines.Text(), "answer %d %t", &a.at, &a.granted); err == nil {
					answers = append(answers, a)
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(answers, func(a, b answer) int { return cmp.Compare(a.at, b.at) })
	ideal, arrival := 0, int64(0) // what a bucket of 10 with one every 10 ms grants to the very same questions
	for _, a := range answers {
		if a.granted {
			granted = append(granted, a.at)
		}
		if next := max(arrival, a.at) + 10_000; next <= a.at+100_000 {
			arrival = next
			ideal++
		}
	}
	if len(granted) != ideal || len(granted) < 100 {
		t.Fatalf("%d granted of %d questions, want %d", len(granted), len(answers), ideal)
	}
	for i := range granted {
		for j := i; j < len(granted); j++ {
			// n <= 10 + 100*T, in microseconds and whole numbers.
			if n, us := int64(j-i+1), granted[j]-granted[i]; n*10_000 > 100_000+us {
				t.Fatalf("%d granted within %d us of Redis time", n, us)
			}
		}
	}
	us := granted[len(granted)-1] - granted[0]
	most := 10 + float64(us)/10_000
	// On a machine that is too busy to ask, a permit nobody takes for 100 ms is gone.
	t.Logf("%d questions, %d granted of at most %.1f within %d us", len(answers), len(granted), most, us)
	if rate := float64(len(answers)) / float64(us) * 1e6; rate > 390 && float64(len(granted)) < 0.98*most {
		t.Errorf("%d granted within %d us, less than 98%% of %.1f", len(granted), us, most)
	}
}

func TestFixedWindowIsShared(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	prefix := testsvc.RedisPrefix(t, server)
	limit := resilience.RateLimit{Rate: 20, Per: 250 * time.Millisecond, Burst: 20, Algorithm: resilience.FixedWindow}
	var (
		wg   sync.WaitGroup
		spys []*spy
	)
	for range 4 {
		s := &spy{Scripter: connect(t, server)}
		spys = append(spys, s)
		store := newStore(t, redisrate.Config{Client: s, Prefix: prefix})
		wg.Go(func() {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				if _, err := store.Take(t.Context(), "key", limit, 1); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	asked, granted, full := map[int64]int{}, map[int64]int{}, 0
	for _, s := range spys {
		for _, a := range s.answers {
			asked[a.at/250_000]++
			if a.granted {
				granted[a.at/250_000]++
			}
		}
	}
	for w, n := range asked {
		if granted[w] != min(n, 20) {
			t.Errorf("window %d: %d of %d granted, want at most 20 and no fewer", w, granted[w], n)
		}
		if n > 20 {
			full++
		}
	}
	if full == 0 {
		t.Error("nobody was turned away")
	}
}

func TestDeadRedis(t *testing.T) {
	t.Parallel()
	server := testsvc.RedisServer(t)
	modes := map[resilience.StoreFailure]int{
		resilience.StoreFailOpen: 20, resilience.StoreFailClosed: 0, resilience.StoreFailLocal: 5,
	}
	limiters := map[resilience.StoreFailure]*resilience.RateLimiter{}
	told := map[resilience.StoreFailure]*atomic.Int64{}
	for mode := range modes {
		count := new(atomic.Int64)
		told[mode] = count
		l, err := resilience.NewRateLimiter(resilience.RateConfig{
			Name: mode.String(), Rate: 20, Per: time.Hour, OnStoreError: mode, LocalShare: 0.25,
			Store: newStore(t, redisrate.Config{Client: connect(t, server.URL)}),
			Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
				if e.Kind == resilience.EventStoreFailed {
					count.Add(1)
				}
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		limiters[mode] = l
	}
	drain := func(l *resilience.RateLimiter) (n int) {
		for range 20 {
			if l.Allow(t.Context()) {
				n++
			}
		}
		return n
	}
	for mode, l := range limiters {
		if n := drain(l); n != 20 || l.Stats().StoreErrors != 0 {
			t.Errorf("%v: alive: %d allowed, %+v", mode, n, l.Stats())
		}
	}
	server.Kill()
	for mode, l := range limiters {
		if n := drain(l); n != modes[mode] {
			t.Errorf("%v: dead: %d allowed, want %d", mode, n, modes[mode])
		}
		if l.Stats().StoreErrors == 0 || told[mode].Load() == 0 {
			t.Errorf("%v: dead, and nobody was told: %+v", mode, l.Stats())
		}
	}
	server.Start(t)
	for mode, l := range limiters {
		deadline := time.Now().Add(30 * time.Second)
		for { // until the limit of the empty server is the one that holds: 20, then none
			before := l.Stats().StoreErrors
			drain(l)
			d, err := l.Take(t.Context(), "", 1)
			if err == nil && !d.Allowed && d.Limit == 20 && l.Stats().StoreErrors == before && d.RetryAfter > time.Minute {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: not recovered: %+v, %v", mode, d, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// Round trips are counted where they are made. The process is alone on its key.
func TestLeaseAsksOncePerLease(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	s := &spy{Scripter: connect(t, server)}
	store := newStore(t, redisrate.Config{Client: s, Prefix: testsvc.RedisPrefix(t, server), LeaseSize: 50, LeaseFor: time.Minute})
	limit := resilience.RateLimit{Rate: 500, Per: time.Second, Burst: 100}
	granted := 0
	start := time.Now()
	for granted < 1000 {
		d, err := store.Take(t.Context(), "key", limit, 1)
		switch {
		case err != nil:
			t.Fatal(err)
		case d.Allowed:
			granted++
		default:
			time.Sleep(min(d.RetryAfter, time.Millisecond)) // a hammering caller
		}
	}
	took := time.Since(start)
	calls := int(s.calls.Load())
	if calls > granted/50+1 {
		t.Errorf("%d calls for %d permits", calls, granted)
	}
	if most := 100 + int(took*500/time.Second); granted > most {
		t.Errorf("%d granted in %v, want at most %d", granted, took, most)
	}
	t.Logf("%d calls for %d permits in %v", calls, granted, took)
}

// Leases are used late: at most Burst + (T + LeaseFor)*Rate within T.
func TestLeaseBound(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	prefix := testsvc.RedisPrefix(t, server)
	limit := resilience.RateLimit{Rate: 200, Per: time.Second, Burst: 20}
	const leaseFor = 300 * time.Millisecond
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		used []time.Duration
	)
	start := time.Now()
	for i := range 4 {
		store := newStore(t, redisrate.Config{Client: connect(t, server), Prefix: prefix, LeaseSize: 10, LeaseFor: leaseFor})
		wg.Go(func() {
			for time.Since(start) < 2*time.Second {
				before := time.Since(start)
				d, err := store.Take(t.Context(), "key", limit, 1)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					used = append(used, before)
					mu.Unlock()
				}
				time.Sleep(time.Duration(1+i*7) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	slices.Sort(used)
	for i := range used {
		for j := i; j < len(used); j++ {
			// 100 ms for the time between the use and its log.
			if most := 20 + int(200*(used[j]-used[i]+leaseFor+100*time.Millisecond).Seconds()); j-i+1 > most {
				t.Fatalf("%d used within %v, want at most %d", j-i+1, used[j]-used[i], most)
			}
		}
	}
	if len(used) <= 20 { // more than the burst, even on a machine that is too busy to ask
		t.Errorf("only %d used", len(used))
	}
}

func TestUnusedLeaseIsLost(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	s := &spy{Scripter: connect(t, server)}
	store := newStore(t, redisrate.Config{Client: s, Prefix: testsvc.RedisPrefix(t, server), LeaseSize: 5, LeaseFor: time.Millisecond})
	limit := resilience.RateLimit{Rate: 1, Per: time.Hour, Burst: 10}
	for i, want := range []bool{true, true, false} {
		d, err := store.Take(t.Context(), "key", limit, 1)
		if err != nil || d.Allowed != want {
			t.Errorf("take %d: %+v, %v, want %v", i, d, err, want)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestScriptCallsPerTake(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	s := &spy{Scripter: connect(t, server)}
	store := newStore(t, redisrate.Config{Client: s, Prefix: testsvc.RedisPrefix(t, server)})
	for range 10 {
		if _, err := store.Take(t.Context(), "key", resilience.RateLimit{Rate: 1, Per: time.Second, Burst: 3}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.calls.Load(); n != 10 {
		t.Errorf("%d script calls for 10 requests", n)
	}
}

// Keys of limits that are full again are not kept.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	client, prefix := connect(t, server), testsvc.RedisPrefix(t, server)
	store := newStore(t, redisrate.Config{Client: client, Prefix: prefix})
	for algorithm, key := range map[resilience.RateAlgorithm]string{resilience.GCRA: "g:{key}", resilience.FixedWindow: "w:{key}"} {
		limit := resilience.RateLimit{Rate: 10, Per: time.Hour, Burst: 10, Algorithm: algorithm}
		if _, err := store.Take(t.Context(), "key", limit, 1); err != nil {
			t.Fatal(err)
		}
		if ttl := client.PTTL(t.Context(), prefix+key).Val(); ttl <= 0 || ttl > time.Hour+time.Millisecond {
			t.Errorf("%v: time to live %v", algorithm, ttl)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer client.Close()
	deaf := redis.NewClient(&redis.Options{})
	defer deaf.Close()
	for want, cfg := range map[string]redisrate.Config{
		"Client = <nil>":        {},
		"ContextTimeoutEnabled": {Client: deaf},
		"Timeout = -1ns":        {Client: client, Timeout: -1},
		"LeaseSize = -1":        {Client: client, LeaseSize: -1},
		"LeaseFor = -1ns":       {Client: client, LeaseFor: -1},
	} {
		if _, err := redisrate.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %q", err, want)
		}
	}
	store := newStore(t, redisrate.Config{Client: client})
	for want, limit := range map[string]resilience.RateLimit{
		"not complete":       {Rate: 1},
		"whole microseconds": {Rate: 1, Per: 1500, Burst: 1},
		"century":            {Rate: 1, Per: 1000 * time.Hour, Burst: 1000},
	} {
		if _, err := store.Take(t.Context(), "key", limit, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want it to say %q", limit, err, want)
		}
	}
}

func TestCancelledTake(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, size := range []int{0, 10} {
		store := newStore(t, redisrate.Config{Client: client, LeaseSize: size})
		if _, err := store.Take(ctx, "key", resilience.RateLimit{Rate: 1, Per: time.Second, Burst: 10}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("lease of %d: error %v", size, err)
		}
	}
}
