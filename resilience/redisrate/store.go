package redisrate

import (
	"context"
	_ "embed"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/armature-go/armature/resilience"
)

var (
	//go:embed take.lua
	takeSource string
	//go:embed window.lua
	windowSource string

	takeScript   = redis.NewScript(takeSource)
	windowScript = redis.NewScript(windowSource)
)

// Client is what the store needs of a Redis client; every client of go-redis has
// it. Those of go-redis must be made with ContextTimeoutEnabled.
type Client = redis.Scripter

// Config describes a [Store]. Only Client is required.
type Config struct {
	// Client is not closed by the store.
	Client Client

	// Prefix stands in front of every key in Redis. "" means "armature:rate:". The
	// rest of a key is the limiter's name and its own key, in braces, so that a
	// cluster spreads them.
	Prefix string

	// Timeout bounds one call, the client's own tries included. 0 means 100 ms.
	Timeout time.Duration

	// LeaseSize is how many permits of a key this process takes at once to hand them
	// out itself, at most what the limit grants at once. 0 or 1 asks Redis each time. A
	// process alone on a key then asks at most once per LeaseSize permits, rejections
	// included; others on the same key add a vain call for each lease that one of them
	// takes before it.
	LeaseSize int

	// LeaseFor is how long leased permits may be used. 0 means a second.
	LeaseFor time.Duration
}

// Store is a [resilience.RateStore] in Redis. Safe for concurrent use. It has no
// goroutine and needs no closing.
type Store struct {
	cfg  Config
	base time.Time

	mu     sync.Mutex
	leases map[string]*lease
	sweep  int // number of leases at which those that are over are forgotten
}

// New returns a store. It does not talk to Redis.
func New(cfg Config) (*Store, error) {
	bad := func(field string, value any, rule, fix string) error {
		return fmt.Errorf("redisrate: configure store: %s = %v: %s; %s", field, value, rule, fix)
	}
	switch {
	case cfg.Client == nil:
		return nil, bad("Client", nil, "must be set", "use redis.NewClient")
	case cfg.Timeout < 0:
		return nil, bad("Timeout", cfg.Timeout, "must not be negative", "use 0 for 100ms")
	case cfg.LeaseSize < 0:
		return nil, bad("LeaseSize", cfg.LeaseSize, "must not be negative", "use 0 for no leases")
	case cfg.LeaseFor < 0:
		return nil, bad("LeaseFor", cfg.LeaseFor, "must not be negative", "use 0 for a second")
	case ignoresContext(cfg.Client):
		return nil, bad("Client", "ContextTimeoutEnabled false", "must keep to Timeout", "make it with ContextTimeoutEnabled: true")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "armature:rate:"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 100 * time.Millisecond
	}
	if cfg.LeaseFor == 0 {
		cfg.LeaseFor = time.Second
	}
	return &Store{cfg: cfg, base: time.Now(), leases: make(map[string]*lease), sweep: 1024}, nil
}

// ignoresContext knows the clients of go-redis, whose reads outlast a context
// unless told otherwise.
func ignoresContext(client Client) bool {
	switch c := client.(type) {
	case *redis.Client:
		return !c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return !c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return !c.Options().ContextTimeoutEnabled
	default:
		return false
	}
}

// Take takes n permits of key, all or none, in one script call or out of a lease.
// n = 0 just looks, and always asks Redis. With leases, Remaining counts what is
// left of the lease. limit must be complete, as [resilience.RateLimiter.Limit] is,
// and Per whole microseconds.
func (s *Store) Take(ctx context.Context, key string, limit resilience.RateLimit, n int) (resilience.RateDecision, error) {
	if err := check(limit, n); err != nil {
		return resilience.RateDecision{}, err
	}
	if size := min(s.cfg.LeaseSize, most(limit)); size > 1 && n > 0 && n <= size {
		return s.takeLease(ctx, key, limit, n, size)
	}
	a, err := s.ask(ctx, key, limit, n)
	if err != nil {
		return resilience.RateDecision{}, err
	}
	return a.decision(n), nil
}

func most(limit resilience.RateLimit) int {
	if limit.Algorithm == resilience.FixedWindow {
		return limit.Rate
	}
	return limit.Burst
}

// century in microseconds; Redis time and a century together stay below 2^53.
const century = 100 * 365 * 24 * 3600 * 1_000_000

func check(limit resilience.RateLimit, n int) error {
	switch {
	case limit.Rate <= 0 || limit.Per <= 0 || limit.Algorithm > resilience.FixedWindow || most(limit) <= 0:
		return fmt.Errorf("redisrate: take permits: limit %+v is not complete", limit)
	case limit.Per%time.Microsecond != 0:
		return fmt.Errorf("redisrate: take permits: Per = %v: must be whole microseconds", limit.Per)
	case int64(limit.Rate) >= 1<<52:
		return fmt.Errorf("redisrate: take permits: Rate = %d: must be below 2^52", limit.Rate)
	case n < 0 || n > most(limit):
		return fmt.Errorf("redisrate: take permits: %d asked for, 0 to %d can be had at once", n, most(limit))
	}
	if limit.Algorithm == resilience.GCRA {
		if whole, _, ok := worth(limit, limit.Burst); !ok || whole > century {
			return fmt.Errorf("redisrate: take permits: Burst = %d: takes more than a century to fill", limit.Burst)
		}
	}
	return nil
}

