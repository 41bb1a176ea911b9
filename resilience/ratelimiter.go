package resilience

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// StoreFailure is what a [RateLimiter] does while its store cannot decide.
type StoreFailure uint8

const (
	// StoreFailOpen grants everything: the limit protects less than an outage costs.
	StoreFailOpen StoreFailure = iota
	// StoreFailClosed rejects everything.
	StoreFailClosed
	// StoreFailLocal limits each process for itself to RateConfig.LocalShare.
	StoreFailLocal
)

// String returns "open", "closed" or "local".
func (f StoreFailure) String() string {
	switch f {
	case StoreFailOpen:
		return "open"
	case StoreFailClosed:
		return "closed"
	case StoreFailLocal:
		return "local"
	default:
		return "invalid"
	}
}

// RateConfig describes a [RateLimiter]. Only Rate is required.
type RateConfig struct {
	// Name appears in errors, events and Describe, and in front of the keys of Store.
	Name string

	// Rate permits are granted per Per, at most one per nanosecond. A Per of 0 means
	// a second.
	Rate int
	Per  time.Duration

	// Burst is how many permits a GCRA bucket holds. 0 means Rate: after a pause all
	// permits of one period may be taken at once. 1 spaces calls evenly. FixedWindow
	// has no use for it.
	Burst int

	// Algorithm is GCRA or FixedWindow.
	Algorithm RateAlgorithm

	// MaxWait is how long Run waits for a permit. 0 rejects at once.
	MaxWait time.Duration

	// Key gives each of its values a bucket of its own, per user or address for
	// instance. Nil, or the key "", means the one bucket of the limiter.
	Key func(context.Context) string

	// MaxKeys bounds the memory of keys, some 250 bytes each. 0 means 65536. The bound
	// is kept per part of a split table, so that keys may be evicted from about nine
	// tenths of it on: one unused for long whose bucket is full, which loses nothing,
	// or else the one unused longest, which gives that key a new burst. Not for Store.
	MaxKeys int

	// IdleTTL is how long an unused key is remembered at least. It is never less than
	// the time a bucket needs to be full again, after which forgetting loses nothing.
	IdleTTL time.Duration

	// Store, if not nil, keeps the permits where several processes share them. It
	// needs a Name. While it fails, OnStoreError decides, and the store is asked again
	// by one call every half second.
	Store        RateStore
	OnStoreError StoreFailure

	// LocalShare is the part of Rate and Burst that StoreFailLocal grants this
	// process, above 0 up to 1. 0 means 1. Use 1/n for n processes.
	LocalShare float64

	// Observer, if not nil, is told about rejections and failures of the store.
	Observer Observer
}

// RateStats is a moment's view of a [RateLimiter].
type RateStats struct {
	Allowed     uint64        // requests granted
	Rejected    uint64        // requests turned away, those that gave up waiting included
	Waited      uint64        // requests granted or given up after a wait
	WaitTime    time.Duration // spent waiting so far
	Keys        int           // keys remembered
	Evicted     uint64        // keys forgotten to make room before their bucket was full
	StoreErrors uint64        // requests that the store failed to decide
}

// RateLimiter lets calls pass at a bounded rate. Safe for concurrent use.
//
// Without keys and store a request costs one reading of the clock and one atomic
// operation, no lock and no allocation; a key adds a short lock on one part of the
// table. It needs no goroutine. Requests that wait are served in the order in which
// they came. Permits are exact over any length of time, whether or not the rate
// divides a second: over any interval T at most Burst + T*Rate/Per.
type RateLimiter struct {
	cfg    RateConfig
	base   time.Time // per instance: a package-level one breaks under synctest
	bucket atomic.Pointer[bucket]
	alone  bool // one bucket in this process is all there is

	// allowed leaves out what the bucket counts itself.
	allowed, shown, rejected, waited, waitTime, evicted, storeErrors atomic.Uint64

	seed   maphash.Seed
	keys   []lruShard[string, rateKey]
	update sync.Mutex
	outage atomic.Pointer[outage]
	local  *RateLimiter // stands in for a failed store
}

type rateKey struct {
	bucket *bucket
	used   time.Duration
}

