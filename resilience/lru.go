package resilience

import "sync"

// lruShard is a locked map that knows which of its items was used last.
type lruShard[K comparable, V any] struct {
	mu    sync.Mutex
	items map[K]*lruItem[K, V]
	ring  lruItem[K, V] // next is the item used last, prev the one unused longest
}

type lruItem[K comparable, V any] struct {
	next, prev *lruItem[K, V]
	key        K
	value      V
}

func newShards[K comparable, V any](n int) []lruShard[K, V] {
	shards := make([]lruShard[K, V], n)
	for i := range shards {
		s := &shards[i]
		s.items = make(map[K]*lruItem[K, V])
		s.ring.next, s.ring.prev = &s.ring, &s.ring
	}
	return shards
}

// shardCount is a power of two that leaves each shard enough keys for a fair share
// of them to fit.
func shardCount(keys int) int {
	n := 1
	for n < 64 && keys/(2*n) >= 256 {
		n *= 2
	}
	return n
}

// All methods are called with mu held.

func (s *lruShard[K, V]) get(key K) (*lruItem[K, V], bool) {
	item, ok := s.items[key]
	if ok && s.ring.next != item {
		item.unlink()
		s.link(item)
	}
	return item, ok
}

func (s *lruShard[K, V]) add(key K, value V) *lruItem[K, V] {
	item := &lruItem[K, V]{key: key, value: value}
	s.items[key] = item
	s.link(item)
	return item
}

func (s *lruShard[K, V]) remove(item *lruItem[K, V]) {
	delete(s.items, item.key)
	item.unlink()
}

// oldest walks from the item unused longest until visit returns false; visit may
// remove the item it is given.
func (s *lruShard[K, V]) oldest(visit func(*lruItem[K, V]) bool) {
	for item := s.ring.prev; item != &s.ring; {
		prev := item.prev
		if !visit(item) {
			return
		}
		item = prev
	}
}

func (s *lruShard[K, V]) link(item *lruItem[K, V]) {
	item.prev, item.next = &s.ring, s.ring.next
	item.next.prev, s.ring.next = item, item
}

func (i *lruItem[K, V]) unlink() {
	i.prev.next, i.next.prev = i.next, i.prev
}
