package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/armature-go/armature/resilience"
)

// screen prints from several goroutines.
type screen struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

const columns = "%4v  %-10s  %5v  %5v  %6v  %5v  %5v  %7v  %7v  %6v  %7v  %s\n"

func (s *screen) header() {
	s.printf(columns, "", "dependency", "calls", "ok", "failed", "open", "full", "limited", "retries", "hedges", "slowest", "breaker")
}

func (s *screen) row(number int, phase string, n counts, c *client) {
	s.printf(columns, number, phase, n.calls, n.ok, n.failed, n.open, n.full, n.limited,
		c.retries.Swap(0), c.hedges.Swap(0), n.slowest.Round(time.Millisecond), c.breaker.State())
}

// changed tells a change of the breaker when it happens.
func (s *screen) changed(e resilience.Event) {
	why := ""
	switch {
	case e.Err != nil:
		why = fmt.Sprintf(" (%v)", e.Err)
	case e.To == resilience.Open:
		why = " (too many slow calls)"
	}
	s.printf("      breaker %s: %v -> %v%s\n", e.Name, e.From, e.To, why)
}
