package resilience

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// CachedConfig describes a [Cached].
type CachedConfig struct {
	Name string // for events and metrics

	// Size is the number of keys kept; the one not asked for the longest goes first.
	// 0 means 1024.
	Size int

	// TTL is how long a value is fresh. Required.
	TTL time.Duration

	// Jitter shortens each TTL by up to this share, within 0 and 1, so that keys
	// loaded together do not expire together. 0 means not at all.
	Jitter float64

	// NegativeTTL is how long an error is kept that Classify takes for an answer,
	// such as "not found". 0 means that no error is kept.
	NegativeTTL time.Duration

	// StaleIfError is for how long after its TTL a value is still returned, without
	// an error, when loading a new one fails or takes longer than the caller has
	// time. 0 means never. (RFC 5861 names this and the next one.)
	StaleIfError time.Duration

	// StaleWhileRevalidate is for how long after its TTL a value is still returned
	// at once, while a new one is loaded in the background. 0 means never.
	StaleWhileRevalidate time.Duration

	// RefreshTimeout bounds a load in the background. 0 means 30 s.
	RefreshTimeout time.Duration

	// Classify judges the errors of loads: Success means that the callee answered.
	// Such an error may be kept for NegativeTTL and a stale value never hides it.
	// Nil means the function Classify.
	Classify Classifier

	// Rand returns numbers in [0, 1) for Jitter. Nil means rand.Float64 of
	// math/rand/v2.
	Rand func() float64

	// Observer, if not nil, is told when a stale value answered in place of an error.
	Observer Observer
}

// CachedStats is a moment's view of a [Cached]. Calls of Get are Hits + Stale +
// Misses, those that failed over to a stale value counted as misses too.
type CachedStats struct {
	Size      int    // keys kept now
	Hits      uint64 // answered by a fresh value or kept error
	Misses    uint64 // had to wait for a load
	Stale     uint64 // answered by a stale value while it was revalidated
	Rescued   uint64 // misses answered by a stale value because loading failed
	Loads     uint64 // loads begun
	Failed    uint64 // loads that failed or panicked
	Evictions uint64 // keys that had to go for want of room
}

// Cached remembers what a function returned for a key. Callers that miss the same
// key at the same time wait for one load, which is a [SingleFlight]: see there for
// what it means that callers leave, panic and share.
//
// The values are shared: all callers get the same T, so what it points to must not
// be modified. Safe for concurrent use; a hit costs one lock and one clock read and
// does not allocate. Only StaleWhileRevalidate works in the background: such a load
// ends after RefreshTimeout, or with Close.
type Cached[K comparable, T any] struct {
	cfg    CachedConfig
	load   func(context.Context, K) (T, error)
	flight *SingleFlight[K, T]
	base   time.Time

	mu      sync.Mutex
	entries map[K]*entry[K, T]
	recent  entry[K, T]   // head of a ring, latest use first
	loading map[K]*ticket // the load whose result may be kept
	stats   CachedStats

	refreshes sync.WaitGroup
	closed    bool
	life      context.Context // of the loads in the background
	end       context.CancelFunc
}

// entry is what is known of a key. The times are of Cached.elapsed.
type entry[K comparable, T any] struct {
	prev, next *entry[K, T]
	key        K
	value      T
	err        error // kept in place of a value
	fresh      time.Duration
	revalidate time.Duration
	stale      time.Duration
	refreshing bool
}

// ticket is what a load must still hold in order to store its result: Put and
// Forget take it away. It is not empty, so that each has an address of its own.
type ticket struct{ _ byte }

