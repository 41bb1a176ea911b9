package redisrate

import (
	"context"
	"time"

	"github.com/armature-go/armature/resilience"
)

// lease is what this process holds of a key.
type lease struct {
	asking chan struct{} // holds one token while Redis is asked

	// The rest belongs to Store.mu.
	limit resilience.RateLimit
	left  int
	until time.Duration // left may be used until then
	next  time.Duration // another lease cannot be had before
}

// takeLease hands out leased permits. Times are local and begin when the request
// was sent, before Redis granted it: a lease is never used for longer than LeaseFor.
func (s *Store) takeLease(ctx context.Context, key string, limit resilience.RateLimit, n, size int) (resilience.RateDecision, error) {
	l := s.lease(key, limit)
	if d, ok := s.fromLease(l, limit, n, size); ok {
		return d, nil
	}
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-ctx.Done():
		return resilience.RateDecision{}, ctx.Err()
	}
	// Whoever asked before may have brought enough.
	if d, ok := s.fromLease(l, limit, n, size); ok {
		return d, nil
	}
	sent := s.elapsed()
	a, err := s.ask(ctx, key, limit, size)
	if err != nil {
		return resilience.RateDecision{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.next = s.elapsed() + a.wait(size)
	if !a.granted {
		// What is left of an old lease stays usable.
		return s.decide(l, limit, n, false), nil
	}
	// What was left was too little for n. It is dropped, since it ends earlier.
	l.left, l.until, l.limit = size-n, sent+s.cfg.LeaseFor, limit
	return s.decide(l, limit, n, true), nil
}

func (s *Store) elapsed() time.Duration { return max(0, time.Since(s.base)) }

// lease returns the lease of key and forgets old ones now and then.
func (s *Store) lease(key string, limit resilience.RateLimit) *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[key]
	if ok {
		return l
	}
	if len(s.leases) >= s.sweep {
		now := s.elapsed()
		for key, old := range s.leases {
			if now >= old.until && now >= old.next && len(old.asking) == 0 {
				delete(s.leases, key)
			}
		}
		s.sweep = max(1024, 2*len(s.leases))
	}
	l = &lease{asking: make(chan struct{}, 1), limit: limit}
	s.leases[key] = l
	return l
}

// fromLease decides without Redis if it can.
func (s *Store) fromLease(l *lease, limit resilience.RateLimit, n, size int) (resilience.RateDecision, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.elapsed()
	if l.limit != limit { // it was changed
		l.left, l.next, l.limit = 0, 0, limit
	}
	if now >= l.until {
		l.left = 0
	}
	switch {
	case l.left >= n:
		l.left -= n
		return s.decide(l, limit, n, true), true
	case now < l.next:
		return s.decide(l, limit, n, false), true
	default:
		return resilience.RateDecision{}, false
	}
}

// decide tells about the lease; called with mu held.
func (s *Store) decide(l *lease, limit resilience.RateLimit, n int, allowed bool) resilience.RateDecision {
	again := max(0, l.next-s.elapsed())
	d := resilience.RateDecision{Allowed: allowed, Limit: most(limit), Remaining: l.left, ResetAfter: again}
	if !allowed {
		d.RetryAfter = max(time.Microsecond, again)
	}
	return d
}
