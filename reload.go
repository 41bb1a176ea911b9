package armature

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultReloadInterval is how often [Live.Watch] reads the file.
const DefaultReloadInterval = 5 * time.Second

// ErrRestartNeeded is in the chain of the error of [Live.Reload] when a setting
// changed that is read only at the start.
var ErrRestartNeeded = errors.New("cannot change while the program runs; restart it")

// Change is a setting that has another value than before. Secrets are redacted;
// that one changed still shows.
type Change struct {
	Key    string
	Old    string
	New    string
	Origin string // of the new value, as [Value.Origin]
}

// LiveOptions configures [LoadLive].
type LiveOptions struct {
	LoadOptions
	// Interval is how often Watch reads the file to see whether its content
	// changed. Default DefaultReloadInterval.
	Interval time.Duration
}

// Live is a configuration that may change while the program runs. What Get
// returned never changes: a reload makes a new struct, checks it whole and puts
// it in the place of the old one, or refuses it whole. Safe for concurrent use.
type Live[T any] struct {
	defaults T
	opts     LiveOptions
	current  atomic.Pointer[loaded[T]]
	turn     chan struct{} // holds one token; who has it reloads

	mu   sync.Mutex // guards what follows
	told []func(now *T, changes []Change)
	seen digest // of the file at the last attempt
}

type loaded[T any] struct {
	value  *T
	loader *loader
}

// Watched is a *[Live] of any type, for [Service.Follow].
type Watched interface {
	Effective() *Effective
	Watch(ctx context.Context, logger *slog.Logger) error
	onChange(fn func(now any, changes []Change))
}

// LoadLive is [LoadConfig] into a copy of defaults, again and again. The fields
// with the tag `reload:"true"` may change later, the others need a restart.
// Values behind pointers in defaults are shared by the copies.
func LoadLive[T any](defaults T, opts LiveOptions) (*Live[T], error) {
	if opts.Interval < 0 {
		return nil, fmt.Errorf("armature: load live config: Interval = %v: must not be negative; leave it 0 for %v", opts.Interval, DefaultReloadInterval)
	}
	opts.Interval = cmp.Or(opts.Interval, DefaultReloadInterval)
	l := &Live[T]{defaults: defaults, opts: opts, turn: make(chan struct{}, 1)}
	first, err := l.load()
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, flag.ErrHelp
	case err != nil:
		return nil, fmt.Errorf("armature: load live config: %w", err)
	}
	l.opts.Output = nil // the usage is for the start
	l.current.Store(first)
	return l, nil
}

// load reads every source and remembers what the file held.
func (l *Live[T]) load() (*loaded[T], error) {
	next := &loaded[T]{value: new(T)}
	*next.value = l.defaults
	var err error
	next.loader, err = load(next.value, l.opts.LoadOptions)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = next.loader.content
	return next, err
}

// Get returns the configuration in force. Callers must not write to it.
func (l *Live[T]) Get() *T { return l.current.Load().value }

// Effective returns the values in force and where each came from.
func (l *Live[T]) Effective() *Effective { return l.current.Load().loader.effective() }

// OnChange registers a function that is called after each reload that changed
// something, with the struct now in force. Functions are called one after the
// other in the order of registration; they must not call Reload, which waits for
// them. A panic in one is an error of Reload and keeps no other from its turn.
func (l *Live[T]) OnChange(fn func(now *T, changes []Change)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fn)
}

func (l *Live[T]) onChange(fn func(any, []Change)) {
	l.OnChange(func(now *T, changes []Change) { fn(now, changes) })
}

