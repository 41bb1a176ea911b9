package resilience

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Policy wraps an operation. Implementations call next.Run zero, one or several
// times, one after another, and return the error the caller is to see. They never
// see result types, so one breaker protects calls of any type. A Policy must be
// safe for concurrent use.
type Policy interface {
	// Run executes next under the policy.
	Run(ctx context.Context, next Next) error
	// Describe reports kind, name and settings for logs, tests and debug pages.
	Describe() Description
}

// Next is what remains to be done inside a policy: the inner policies and the
// operation. It is a small value; copying it is cheap and running it allocates
// nothing. The zero Next does nothing and succeeds.
type Next struct {
	inner []Policy
	op    operation
}

// Run executes the inner policies and the operation on the calling goroutine.
func (n Next) Run(ctx context.Context) error {
	if len(n.inner) > 0 {
		return n.inner[0].Run(ctx, Next{inner: n.inner[1:], op: n.op})
	}
	if n.op == nil {
		return nil
	}
	return n.op.run(ctx)
}

// Fork returns a copy that keeps its result to itself, for a policy that runs
// several attempts at the same time. Of those the policy adopts one and discards
// the others. Fork, Adopt and Discard may be called on any goroutine; one Next and
// one fork must not be used by two at a time.
func (n Next) Fork() Next {
	if n.op != nil {
		n.op = n.op.fork()
	}
	return n
}

// Adopt makes the result of fork, which must have ended, that of n.
func (n Next) Adopt(fork Next) {
	if n.op != nil {
		n.op.adopt(fork.op)
	}
}

// Discard disposes of the result of a fork that nobody will see: a response body
// is closed, the caller's [Discard] option gets the value.
func (n Next) Discard() {
	if n.op != nil {
		n.op.discard()
	}
}

// A Next is the operation of another one for a chain that sits inside a policy of
// the user's own.
func (n Next) run(ctx context.Context) error { return n.Run(ctx) }
func (n Next) fork() operation               { return n.Fork() }
func (n Next) adopt(fork operation)          { n.Adopt(fork.(Next)) }
func (n Next) discard()                      { n.Discard() }

// retain offers release to the operation; see retainer. False means that nobody
// took it and the policy releases ctx itself.
func (n Next) retain(ctx context.Context, release func()) bool {
	r, ok := n.op.(retainer)
	return ok && r.retain(ctx, release)
}

// operation is what Do and Call run: an interface rather than a func so that a
// typed call carries its result without a closure.
type operation interface {
	run(context.Context) error
	// fork returns the same operation with a result slot of its own.
	fork() operation
	// adopt takes over the result of a fork, which is not used any more.
	adopt(fork operation)
	// discard disposes of a result that nobody will see.
	discard()
}

// retainer is an operation whose result may need the context of its run for longer
// than the run takes, as the body of an HTTP response does. A policy that made ctx
// for an attempt offers its end, on the goroutine of the attempt and after the
// attempt has returned, with or without an error. True means that the operation
// calls release once: when the result is closed by its user, discarded, or replaced
// by that of another run. Several policies may offer one each for the same result;
// adopt takes those of the fork along. Until released, the deadline of ctx stays in
// force. release may be called on any goroutine and does not block.
type retainer interface {
	retain(ctx context.Context, release func()) bool
}

type opFunc func(context.Context) error

func (f opFunc) run(ctx context.Context) error { return f(ctx) }
func (f opFunc) fork() operation               { return f }
func (f opFunc) adopt(operation)               {}
func (f opFunc) discard()                      {}

type chain []Policy

// Chain combines policies; the first is the outermost. Nil policies are left out
// and nested chains are flattened, so a chain costs nothing per level. A chain
// without policies runs the operation as it is.
func Chain(outermost Policy, more ...Policy) Policy {
	c := make(chain, 0, 1+len(more))
	c = c.add(outermost)
	for _, p := range more {
		c = c.add(p)
	}
	return &c
}

func (c chain) add(p Policy) chain {
	switch p := p.(type) {
	case nil:
		return c
	case *chain:
		return append(c, *p...)
	default:
		return append(c, p)
	}
}

func (c *chain) Run(ctx context.Context, next Next) error {
	if len(next.inner) == 0 {
		return Next{inner: *c, op: next.op}.Run(ctx)
	}
	return Next{inner: *c, op: next}.Run(ctx)
}

func (c *chain) Describe() Description {
	d := Description{Kind: "chain"}
	for _, p := range *c {
		d.Children = append(d.Children, p.Describe())
	}
	d.Warnings = orderWarnings(*c)
	return d
}

// Policies returns the policies of the chain, outermost first.
func (c *chain) Policies() []Policy { return slices.Clone(*c) }

// Walk visits p and everything inside it: the members of a [Chain] and of any
// policy with a method Policies() []Policy, outermost first. A nil p has nothing
// to visit.
func Walk(p Policy, visit func(Policy)) {
	if p == nil {
		return
	}
	visit(p)
	if parent, ok := p.(interface{ Policies() []Policy }); ok {
		for _, child := range parent.Policies() {
			Walk(child, visit)
		}
	}
}

// orderWarnings names combinations that cannot do what they look like.
func orderWarnings(c chain) []string {
	var (
		warnings []string
		outer    *Timeout
		retry    *Retry
	)
	for _, p := range c {
		switch p := p.(type) {
		case *Timeout:
			if outer != nil && p.d >= outer.d {
				warnings = append(warnings, fmt.Sprintf(
					"timeout of %v inside a timeout of %v never fires", p.d, outer.d))
			}
			if outer == nil || p.d < outer.d {
				outer = p
			}
		case *Retry:
			if retry != nil {
				warnings = append(warnings, fmt.Sprintf(
					"retry inside retry: up to %d attempts", p.cfg.MaxAttempts*retry.cfg.MaxAttempts))
			}
			retry = p
		}
	}
	return warnings
}

// Description tells what a policy is and how it is set up.
type Description struct {
	Kind     string        // "breaker", "retry", "timeout", "bulkhead", "chain" or a kind of the user's own
	Name     string        // name given in the configuration, may be empty
	Settings []Setting     // effective settings, defaults filled in
	Children []Description // inner policies, outermost first
	Warnings []string      // combinations that cannot work as they look
}

// Setting is one effective setting in readable form.
type Setting struct{ Name, Value string }

// String renders the description as an indented tree, one policy per line.
func (d Description) String() string {
	var b strings.Builder
	d.write(&b, "")
	return strings.TrimSuffix(b.String(), "\n")
}

func (d Description) write(b *strings.Builder, indent string) {
	b.WriteString(indent + d.Kind)
	if d.Name != "" {
		fmt.Fprintf(b, " %q", d.Name)
	}
	for _, s := range d.Settings {
		b.WriteString(" " + s.Name + "=" + s.Value)
	}
	b.WriteByte('\n')
	for _, w := range d.Warnings {
		b.WriteString(indent + "  warning: " + w + "\n")
	}
	for _, c := range d.Children {
		c.write(b, indent+"  ")
	}
}

func setting(name string, value any) Setting {
	return Setting{Name: name, Value: fmt.Sprint(value)}
}

// configError names the field, its value, the rule and the way out.
func configError(kind, name, field string, value any, rule, fix string) error {
	if name != "" {
		kind += fmt.Sprintf(" %q", name)
	}
	return fmt.Errorf("resilience: configure %s: %s = %v: %s; %s", kind, field, value, rule, fix)
}
