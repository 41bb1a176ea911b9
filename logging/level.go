package logging

import (
	"log/slog"
	"sync"
	"time"
)

// Level is the lowest level written, and can be changed while the program runs:
// for good, or for a while. Pass one as [Config.Level]. The zero value is
// slog.LevelInfo. Safe for concurrent use; reading it costs one atomic load.
type Level struct {
	now slog.LevelVar

	mu    sync.Mutex // guards what follows, and the writes to now
	base  slog.Level // what a change for a while ends in
	until time.Time  // zero while base rules
	timer *time.Timer
}

// LevelState is what a [Level] is at one moment.
type LevelState struct {
	Level slog.Level // lowest level written
	Base  slog.Level // what Level will be again; the same unless changed for a while
	Until time.Time  // when that will be, zero when Level is Base for good
}

// NewLevel returns a level that starts at l.
func NewLevel(l slog.Level) *Level {
	level := &Level{}
	level.Set(l)
	return level
}

// Level returns the level at this moment; it makes Level a [slog.Leveler].
func (l *Level) Level() slog.Level { return l.now.Level() }

// Set changes the level for good and ends a change for a while.
func (l *Level) Set(level slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	l.base = level
	l.now.Set(level)
}

// SetFor changes the level for the time d, after which it is again what was last
// set for good. A later Set or SetFor takes its place. It panics unless d is
// positive.
func (l *Level) SetFor(level slog.Level, d time.Duration) {
	if d <= 0 {
		panic("logging: set level for a while: the duration " + d.String() + " is not positive")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	l.now.Set(level)
	until := time.Now().Add(d)
	l.until = until
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.until.Equal(until) { // else another change came first
			l.cancel()
			l.now.Set(l.base)
		}
	})
}

// State returns the level and how long it stays.
func (l *Level) State() LevelState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LevelState{Level: l.now.Level(), Base: l.base, Until: l.until}
}

// cancel is called with mu held.
func (l *Level) cancel() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer, l.until = nil, time.Time{}
}