// Reload reads file and environment again and returns what changed, in the order
// of the struct's fields. It waits for a reload under way, or for the end of ctx.
//
// On error the configuration in force stays as it was, all of it: when a source
// cannot be read, when Validate refuses, when a setting changed that has no
// `reload:"true"`, which is [ErrRestartNeeded]. The exception is a panic of a
// function given to OnChange, which comes after the change.
func (l *Live[T]) Reload(ctx context.Context) ([]Change, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("armature: reload config: %w", context.Cause(ctx))
	}
	next, err := l.load()
	if err != nil {
		return nil, fmt.Errorf("armature: reload config: %w", err)
	}
	before := l.current.Load()
	changes, err := compare(before.loader, next.loader)
	if err != nil {
		return nil, fmt.Errorf("armature: reload config: %w", err)
	}
	if len(changes) == 0 {
		next.value = before.value // equal; only the origins may differ
		l.current.Store(next)
		return nil, nil
	}
	l.current.Store(next)
	l.mu.Lock()
	told := l.told
	l.mu.Unlock()
	var errs []error
	for _, fn := range told {
		err := guard(ctx, func(context.Context) error { fn(next.value, changes); return nil })
		if err != nil {
			errs = append(errs, fmt.Errorf("armature: tell about the new config: %w", err))
		}
	}
	return changes, errors.Join(errs...)
}

// compare lists what differs, or says what must not.
func compare(old, now *loader) (changes []Change, err error) {
	var fixed []error
	for i, s := range now.settings {
		before := old.settings[i]
		if reflect.DeepEqual(before.field.Interface(), s.field.Interface()) {
			continue
		}
		c := Change{Key: s.key, Old: before.text(), New: s.text(), Origin: s.origin}
		if !s.reload {
			fixed = append(fixed, fmt.Errorf("%s: %s: %q to %q: %w", c.Origin, c.Key, c.Old, c.New, ErrRestartNeeded))
		}
		changes = append(changes, c)
	}
	if len(fixed) > 0 {
		return nil, errors.Join(fixed...)
	}
	return changes, nil
}

// Watch reloads when the file's content changes and on SIGHUP, until ctx ends,
// and returns nil then. Each change is a line in the log, and so is what was
// refused, once for each content of the file. A nil logger is silent. While no
// Watch runs, SIGHUP ends the program.
func (l *Live[T]) Watch(ctx context.Context, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(l.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		case <-tick.C:
			if !l.stale() {
				continue
			}
		}
		changes, err := l.Reload(ctx)
		for _, c := range changes {
			logger.InfoContext(ctx, "setting changed", slog.String("setting", c.Key), slog.String("old", c.Old), slog.String("new", c.New), slog.String("origin", c.Origin))
		}
		switch {
		case ctx.Err() != nil:
		case err != nil && len(changes) == 0:
			logger.ErrorContext(ctx, "configuration refused, the one before stays", slog.String("error", oneLine(err)))
		case err != nil:
			logger.ErrorContext(ctx, "configuration changed, and not everyone could be told", slog.String("error", oneLine(err)))
		}
	}
}

// stale reports whether the file is another than at the last attempt.
func (l *Live[T]) stale() bool {
	file := l.current.Load().loader.file
	if file == "" {
		return false
	}
	now := digestOf(os.ReadFile(file))
	l.mu.Lock()
	defer l.mu.Unlock()
	return now != l.seen
}

// digest tells one content of a file, or one failure to read it, from another.
type digest [sha256.Size]byte

func digestOf(data []byte, err error) digest {
	if err != nil {
		return sha256.Sum256([]byte("unreadable: " + err.Error()))
	}
	return sha256.Sum256(append([]byte("read: "), data...))
}

// oneLine is the text of a joined error for a log line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Follow keeps the service in step with a configuration: its log level follows
// the setting log_level, the admin server shows the values in force on /config,
// and a worker named "config" watches for changes. Register it before Run, once.
func (s *Service) Follow(c Watched) {
	s.Worker("config", func(ctx context.Context) error { return c.Watch(ctx, s.Logger) })
	s.config.Store(&shown{c.Effective})
	c.onChange(func(now any, changes []Change) {
		if settings, ok := now.(interface{ logLevel() slog.Level }); ok && s.level != nil && changed(changes, "log_level") {
			s.level.Set(settings.logLevel())
		}
	})
}

// ShowConfig shows what [LoadConfig] decided on the admin server's /config, secrets
// redacted.
func (s *Service) ShowConfig(e *Effective) {
	s.config.Store(&shown{func() *Effective { return e }})
}

// shown is where /config gets its values.
type shown struct{ effective func() *Effective }

func changed(changes []Change, key string) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return c.Key == key })
}

// logLevel makes structs that embed Settings follow log_level.
func (s *Settings) logLevel() slog.Level { return s.LogLevel }