// NewCached returns an empty cache of load, which must not be nil.
func NewCached[K comparable, T any](load func(context.Context, K) (T, error), cfg CachedConfig) (*Cached[K, T], error) {
	bad := func(field string, value any, rule, fix string) (*Cached[K, T], error) {
		return nil, configError("cache", cfg.Name, field, value, rule, fix)
	}
	const negative = "must not be negative"
	switch {
	case load == nil:
		return bad("load", "nil", "is required", "name the function whose results to keep")
	case cfg.Size < 0:
		return bad("Size", cfg.Size, negative, "use 0 for the default of 1024")
	case cfg.TTL <= 0:
		return bad("TTL", cfg.TTL, "must be positive", "name how long a value is fresh")
	case !(cfg.Jitter >= 0 && cfg.Jitter <= 1):
		return bad("Jitter", cfg.Jitter, "must be within 0 and 1", "use 0.1 to shorten by up to a tenth")
	case cfg.NegativeTTL < 0:
		return bad("NegativeTTL", cfg.NegativeTTL, negative, "use 0 to keep no errors")
	case cfg.StaleIfError < 0:
		return bad("StaleIfError", cfg.StaleIfError, negative, "use 0 for no stale values")
	case cfg.StaleWhileRevalidate < 0:
		return bad("StaleWhileRevalidate", cfg.StaleWhileRevalidate, negative, "use 0 for no stale values")
	case cfg.RefreshTimeout < 0:
		return bad("RefreshTimeout", cfg.RefreshTimeout, negative, "use 0 for the default of 30s")
	}
	if cfg.Size == 0 {
		cfg.Size = 1024
	}
	if cfg.RefreshTimeout == 0 {
		cfg.RefreshTimeout = 30 * time.Second
	}
	if cfg.Classify == nil {
		cfg.Classify = Classify
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	c := &Cached[K, T]{
		cfg: cfg, load: load, base: time.Now(),
		entries: map[K]*entry[K, T]{}, loading: map[K]*ticket{},
	}
	c.recent.prev, c.recent.next = &c.recent, &c.recent
	c.life, c.end = context.WithCancel(context.Background())
	var err error
	c.flight, err = NewSingleFlight(c.fetch)
	return c, err
}

// Get returns the value for key, loading it if need be. It returns the error of
// the load, or the context's if that ends first, unless a stale value may stand in.
func (c *Cached[K, T]) Get(ctx context.Context, key K) (T, error) {
	c.mu.Lock()
	if e := c.entries[key]; e != nil {
		c.use(e)
		switch now := c.elapsed(); {
		case now < e.fresh:
			c.stats.Hits++
			value, err := e.value, e.err
			c.mu.Unlock()
			return value, err
		case now < e.revalidate:
			c.stats.Stale++
			value := e.value
			if !e.refreshing && !c.closed {
				e.refreshing = true
				c.refreshes.Add(1)
				go c.refresh(context.WithoutCancel(ctx), key)
			}
			c.mu.Unlock()
			return value, nil
		}
	}
	c.stats.Misses++
	c.mu.Unlock()
	value, err := c.flight.Do(ctx, key)
	if err != nil && c.cfg.StaleIfError > 0 {
		return c.rescue(ctx, key, err)
	}
	return value, err
}

// Bind returns Get for one key, in the shape that [Wrap] and [Call] take.
func (c *Cached[K, T]) Bind(key K) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) { return c.Get(ctx, key) }
}

// Put stores a value for key as if it had just been loaded. A load under way does
// not overwrite it.
func (c *Cached[K, T]) Put(key K, value T) {
	ttl := c.ttl(c.cfg.TTL)
	c.flight.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.loading, key)
	c.store(key, value, nil, ttl)
}

// Forget drops what is known of key. The result of a load under way goes to those
// who wait for it and is not kept.
func (c *Cached[K, T]) Forget(key K) {
	c.flight.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.loading, key)
	c.drop(key)
}

// Close ends the loads in the background, starts no more and waits for them. Get
// works on without them. It may be called again and returns nil.
func (c *Cached[K, T]) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.refreshes.Wait()
	return nil
}

// Name returns the name given in the configuration.
func (c *Cached[K, T]) Name() string { return c.cfg.Name }

// Stats returns a view of the moment.
func (c *Cached[K, T]) Stats() CachedStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Size = len(c.entries)
	return stats
}

