package resilience

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"
)

// KeyedConfig describes a [KeyedPolicy].
type KeyedConfig struct {
	Name string // for Describe and errors

	// MaxKeys is the number of policies kept. 0 means 1024. To make room the policy
	// unused longest goes, and with it what it knows: an open breaker made anew is
	// closed. A policy with a call running through it stays, so that the number can
	// exceed MaxKeys by the calls under way at most. Tables of 512 and more are split
	// and keep the bound per part: they evict from about nine tenths of it on.
	MaxKeys int

	// IdleTTL is how long a policy without calls is kept. 0 means until its room is
	// needed. Idle policies go when a new key comes to their part of the table, never by a timer.
	IdleTTL time.Duration
}

// KeyedStats is a moment's view of a [KeyedPolicy].
type KeyedStats struct {
	Keys    int    // policies kept
	Evicted uint64 // policies dropped so far, for room or idleness
}

// KeyedPolicy is one policy per key: a breaker per host, a limit per tenant. Safe
// for concurrent use. A call whose policy is there costs two short locks or atomic
// operations and no allocation beyond those of its parts. No goroutine runs.
type KeyedPolicy[K comparable] struct {
	cfg     KeyedConfig
	key     func(context.Context) K
	create  func(K) (Policy, error)
	base    time.Time
	seed    maphash.Seed
	shards  []lruShard[K, *keyedEntry]
	evicted atomic.Uint64
}

// keyedEntry is a policy or the wait for one. running grows under the lock of its
// shard alone, so that an entry seen idle there can be dropped.
type keyedEntry struct {
	running atomic.Int64
	used    time.Duration
	ready   chan struct{} // closed when policy or err is set
	policy  Policy
	err     error
}

// Keyed returns a policy that runs each call under the policy of its key. create
// makes the policy of a key that has none; it runs outside every lock, once per
// key while others wait for it, on the goroutine of the first call. Its error is
// the error of every call that waited, and the next call tries again.
func Keyed[K comparable](key func(context.Context) K, create func(K) (Policy, error), cfg KeyedConfig) (*KeyedPolicy[K], error) {
	switch {
	case key == nil:
		return nil, configError("keyed", cfg.Name, "key", key == nil, "must not be nil", "pass a function that reads the context")
	case create == nil:
		return nil, configError("keyed", cfg.Name, "create", create == nil, "must not be nil", "pass a function that makes a policy")
	case cfg.MaxKeys < 0:
		return nil, configError("keyed", cfg.Name, "MaxKeys", cfg.MaxKeys, "must not be negative", "use 0 for the default of 1024")
	case cfg.IdleTTL < 0:
		return nil, configError("keyed", cfg.Name, "IdleTTL", cfg.IdleTTL, "must not be negative", "use 0 to keep policies until their room is needed")
	}
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = 1024
	}
	return &KeyedPolicy[K]{
		cfg: cfg, key: key, create: create, base: time.Now(), seed: maphash.MakeSeed(),
		shards: newShards[K, *keyedEntry](shardCount(cfg.MaxKeys)),
	}, nil
}