// outage is the time until which the store is left alone, and why.
type outage struct {
	until time.Duration
	err   error
}

const storePause = 500 * time.Millisecond

// NewRateLimiter returns a limiter whose buckets are full.
func NewRateLimiter(cfg RateConfig) (*RateLimiter, error) {
	limit := RateLimit{Rate: cfg.Rate, Per: cfg.Per, Burst: cfg.Burst, Algorithm: cfg.Algorithm}
	if err := limit.complete(cfg.Name); err != nil {
		return nil, err
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	l := &RateLimiter{cfg: cfg, base: time.Now(), seed: maphash.MakeSeed(), alone: cfg.Key == nil && cfg.Store == nil}
	l.bucket.Store(&bucket{meter: newMeter(limit, l.base), grants: &l.allowed})
	l.keys = newShards[string, rateKey](shardCount(cfg.MaxKeys))
	if cfg.Store != nil && cfg.OnStoreError == StoreFailLocal {
		share := limit.share(cfg.LocalShare)
		l.local = &RateLimiter{cfg: RateConfig{Name: cfg.Name, MaxKeys: cfg.MaxKeys}, base: l.base, seed: l.seed}
		l.local.bucket.Store(&bucket{meter: newMeter(share, l.base), grants: &l.local.allowed})
		l.local.keys = newShards[string, rateKey](len(l.keys))
	}
	return l, nil
}

func (c *RateConfig) complete() error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("rate-limiter", c.Name, field, value, rule, fix)
	}
	switch {
	case c.MaxWait < 0:
		return bad("MaxWait", c.MaxWait, "must not be negative", "use 0 to reject at once")
	case c.MaxKeys < 0:
		return bad("MaxKeys", c.MaxKeys, "must not be negative", "use 0 for the default of 65536")
	case c.IdleTTL < 0:
		return bad("IdleTTL", c.IdleTTL, "must not be negative", "use 0 for the time to fill a bucket")
	case c.OnStoreError > StoreFailLocal:
		return bad("OnStoreError", uint8(c.OnStoreError), "must be a known mode", "use StoreFailOpen, StoreFailClosed or StoreFailLocal")
	case !(c.LocalShare >= 0 && c.LocalShare <= 1):
		return bad("LocalShare", c.LocalShare, "must lie between 0 and 1", "use 1/n for n processes")
	case c.Store != nil && c.Name == "":
		return bad("Name", `""`, "must be set with Store", "name what the keys in the store belong to")
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 65536
	}
	if c.LocalShare == 0 {
		c.LocalShare = 1
	}
	return nil
}

// complete fills defaults in and checks.
func (l *RateLimit) complete(name string) error {
	bad := func(field string, value any, rule, fix string) error {
		return configError("rate-limiter", name, field, value, rule, fix)
	}
	if l.Per == 0 {
		l.Per = time.Second
	}
	if l.Burst == 0 {
		l.Burst = l.Rate
	}
	switch {
	case l.Algorithm > FixedWindow:
		return bad("Algorithm", uint8(l.Algorithm), "must be a known algorithm", "use GCRA or FixedWindow")
	case l.Rate <= 0:
		return bad("Rate", l.Rate, "must be positive", "name how many permits a period has")
	case l.Per < 0:
		return bad("Per", l.Per, "must not be negative", "use 0 for a second")
	case int64(l.Rate) > int64(l.Per):
		return bad("Rate", l.Rate, fmt.Sprintf("must be at most one per nanosecond, %d per %v", int64(l.Per), l.Per), "leave the policy out for no limit")
	case l.Burst < 0:
		return bad("Burst", l.Burst, "must not be negative", "use 0 for Rate")
	case l.Algorithm == FixedWindow && l.Burst != l.Rate:
		return bad("Burst", l.Burst, "does not apply to FixedWindow", "leave it 0")
	case l.Algorithm == GCRA && float64(l.Burst)/float64(l.Rate)*float64(l.Per) > float64(365*24*time.Hour):
		return bad("Burst", l.Burst, "must be full again within a year", "use a smaller one")
	}
	return nil
}

