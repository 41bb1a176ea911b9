package play

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	width  = 40
	redraw = 100 * time.Millisecond
)

// progress is a bar on a terminal, and a line for each tenth elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	all      int

	mu           sync.Mutex
	sent, broken int
	drawn        time.Time
}

func newProgress(w io.Writer, terminal bool, all int) *progress {
	p := &progress{w: w, terminal: terminal, all: all}
	if terminal {
		p.draw()
	}
	return p
}

func (p *progress) add(broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	if broken {
		p.broken++
	}
	switch {
	case p.terminal && time.Since(p.drawn) >= redraw:
		p.draw()
	case !p.terminal && p.sent*10/p.all != (p.sent-1)*10/p.all:
		fmt.Fprintf(p.w, "%d of %d orders%s\n", p.sent, p.all, p.note())
	}
}

func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		p.draw()
		fmt.Fprintln(p.w)
	}
}

func (p *progress) draw() {
	p.drawn = time.Now()
	full := p.sent * width / p.all
	fmt.Fprintf(p.w, "\r[%s%s] %d of %d orders%s", strings.Repeat("=", full), strings.Repeat(" ", width-full), p.sent, p.all, p.note())
}

func (p *progress) note() string {
	if p.broken == 0 {
		return ""
	}
	return fmt.Sprintf(", %d not as expected", p.broken)
}
