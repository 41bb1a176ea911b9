package promresilience

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/armature-go/armature/resilience"
)

// Cache is what [Collector.AddCache] takes: a *[resilience.Cached] of any type.
type Cache interface {
	Name() string
	Stats() resilience.CachedStats
}

// Collector is a [prometheus.Collector] of policies. Safe for concurrent use; a
// scrape costs one Stats of every policy and some allocations.
type Collector struct {
	mu       sync.Mutex
	policies []resilience.Policy
	others   []source
	owners   map[owner]any // who has a kind and name
}

type owner struct{ kind, name string }

// source is what has statistics and is no policy.
type source struct {
	name    string
	collect func(add)
}

// New returns a collector of policies; see [Collector.Add].
func New(policies ...resilience.Policy) (*Collector, error) {
	c := &Collector{owners: map[owner]any{}}
	if err := c.Add(policies...); err != nil {
		return nil, err
	}
	return c, nil
}

// Add adds policies and what is inside them, as [resilience.Walk] finds it. Kinds
// that have no metrics, those of the user's own among them, are passed over, and so
// are nil ones. A policy that is met twice, because two chains share it, counts
// once.
//
// It is an error if a policy has no name, or if another one of the same kind has
// it already: then nothing is added. Members of a keyed policy, which come and go,
// are free from that; see the package documentation.
func (c *Collector) Add(policies ...resilience.Policy) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	claim := c.claim()
	var added []resilience.Policy
	for _, p := range policies {
		fixed(p, func(p resilience.Policy, dynamic bool) {
			measured := collect(p, func(*metric, float64, ...string) {})
			switch {
			case measured && claim.take(p.Describe().Kind, nameOf(p), p),
				!measured && dynamic && !slices.ContainsFunc(slices.Concat(c.policies, added), func(have resilience.Policy) bool { return same(have, p) }):
				added = append(added, p)
			}
		})
	}
	if err := claim.settle(); err != nil {
		return err
	}
	c.policies = append(c.policies, added...)
	return nil
}

// AddCache adds caches, under the same rules as [Collector.Add].
func (c *Collector) AddCache(caches ...Cache) error {
	return addOthers(c, "cache", caches, func(cache Cache, add add) { collectCache(cache.Stats(), add) })
}

// AddBudget adds budgets, under the same rules as [Collector.Add], which does not
// see those that retries and hedges share.
func (c *Collector) AddBudget(budgets ...*resilience.Budget) error {
	return addOthers(c, "budget", budgets, func(b *resilience.Budget, add add) { collectBudget(b.Stats(), add) })
}

func addOthers[T interface{ Name() string }](c *Collector, kind string, others []T, collect func(T, add)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	claim := c.claim()
	var added []source
	for _, o := range others {
		if claim.take(kind, o.Name(), o) {
			added = append(added, source{o.Name(), func(add add) { collect(o, add) }})
		}
	}
	if err := claim.settle(); err != nil {
		return err
	}
	c.others = append(c.others, added...)
	return nil
}

// claim gathers what one Add wants to own, and all its mistakes.
type claim struct {
	c    *Collector
	want map[owner]any
	errs []error
}

func (c *Collector) claim() *claim { return &claim{c: c, want: map[owner]any{}} }

// take reports whether v is new and may be added.
func (c *claim) take(kind, name string, v any) bool {
	if name == "" {
		c.errs = append(c.errs, fmt.Errorf("promresilience: add %s: it has no name to tell its series by; set one where it is made", kind))
		return false
	}
	key := owner{kind, strings.ToValidUTF8(name, "\uFFFD")}
	have, taken := c.want[key]
	if !taken {
		have, taken = c.c.owners[key]
	}
	switch {
	case taken && same(have, v):
		return false
	case taken:
		c.errs = append(c.errs, fmt.Errorf("promresilience: add %s %q: another %s has that name; rename one of them", kind, name, kind))
		return false
	}
	c.want[key] = v
	return true
}

func (c *claim) settle() error {
	if len(c.errs) > 0 {
		return errors.Join(c.errs...)
	}
	for key, v := range c.want {
		c.c.owners[key] = v
	}
	return nil
}

// same tells whether a and b are one and the same policy. A policy of the user's
// own may be of a type that cannot be compared.
func same(a, b any) (equal bool) {
	defer func() {
		if recover() != nil {
			equal = false
		}
	}()
	return a == b
}

// nameOf spares the policies of the package a Describe, which renders settings.
func nameOf(p resilience.Policy) string {
	if named, ok := p.(interface{ Name() string }); ok {
		return named.Name()
	}
	return p.Describe().Name
}

type parent interface{ Policies() []resilience.Policy }

// fixed visits p and, if p is a chain, its members. Any other policy with members
// is visited as dynamic: they may be others next time.
func fixed(p resilience.Policy, visit func(p resilience.Policy, dynamic bool)) {
	if p == nil {
		return
	}
	members, ok := p.(parent)
	switch {
	case !ok:
		visit(p, false)
	case p.Describe().Kind != "chain":
		visit(p, true)
	default:
		for _, member := range members.Policies() {
			fixed(member, visit)
		}
	}
}

// Describe announces every metric there is.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range all {
		ch <- m.desc
	}
}

// series identifies one: no metric has more than one label beside name.
type series struct {
	m           *metric
	name, label string
}

// Collect reads the policies. It holds no lock meanwhile.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	policies, others := slices.Clone(c.policies), slices.Clone(c.others)
	c.mu.Unlock()

	values := map[series]float64{}
	adder := func(name string) add {
		name = strings.ToValidUTF8(name, "\uFFFD")
		return func(m *metric, v float64, labels ...string) {
			key := series{m: m, name: name}
			if len(labels) > 0 {
				key.label = labels[0]
			}
			if old, ok := values[key]; ok {
				v = m.merge(old, v)
			}
			values[key] = v
		}
	}
	for _, root := range policies {
		resilience.Walk(root, func(p resilience.Policy) { collect(p, adder(nameOf(p))) })
	}
	for _, o := range others {
		o.collect(adder(o.name))
	}
	for s, v := range values {
		labels := []string{s.name}
		if len(s.m.labels) > 0 {
			labels = append(labels, s.label)
		}
		ch <- prometheus.MustNewConstMetric(s.m.desc, s.m.value, v, labels...)
	}
}
