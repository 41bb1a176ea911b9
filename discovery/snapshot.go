package discovery

import (
	"context"
	"iter"
	"slices"
	"strings"
)

// Snapshot is what is known about one service at one moment. It is immutable:
// whoever receives it reads Instances and does not write to it, and may keep it
// and share it between goroutines for as long as it likes.
type Snapshot struct {
	Instances []Instance // sorted by ID; empty when the service has no instance
	Rev       uint64     // grows with every change of Instances, from 1
	Stale     bool       // the registry cannot be reached; Instances is its last answer
	Err       error      // why it is Stale, nil otherwise
}

// NewSnapshot sorts a copy of instances by ID. Of two instances with the same
// ID the later one stays. It is meant for writers of a [Resolver].
func NewSnapshot(rev uint64, instances ...Instance) Snapshot {
	byID := slices.Clone(instances)
	slices.SortStableFunc(byID, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	kept := byID[:0]
	for _, in := range byID {
		if n := len(kept); n > 0 && kept[n-1].ID == in.ID {
			kept[n-1] = in
			continue
		}
		kept = append(kept, in)
	}
	return Snapshot{Instances: slices.Clip(kept), Rev: rev}
}

// Equal reports whether two snapshots hold the same instances in every field,
// whatever their Rev, Stale and Err say. It costs one pass over both.
func (s Snapshot) Equal(other Snapshot) bool {
	return slices.EqualFunc(s.Instances, other.Instances, Instance.equal)
}

// Resolver tells where a service is.
//
// Watch yields the current state first, then every new state until ctx ends or
// the consumer stops. A slow consumer misses states in between, never the last
// one. A service that nobody registered yields an empty Snapshot: absence is a
// state. Each range over the sequence is a watch of its own. Implementations are
// safe for concurrent use.
type Resolver interface {
	Watch(ctx context.Context, service string) iter.Seq[Snapshot]
}

// Registrar makes an instance known to those who watch its service.
//
// Register returns when the registry has accepted the instance; ctx bounds that
// wait only. The instance stays registered until [Registration.Drain].
// Implementations are safe for concurrent use.
type Registrar interface {
	Register(ctx context.Context, in Instance) (*Registration, error)
}