// worth is the time of n permits: whole microseconds and rest/Rate of one.
func worth(limit resilience.RateLimit, n int) (whole, rest uint64, ok bool) {
	hi, lo := bits.Mul64(uint64(n), uint64(limit.Per/time.Microsecond))
	if hi >= uint64(limit.Rate) {
		return 0, 0, false
	}
	whole, rest = bits.Div64(hi, lo, uint64(limit.Rate))
	return whole, rest, true
}

// answer is what a script returned.
type answer struct {
	limit   resilience.RateLimit
	granted bool
	now     int64 // Redis time in microseconds
	// GCRA: the arrival time and its rest. FixedWindow: start of the window, and used.
	at, rest int64
}

func (s *Store) ask(ctx context.Context, key string, limit resilience.RateLimit, n int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var reply *redis.Cmd
	if limit.Algorithm == resilience.FixedWindow {
		reply = windowScript.Run(ctx, s.cfg.Client, s.keys('w', key), limit.Rate, limit.Per.Microseconds(), n)
	} else {
		cost, costRest, _ := worth(limit, n)
		room, roomRest, _ := worth(limit, limit.Burst)
		reply = takeScript.Run(ctx, s.cfg.Client, s.keys('g', key), limit.Rate, cost, costRest, room, roomRest)
	}
	numbers, err := reply.Int64Slice()
	if err != nil {
		return answer{}, fmt.Errorf("redisrate: take permits: %w", err)
	}
	if len(numbers) != 4 {
		return answer{}, fmt.Errorf("redisrate: take permits: script returned %d numbers", len(numbers))
	}
	return answer{limit: limit, granted: numbers[0] == 1, now: numbers[1], at: numbers[2], rest: numbers[3]}, nil
}

// keys keeps the states of the two algorithms apart.
func (s *Store) keys(algorithm byte, key string) []string {
	var b strings.Builder
	b.WriteString(s.cfg.Prefix)
	b.WriteByte(algorithm)
	b.WriteString(":{")
	b.WriteString(key)
	b.WriteByte('}')
	return []string{b.String()}
}

// micros converts, rounding a started microsecond up.
func micros(whole, rest int64) time.Duration {
	if rest > 0 {
		whole++
	}
	return time.Duration(max(0, whole)) * time.Microsecond
}

// wait is the time until n permits can be had after the answer.
func (a answer) wait(n int) time.Duration {
	if a.limit.Algorithm == resilience.FixedWindow {
		if a.rest+int64(n) <= int64(a.limit.Rate) {
			return 0
		}
		return micros(a.at+a.limit.Per.Microseconds()-a.now, 0)
	}
	whole, rest := a.ahead()
	cost, costRest, _ := worth(a.limit, n)
	room, roomRest, _ := worth(a.limit, a.limit.Burst)
	whole += int64(cost) - int64(room)
	rest += int64(costRest) - int64(roomRest)
	for rest < 0 {
		whole, rest = whole-1, rest+int64(a.limit.Rate)
	}
	for rest >= int64(a.limit.Rate) {
		whole, rest = whole+1, rest-int64(a.limit.Rate)
	}
	return micros(whole, rest)
}

// ahead is how far the arrival time of a GCRA bucket lies ahead of the clock.
func (a answer) ahead() (whole, rest int64) { return a.at - a.now, a.rest }

func (a answer) decision(n int) resilience.RateDecision {
	d := resilience.RateDecision{Allowed: a.granted, Limit: most(a.limit)}
	if !a.granted {
		d.RetryAfter = max(time.Microsecond, a.wait(n))
	}
	if a.limit.Algorithm == resilience.FixedWindow {
		d.Remaining = a.limit.Rate - int(a.rest)
		if a.rest > 0 {
			d.ResetAfter = micros(a.at+a.limit.Per.Microseconds()-a.now, 0)
		}
		return d
	}
	whole, rest := a.ahead()
	d.ResetAfter = micros(whole, rest)
	// Permits that the arrival time is worth, a started one counting whole: what is
	// ahead, times rate, is a number of permits times Per, exactly.
	hi, lo := bits.Mul64(uint64(whole), uint64(a.limit.Rate))
	lo, carry := bits.Add64(lo, uint64(rest), 0)
	used, part := bits.Div64(hi+carry, lo, uint64(a.limit.Per.Microseconds()))
	if part > 0 {
		used++
	}
	d.Remaining = max(0, a.limit.Burst-int(used))
	return d
}
