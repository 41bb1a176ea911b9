package resiliencetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/armature-go/armature/resilience"
)

// Recorder is a [resilience.Observer] that remembers every event. The zero value is
// ready; one recorder may serve many policies. Safe for concurrent use.
type Recorder struct {
	mu     sync.Mutex
	events []resilience.Event
}

// On remembers e.
func (r *Recorder) On(_ context.Context, e resilience.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Events returns the events so far, or those of kinds if some are named, in order.
func (r *Recorder) Events(kinds ...resilience.EventKind) []resilience.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []resilience.Event
	for _, e := range r.events {
		if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
			events = append(events, e)
		}
	}
	return events
}

// Reset forgets the events so far.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = nil
}

// States returns the states that the breaker called name went through since it was
// closed first, or those of all breakers if name is "".
func (r *Recorder) States(name string) []resilience.State {
	var states []resilience.State
	for _, e := range r.Events(resilience.EventStateChanged) {
		if name == "" || e.Name == name {
			states = append(states, e.To)
		}
	}
	return states
}

// Want fails the test unless exactly the events of these kinds happened, in order.
func (r *Recorder) Want(tb testing.TB, kinds ...resilience.EventKind) {
	tb.Helper()
	events := r.Events()
	if slices.EqualFunc(events, kinds, func(e resilience.Event, k resilience.EventKind) bool { return e.Kind == k }) {
		return
	}
	var want, got strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&want, "\n\t%v", k)
	}
	for _, e := range events {
		fmt.Fprintf(&got, "\n\t%v", Line(e))
	}
	tb.Errorf("events:%s\nwant:%s", orNone(&got), orNone(&want))
}

func orNone(b *strings.Builder) string {
	if b.Len() == 0 {
		return " none"
	}
	return b.String()
}

// WantStates fails the test unless the breaker called name, or any if name is "",
// went through exactly these states.
func (r *Recorder) WantStates(tb testing.TB, name string, states ...resilience.State) {
	tb.Helper()
	if got := r.States(name); !slices.Equal(got, states) {
		tb.Errorf("breaker %q went through %v, want %v", name, got, states)
	}
}

// Line renders an event for people: its kind, its policy and what is set of it.
func Line(e resilience.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s", e.Kind, e.Policy)
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	if e.Kind == resilience.EventStateChanged {
		fmt.Fprintf(&b, ", %v to %v", e.From, e.To)
	}
	if e.Kind == resilience.EventLimitChanged {
		fmt.Fprintf(&b, ", limit %d", e.Limit)
	}
	if e.Attempt > 0 {
		fmt.Fprintf(&b, ", attempt %d", e.Attempt)
	}
	if e.Duration > 0 {
		fmt.Fprintf(&b, ", %v", e.Duration)
	}
	if e.Shadow {
		b.WriteString(", shadow")
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ", %v", e.Err)
	}
	return b.String()
}