// Run executes next under the policy of the key of ctx. While another call makes
// that policy it waits, at most as long as ctx lives.
func (p *KeyedPolicy[K]) Run(ctx context.Context, next Next) error {
	key := p.key(ctx)
	e, isNew := p.acquire(key)
	defer e.running.Add(-1)
	if isNew {
		p.make(key, e)
	}
	select {
	case <-e.ready:
	default:
		select {
		case <-e.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if e.err != nil {
		return e.err
	}
	return e.policy.Run(ctx, next)
}

func (p *KeyedPolicy[K]) shard(key K) *lruShard[K, *keyedEntry] {
	if len(p.shards) == 1 {
		return &p.shards[0]
	}
	return &p.shards[maphash.Comparable(p.seed, key)&uint64(len(p.shards)-1)]
}

func (p *KeyedPolicy[K]) acquire(key K) (e *keyedEntry, isNew bool) {
	var now time.Duration
	if p.cfg.IdleTTL > 0 {
		now = max(0, time.Since(p.base))
	}
	s := p.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if item, ok := s.get(key); ok {
		e = item.value
	} else {
		p.makeRoom(s, now)
		e, isNew = &keyedEntry{ready: make(chan struct{})}, true
		s.add(key, e)
	}
	e.running.Add(1)
	e.used = now
	return e, isNew
}

func (p *KeyedPolicy[K]) makeRoom(s *lruShard[K, *keyedEntry], now time.Duration) {
	excess := len(s.items) + 1 - max(1, p.cfg.MaxKeys/len(p.shards))
	s.oldest(func(item *lruItem[K, *keyedEntry]) bool {
		e := item.value
		expired := p.cfg.IdleTTL > 0 && now-e.used >= p.cfg.IdleTTL
		if excess <= 0 && !expired {
			return false // those used later have not expired either
		}
		if e.running.Load() == 0 {
			s.remove(item)
			p.evicted.Add(1)
			excess--
		}
		return true
	})
}

var errNoPolicy = errors.New("no policy was made")

// make ends the wait of everybody, panic and Goexit of create included.
func (p *KeyedPolicy[K]) make(key K, e *keyedEntry) {
	err := errNoPolicy
	defer func() {
		if err != nil {
			e.err = fmt.Errorf("resilience: make policy of %q: %w", p.cfg.Name, err)
			p.drop(key, e)
		}
		close(e.ready)
	}()
	policy, failed := p.create(key)
	switch {
	case failed != nil:
		err = failed
	case policy != nil:
		e.policy, err = policy, nil
	}
}

func (p *KeyedPolicy[K]) drop(key K, e *keyedEntry) {
	s := p.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if item, ok := s.items[key]; ok && item.value == e {
		s.remove(item)
	}
}

// done returns the policy if it has been made.
func (e *keyedEntry) done() (Policy, bool) {
	select {
	case <-e.ready:
		return e.policy, e.policy != nil
	default:
		return nil, false
	}
}

// Get returns the policy of key if there is one, without counting as its use.
func (p *KeyedPolicy[K]) Get(key K) (Policy, bool) {
	s := p.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if item, ok := s.items[key]; ok {
		return item.value.done()
	}
	return nil, false
}

// Forget drops the policy of key and reports whether there was one. Calls that run
// through it go on; the next one gets a new policy.
func (p *KeyedPolicy[K]) Forget(key K) bool {
	s := p.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.items[key]
	if ok {
		s.remove(item)
	}
	return ok
}

// Range visits the policies of a moment until visit returns false, those used last
// first within each part of the table. It runs visit outside every lock.
func (p *KeyedPolicy[K]) Range(visit func(K, Policy) bool) {
	type pair struct {
		key    K
		policy Policy
	}
	for i := range p.shards {
		var found []pair
		s := &p.shards[i]
		s.mu.Lock()
		for item := s.ring.next; item != &s.ring; item = item.next {
			if policy, ok := item.value.done(); ok {
				found = append(found, pair{item.key, policy})
			}
		}
		s.mu.Unlock()
		for _, f := range found {
			if !visit(f.key, f.policy) {
				return
			}
		}
	}
}

// Policies returns the policies of the moment; [Walk] visits them.
func (p *KeyedPolicy[K]) Policies() []Policy {
	var all []Policy
	p.Range(func(_ K, policy Policy) bool {
		all = append(all, policy)
		return true
	})
	return all
}

// Stats counts keys; it locks each part of the table for a moment.
func (p *KeyedPolicy[K]) Stats() KeyedStats {
	stats := KeyedStats{Evicted: p.evicted.Load()}
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		stats.Keys += len(s.items)
		s.mu.Unlock()
	}
	return stats
}

// Name returns the configured name.
func (p *KeyedPolicy[K]) Name() string { return p.cfg.Name }

// Describe reports the settings. The policies of the keys are those of Policies.
func (p *KeyedPolicy[K]) Describe() Description {
	d := Description{Kind: "keyed", Name: p.cfg.Name, Settings: []Setting{setting("max-keys", p.cfg.MaxKeys)}}
	if p.cfg.IdleTTL > 0 {
		d.Settings = append(d.Settings, setting("idle-ttl", p.cfg.IdleTTL))
	}
	return d
}