// rescue returns a stale value in place of err, if there is one and the error is
// not itself an answer. A caller that gave up wants neither.
func (c *Cached[K, T]) rescue(ctx context.Context, key K, err error) (T, error) {
	var zero T
	if errors.Is(ctx.Err(), context.Canceled) || c.answered(ctx, err) {
		return zero, err
	}
	c.mu.Lock()
	e := c.entries[key]
	if e == nil || e.err != nil || c.elapsed() >= e.stale {
		c.mu.Unlock()
		return zero, err
	}
	value := e.value
	c.stats.Rescued++
	c.mu.Unlock()
	if c.cfg.Observer != nil {
		c.cfg.Observer.On(ctx, Event{Kind: EventFallback, Policy: "cache", Name: c.cfg.Name, Err: err})
	}
	return value, nil
}

// refresh loads key for nobody in particular. A panic has no caller to be raised
// in and is counted only.
func (c *Cached[K, T]) refresh(ctx context.Context, key K) {
	defer c.refreshes.Done()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RefreshTimeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	defer func() {
		_ = recover()
		c.mu.Lock()
		defer c.mu.Unlock()
		if e := c.entries[key]; e != nil {
			e.refreshing = false
		}
	}()
	_, _ = c.flight.Do(ctx, key)
}

// fetch is one load: what the callers that miss together wait for.
func (c *Cached[K, T]) fetch(ctx context.Context, key K) (T, error) {
	c.mu.Lock()
	if e := c.entries[key]; e != nil && c.elapsed() < e.fresh {
		defer c.mu.Unlock()
		return e.value, e.err // loaded between the miss and now
	}
	mine := new(ticket)
	c.loading[key] = mine
	c.stats.Loads++
	c.mu.Unlock()

	returned, answered := false, false
	var (
		value T
		err   error
		ttl   time.Duration
	)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !returned || err != nil && !answered {
			c.stats.Failed++
		}
		if c.loading[key] != mine {
			return
		}
		delete(c.loading, key)
		switch {
		case returned && ttl > 0:
			c.store(key, value, err, ttl)
		case answered: // what was kept before is not true any more
			c.drop(key)
		}
	}()
	value, err = c.load(ctx, key)
	if err == nil {
		ttl = c.ttl(c.cfg.TTL)
	} else if answered = ctx.Err() == nil && c.answered(ctx, err); answered {
		ttl = c.ttl(c.cfg.NegativeTTL)
	}
	returned = true
	return value, err
}

func (c *Cached[K, T]) answered(ctx context.Context, err error) bool {
	return c.cfg.Classify(ctx, err) == Success
}

// ttl shortens d by the jitter.
func (c *Cached[K, T]) ttl(d time.Duration) time.Duration {
	if c.cfg.Jitter == 0 || d == 0 {
		return d
	}
	return max(1, d-time.Duration(float64(d)*c.cfg.Jitter*c.cfg.Rand()))
}

func (c *Cached[K, T]) elapsed() time.Duration { return max(0, time.Since(c.base)) }

// The methods below are called with mu held.

func (c *Cached[K, T]) store(key K, value T, err error, ttl time.Duration) {
	e := c.entries[key]
	if e == nil {
		if len(c.entries) >= c.cfg.Size {
			c.drop(c.recent.prev.key)
			c.stats.Evictions++
		}
		e = &entry[K, T]{key: key}
		c.entries[key] = e
	}
	e.value, e.err = value, err
	e.fresh = later(c.elapsed(), ttl)
	e.revalidate, e.stale = e.fresh, e.fresh
	if err == nil {
		e.revalidate = later(e.fresh, c.cfg.StaleWhileRevalidate)
		e.stale = later(e.fresh, c.cfg.StaleIfError)
	}
	c.use(e)
}

// use moves e to the front of the ring, in which it may not be yet.
func (c *Cached[K, T]) use(e *entry[K, T]) {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.prev, e.next = &c.recent, c.recent.next
	e.prev.next, e.next.prev = e, e
}

func (c *Cached[K, T]) drop(key K) {
	if e := c.entries[key]; e != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		delete(c.entries, key)
	}
}

// later returns t+d, or the end of time.
func later(t, d time.Duration) time.Duration {
	if d > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + d
}