// share is the part of a limit that one process grants for itself.
func (l RateLimit) share(part float64) RateLimit {
	rate := float64(l.Rate) * part
	if rate < 1 { // one permit, less often
		l.Rate, l.Per = 1, time.Duration(min(float64(l.Per)/rate, float64(365*24*time.Hour)))
	} else {
		l.Rate = int(rate)
	}
	if l.Burst = max(1, int(float64(l.Burst)*part)); l.Algorithm == FixedWindow {
		l.Burst = l.Rate
	}
	return l
}

// Name returns the configured name.
func (l *RateLimiter) Name() string { return l.cfg.Name }

// Limit returns the limit in force, defaults filled in.
func (l *RateLimiter) Limit() RateLimit { return l.bucket.Load().limit }

// Update replaces the limit; fields that are 0 take the defaults of [RateConfig].
// What a bucket had left it keeps, up to the new burst, and those who wait are
// served when they were promised. Update takes time in proportion to the keys.
func (l *RateLimiter) Update(limit RateLimit) error {
	if err := limit.complete(l.cfg.Name); err != nil {
		return err
	}
	if l.local != nil {
		l.local.replace(limit.share(l.cfg.LocalShare))
	}
	l.replace(limit)
	return nil
}

func (l *RateLimiter) replace(limit RateLimit) {
	l.update.Lock()
	defer l.update.Unlock()
	m, now := newMeter(limit, l.base), l.elapsed()
	l.bucket.Store(l.bucket.Load().moveTo(m, now))
	for i := range l.keys {
		s := &l.keys[i]
		s.mu.Lock()
		s.oldest(func(item *lruItem[string, rateKey]) bool {
			item.value.bucket = item.value.bucket.moveTo(m, now)
			return true
		})
		s.mu.Unlock()
	}
}

