package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// shards keeps verifications on many cores from waiting for one lock. A small
// cache has one, so that its bound is exact.
const (
	shards     = 16
	smallCache = 1024
)

// cache holds what was found out about tokens that are good. Each shard has two
// generations: when the young one is full it becomes the old one, and what is asked
// for again moves up. That bounds the memory and keeps what is used, with one map
// look-up for the usual hit and no list to maintain.
type cache[K comparable] struct {
	shards []shard[K]
	half   int // entries of one generation
}

type shard[K comparable] struct {
	mu         sync.RWMutex
	young, old map[K]cached
}

type cached struct {
	claims *Claims
	until  time.Time
}

func newCache[K comparable](size int) *cache[K] {
	n := shards
	if size < smallCache {
		n = 1
	}
	return &cache[K]{shards: make([]shard[K], n), half: max(1, size/n/2)}
}

// get compares the whole key. spread chooses the shard.
func (c *cache[K]) get(key K, spread byte, now time.Time) *Claims {
	s := &c.shards[int(spread)%len(c.shards)]
	s.mu.RLock()
	e, young := s.young[key]
	ok := young
	if !young {
		e, ok = s.old[key]
	}
	s.mu.RUnlock()
	if !ok || !now.Before(e.until) {
		return nil
	}
	if !young {
		c.put(key, spread, e)
	}
	return e.claims
}

func (c *cache[K]) put(key K, spread byte, e cached) {
	s := &c.shards[int(spread)%len(c.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil || len(s.young) >= c.half {
		s.young, s.old = make(map[K]cached, min(c.half, 64)), s.young
	}
	s.young[key] = e
}

func (c *cache[K]) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}

// tokenCache is made of functions, because what is in a function cannot be printed.
// get and put are called with tokens longer than spreadAt only.
type tokenCache struct {
	get func(token string, now time.Time) *Claims
	put func(token string, e cached)
	len func() int
}

func noTokens() tokenCache {
	return tokenCache{
		get: func(string, time.Time) *Claims { return nil },
		put: func(string, cached) {},
		len: func() int { return 0 },
	}
}

func wholeTokens(size int) tokenCache {
	c := newCache[string](size)
	return tokenCache{
		get: func(token string, now time.Time) *Claims { return c.get(token, token[len(token)-spreadAt], now) },
		put: func(token string, e cached) { c.put(token, token[len(token)-spreadAt], e) },
		len: c.len,
	}
}

func digestsOfTokens(size int) tokenCache {
	c := newCache[[sha256.Size]byte](size)
	return tokenCache{
		get: func(token string, now time.Time) *Claims {
			sum := sha256.Sum256([]byte(token))
			return c.get(sum, sum[0], now)
		},
		put: func(token string, e cached) {
			sum := sha256.Sum256([]byte(token))
			c.put(sum, sum[0], e)
		},
		len: c.len,
	}
}

// spreadAt counts from the end of a token, where the signature is: as good as random,
// except for its last character, which may hold only two bits.
const spreadAt = 3
