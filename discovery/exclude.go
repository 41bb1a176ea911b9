package discovery

import (
	"context"
	"slices"
	"sync"
)

// ExcludeSet remembers which instances a call has tried, so that its next
// attempt goes elsewhere. The zero value is empty and ready; a nil set excludes
// nothing. It is safe for concurrent use and meant for a handful of IDs.
type ExcludeSet struct {
	mu  sync.Mutex
	ids []string
}

// Add puts an instance ID into the set. On a nil set it does nothing.
func (s *ExcludeSet) Add(id string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.ids, id) {
		s.ids = append(s.ids, id)
	}
}

// Has reports whether the ID is in the set.
func (s *ExcludeSet) Has(id string) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.ids, id)
}

// Len returns how many IDs are in the set.
func (s *ExcludeSet) Len() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

type excludeKey struct{}

// WithExclude returns a context with an empty ExcludeSet. Clients install it
// outside their retry policy, once per call, so that all attempts share it. A
// context that has a set already gets a new one.
func WithExclude(ctx context.Context) context.Context {
	return context.WithValue(ctx, excludeKey{}, new(ExcludeSet))
}

// ExcludeFrom returns the set of [WithExclude], nil when there is none.
func ExcludeFrom(ctx context.Context) *ExcludeSet {
	s, _ := ctx.Value(excludeKey{}).(*ExcludeSet)
	return s
}