// Run executes next once it has a permit of the key of ctx, for which it waits up
// to MaxWait, or returns a *[RateLimitedError]. A wait that cannot end before the
// deadline of ctx is not begun: the error then also matches
// [context.DeadlineExceeded]. The permit of a wait that ctx ended is given back.
func (l *RateLimiter) Run(ctx context.Context, next Next) error {
	if err := l.wait(ctx, 1, l.cfg.MaxWait); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Allow takes one permit of the key of ctx if it can be had at once.
func (l *RateLimiter) Allow(ctx context.Context) bool {
	if l.alone { // the usual answer of the usual limiter, by the shortest way
		if granted, _ := l.bucket.Load().allow(l.elapsed(), 1); granted {
			return true
		}
	}
	return l.allowN(ctx, 1, l.alone)
}

// AllowN takes n permits of the key of ctx, all or none. It returns false if n is
// negative or more than the limit ever grants at once.
func (l *RateLimiter) AllowN(ctx context.Context, n int) bool { return l.allowN(ctx, n, false) }

func (l *RateLimiter) allowN(ctx context.Context, n int, again bool) bool {
	key := l.key(ctx)
	if key != "" || l.cfg.Store != nil {
		d, err := l.Take(ctx, key, n)
		return err == nil && d.Allowed
	}
	for {
		b := l.bucket.Load()
		if n < 0 || n > b.limit.most() {
			_ = l.reject(ctx, key, 0, b.tooMany(n))
			return false
		}
		granted, isFrozen := b.allow(l.elapsed(), n)
		switch {
		case granted:
			return true
		case !isFrozen && !again:
			// On a busy machine more time than the burst lasts may have passed between
			// looking at the clock and looking at the bucket.
			again = true
			continue
		case !isFrozen:
			if l.cfg.Observer == nil {
				l.rejected.Add(1)
				return false
			}
			v := b.reserve(l.elapsed(), n, 0)
			if v.granted { // it came free in between
				l.allowed.Add(1)
				return true
			}
			if !v.frozen {
				_ = l.reject(ctx, key, v.delay, nil)
				return false
			}
		}
		l.awaitUpdate()
	}
}

// Wait waits for one permit as long as ctx allows, MaxWait notwithstanding. Its
// errors are those of Run.
func (l *RateLimiter) Wait(ctx context.Context) error { return l.WaitN(ctx, 1) }

// WaitN waits for n permits of the key of ctx, all or none.
func (l *RateLimiter) WaitN(ctx context.Context, n int) error {
	return l.wait(ctx, n, math.MaxInt64)
}

// Take takes n permits of key, all or none, without waiting, and says what is left.
// n = 0 takes nothing and just looks. A decision that is not Allowed is no error;
// an error, a *[RateLimitedError], means that there was no decision: n is negative
// or more than the limit ever grants, ctx has ended, or the store has failed and
// OnStoreError is StoreFailClosed.
func (l *RateLimiter) Take(ctx context.Context, key string, n int) (RateDecision, error) {
	d, err := l.take(ctx, key, n)
	switch {
	case err != nil:
		return d, l.reject(ctx, key, d.RetryAfter, err)
	case d.Allowed:
		l.allowed.Add(1)
	case l.cfg.Observer == nil:
		l.rejected.Add(1)
	default:
		_ = l.reject(ctx, key, d.RetryAfter, nil)
	}
	return d, nil
}

// Reserve books n permits of the bucket for the key "", however long that takes:
// the caller waits for Delay, or cancels. It is not OK if n is negative or more
// than the limit ever grants, and for a limiter with a Store, which cannot promise.
func (l *RateLimiter) Reserve(n int) *Reservation {
	ctx := context.Background()
	b := l.bucket.Load()
	switch {
	case l.cfg.Store != nil:
		return &Reservation{err: l.reject(ctx, "", 0, errors.New("a shared limit takes no reservations"))}
	case n < 0 || n > b.limit.most():
		return &Reservation{err: l.reject(ctx, "", 0, b.tooMany(n))}
	}
	now := l.elapsed()
	b, v := l.reserve("", now, n, math.MaxInt64-1)
	if !v.granted {
		return &Reservation{err: l.reject(ctx, "", v.delay, nil)}
	}
	l.allowed.Add(1)
	return &Reservation{limiter: l, bucket: b, n: n, arrival: v.arrival, due: now + v.delay}
}

// Stats returns counters and the number of keys; it locks each part of the table
// for a moment.
func (l *RateLimiter) Stats() RateStats {
	s := RateStats{
		Allowed:     l.countAllowed(),
		Rejected:    l.rejected.Load(),
		Waited:      l.waited.Load(),
		WaitTime:    time.Duration(l.waitTime.Load()),
		Evicted:     l.evicted.Load(),
		StoreErrors: l.storeErrors.Load(),
	}
	for i := range l.keys {
		l.keys[i].mu.Lock()
		s.Keys += len(l.keys[i].items)
		l.keys[i].mu.Unlock()
	}
	if l.local != nil {
		s.Keys += l.local.Stats().Keys
	}
	return s
}

// countAllowed adds what the word of the bucket counts. A grant that carries from
// there to allowed does so in two steps; a reader in between must not see the sum
// jump ahead or go back.
func (l *RateLimiter) countAllowed() uint64 {
	var sum uint64
	for {
		allowed, word := l.allowed.Load(), l.bucket.Load().word.Load()
		if word == frozen {
			l.awaitUpdate()
		} else if l.allowed.Load() == allowed {
			sum = allowed + uint64(word&countMask)
			break
		}
	}
	for {
		shown := l.shown.Load()
		if sum <= shown || l.shown.CompareAndSwap(shown, sum) {
			return max(sum, shown)
		}
	}
}

// Describe reports the settings.
func (l *RateLimiter) Describe() Description {
	limit := l.Limit()
	d := Description{Kind: "rate-limiter", Name: l.cfg.Name, Settings: []Setting{
		setting("rate", fmt.Sprintf("%d/%v", limit.Rate, limit.Per))}}
	if limit.Algorithm == GCRA {
		d.Settings = append(d.Settings, setting("burst", limit.Burst))
	} else {
		d.Settings = append(d.Settings, setting("algorithm", limit.Algorithm))
	}
	if l.cfg.MaxWait > 0 {
		d.Settings = append(d.Settings, setting("max-wait", l.cfg.MaxWait))
	}
	if l.cfg.Store != nil {
		d.Settings = append(d.Settings, setting("on-store-error", l.cfg.OnStoreError))
	}
	return d
}

func (l *RateLimiter) elapsed() time.Duration { return max(0, time.Since(l.base)) }

func (l *RateLimiter) key(ctx context.Context) string {
	if l.cfg.Key == nil {
		return ""
	}
	return l.cfg.Key(ctx)
}

func (b *bucket) tooMany(n int) error {
	return fmt.Errorf("%d permits asked for, 0 to %d can be had at once", n, b.limit.most())
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// reject counts, tells and returns a rejection.
func (l *RateLimiter) reject(ctx context.Context, key string, after time.Duration, cause error) error {
	l.rejected.Add(1)
	err := &RateLimitedError{Name: l.cfg.Name, Key: key, After: after, Err: cause}
	if l.cfg.Observer != nil {
		l.cfg.Observer.On(ctx, Event{Kind: EventRejected, Policy: "rate-limiter", Name: l.cfg.Name, Duration: after, Err: err})
	}
	return err
}

// awaitUpdate returns when the Update under way has replaced the bucket.
func (l *RateLimiter) awaitUpdate() {
	l.update.Lock()
	l.update.Unlock() //nolint:staticcheck // to have waited is all
}

// reserve asks the bucket of key.
func (l *RateLimiter) reserve(key string, now time.Duration, n int, wait time.Duration) (*bucket, verdict) {
	if key != "" {
		return l.reserveKey(key, now, n, wait)
	}
	for {
		b := l.bucket.Load()
		v := b.reserve(now, n, wait)
		if !v.frozen {
			return b, v
		}
		l.awaitUpdate()
	}
}

// reserveKey asks under the lock of the key's part of the table, so that the
// bucket is neither evicted nor replaced in between.
func (l *RateLimiter) reserveKey(key string, now time.Duration, n int, wait time.Duration) (*bucket, verdict) {
	s := &l.keys[maphash.String(l.seed, key)&uint64(len(l.keys)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.get(key)
	if !ok {
		l.makeRoom(s, now)
		item = s.add(key, rateKey{bucket: &bucket{meter: l.bucket.Load().meter}})
	}
	item.value.used = now
	return item.value.bucket, item.value.bucket.reserve(now, n, wait)
}

// makeRoom forgets keys that are idle, a few at a time, and one in any case when
// the table is full.
func (l *RateLimiter) makeRoom(s *lruShard[string, rateKey], now time.Duration) {
	const look = 8
	var looked int
	forgotten := false
	s.oldest(func(item *lruItem[string, rateKey]) bool {
		k := item.value
		if k.bucket.full(now) && now-k.used >= l.cfg.IdleTTL {
			s.remove(item)
			forgotten = true
		}
		looked++
		return looked < look
	})
	if forgotten || len(s.items) < max(1, l.cfg.MaxKeys/len(l.keys)) {
		return
	}
	victim, looked := s.ring.prev, 0
	s.oldest(func(item *lruItem[string, rateKey]) bool {
		if item.value.bucket.full(now) {
			victim = item
			return false
		}
		looked++
		return looked < look
	})
	if !victim.value.bucket.full(now) {
		l.evicted.Add(1)
	}
	s.remove(victim)
}

func (l *RateLimiter) wait(ctx context.Context, n int, limit time.Duration) error {
	key := l.key(ctx)
	if err := ctx.Err(); err != nil {
		return l.reject(ctx, key, 0, err)
	}
	if l.cfg.Store != nil {
		return l.waitStore(ctx, key, n, limit)
	}
	if b := l.bucket.Load(); n < 0 || n > b.limit.most() {
		return l.reject(ctx, key, 0, b.tooMany(n))
	}
	now := l.elapsed()
	if key == "" {
		if granted, _ := l.bucket.Load().allow(now, n); granted {
			return nil
		}
	}
	b, v := l.reserve(key, now, n, 0)
	if !v.granted && limit > 0 {
		left := timeLeft(ctx)
		b, v = l.reserve(key, now, n, min(limit, left-1))
		if !v.granted && v.delay >= left {
			return l.reject(ctx, key, v.delay, context.DeadlineExceeded)
		}
	}
	if !v.granted {
		return l.reject(ctx, key, v.delay, nil)
	}
	if v.delay > 0 {
		due := now + v.delay
		if err := l.sleep(ctx, v.delay); err != nil {
			if now := l.elapsed(); now < due {
				b.giveBack(n, v.arrival)
			}
			return l.reject(ctx, key, 0, err)
		}
	}
	l.allowed.Add(1)
	return nil
}

// timeLeft is the time until the deadline of ctx.
func timeLeft(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return math.MaxInt64
}

// sleep waits for d or the end of ctx.
func (l *RateLimiter) sleep(ctx context.Context, d time.Duration) error {
	start := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	l.waited.Add(1)
	l.waitTime.Add(uint64(max(0, time.Since(start))))
	return ctx.Err()
}

// waitStore asks again whenever the store said it might pay. Others may have been
// faster, so that there is no order among those who wait.
func (l *RateLimiter) waitStore(ctx context.Context, key string, n int, limit time.Duration) error {
	start := time.Now()
	for {
		d, err := l.take(ctx, key, n)
		switch {
		case err != nil:
			return l.reject(ctx, key, d.RetryAfter, err)
		case d.Allowed:
			l.allowed.Add(1)
			return nil
		case d.RetryAfter >= timeLeft(ctx) && limit > 0:
			return l.reject(ctx, key, d.RetryAfter, context.DeadlineExceeded)
		case d.RetryAfter > limit-time.Since(start):
			return l.reject(ctx, key, d.RetryAfter, nil)
		}
		if err := l.sleep(ctx, max(d.RetryAfter, time.Millisecond)); err != nil {
			return l.reject(ctx, key, 0, err)
		}
	}
}

// take decides without counting.
func (l *RateLimiter) take(ctx context.Context, key string, n int) (RateDecision, error) {
	b := l.bucket.Load()
	d := RateDecision{Limit: b.limit.most()}
	if n < 0 || n > d.Limit {
		return d, b.tooMany(n)
	}
	if err := ctx.Err(); err != nil {
		return d, err
	}
	if l.cfg.Store == nil {
		now := l.elapsed()
		b, v := l.reserve(key, now, n, 0)
		return b.decision(now, v), nil
	}
	down := l.outage.Load()
	now := l.elapsed()
	if down != nil {
		probe := now >= down.until && l.outage.CompareAndSwap(down, &outage{until: now + storePause, err: down.err})
		if !probe {
			return l.withoutStore(ctx, key, n, now, down)
		}
	}
	d, err := l.cfg.Store.Take(ctx, l.cfg.Name+"/"+key, b.limit, n)
	if err == nil {
		if down != nil {
			l.outage.Store(nil)
		}
		return d, nil
	}
	d = RateDecision{Limit: b.limit.most()}
	// A caller that gave up says nothing about the store; one whose time ran out in
	// there does.
	if errors.Is(ctx.Err(), context.Canceled) {
		return d, ctx.Err()
	}
	now = l.elapsed()
	down = &outage{until: now + storePause, err: err}
	l.outage.Store(down)
	l.storeErrors.Add(1)
	if l.cfg.Observer != nil {
		l.cfg.Observer.On(ctx, Event{Kind: EventStoreFailed, Policy: "rate-limiter", Name: l.cfg.Name, Err: err})
	}
	if err := ctx.Err(); err != nil {
		return d, err
	}
	return l.withoutStore(ctx, key, n, now, down)
}

func (l *RateLimiter) withoutStore(ctx context.Context, key string, n int, now time.Duration, down *outage) (RateDecision, error) {
	most := l.Limit().most()
	d := RateDecision{Limit: most, RetryAfter: max(time.Millisecond, down.until-now)}
	switch l.cfg.OnStoreError {
	case StoreFailClosed:
		return d, down.err
	case StoreFailLocal:
		if n > l.local.Limit().most() {
			return d, nil // more than the share ever grants: the store may be back by then
		}
		return l.local.take(ctx, key, n)
	default:
		return RateDecision{Allowed: true, Limit: most, Remaining: most}, nil
	}
}
