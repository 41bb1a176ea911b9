package logging

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	kitlog "github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// ToKit returns a go-kit logger that writes to l. The level comes from go-kit's
// level package, slog.LevelInfo without one; the value of "msg" becomes the
// message. Values that are a kitlog.Valuer are evaluated, a missing last value
// becomes kitlog.ErrMissingValue. A nil l is silent.
func ToKit(l *slog.Logger) kitlog.Logger {
	if l == nil {
		return kitlog.NewNopLogger()
	}
	return toKit{l.Handler()}
}

type toKit struct{ handler slog.Handler }

func (k toKit) Log(keyvals ...any) error {
	var (
		attrs   = make([]slog.Attr, 0, (len(keyvals)+1)/2)
		message string
		lvl     = slog.LevelInfo
		leveled bool
	)
	for i := 0; i < len(keyvals); i += 2 {
		var value any = kitlog.ErrMissingValue
		if i+1 < len(keyvals) {
			value = keyvals[i+1]
		}
		if valuer, ok := value.(kitlog.Valuer); ok {
			value = valuer()
		}
		if v, ok := value.(level.Value); ok {
			if !leveled { // the first one counts, as in level.NewFilter
				lvl, leveled = slogLevel(v), true
			}
			continue
		}
		switch key := fmt.Sprint(keyvals[i]); key {
		case slog.MessageKey:
			message = fmt.Sprint(value)
		default:
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	ctx := context.Background()
	if !k.handler.Enabled(ctx, lvl) {
		return nil
	}
	r := slog.NewRecord(time.Now(), lvl, message, 0)
	r.AddAttrs(attrs...)
	return k.handler.Handle(ctx, r)
}

func slogLevel(v level.Value) slog.Level {
	switch v {
	case level.DebugValue():
		return slog.LevelDebug
	case level.WarnValue():
		return slog.LevelWarn
	case level.ErrorValue():
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func kitLevel(l slog.Level) level.Value {
	switch {
	case l < slog.LevelInfo:
		return level.DebugValue()
	case l < slog.LevelWarn:
		return level.InfoValue()
	case l < slog.LevelError:
		return level.WarnValue()
	default:
		return level.ErrorValue()
	}
}

// FromKit returns a slog logger that writes to l: level first, then "msg", then
// the attributes, groups flattened with dots. The record's time is left to l,
// which usually has a "ts" valuer of its own; so is filtering by level. Nothing is
// redacted and no ids are added: put [NewHandler] in front for that. A nil l is
// silent.
func FromKit(l kitlog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&fromKit{logger: l})
}

type fromKit struct {
	logger  kitlog.Logger
	prefix  string
	keyvals []any
}

func (h *fromKit) Enabled(context.Context, slog.Level) bool { return true }

func (h *fromKit) Handle(_ context.Context, r slog.Record) error {
	keyvals := make([]any, 0, 4+len(h.keyvals)+2*r.NumAttrs())
	keyvals = append(keyvals, level.Key(), kitLevel(r.Level), slog.MessageKey, r.Message)
	keyvals = append(keyvals, h.keyvals...)
	r.Attrs(func(a slog.Attr) bool {
		keyvals = flatten(keyvals, h.prefix, a)
		return true
	})
	return h.logger.Log(keyvals...)
}

func (h *fromKit) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.keyvals = slices.Clone(h.keyvals)
	for _, a := range attrs {
		c.keyvals = flatten(c.keyvals, h.prefix, a)
	}
	return &c
}

func (h *fromKit) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix = h.prefix + name + "."
	return &c
}

// flatten appends a; the empty attribute is left out and a group without a name
// is inlined, as every slog handler has to do.
func flatten(keyvals []any, prefix string, a slog.Attr) []any {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return keyvals
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, child := range a.Value.Group() {
			keyvals = flatten(keyvals, prefix, child)
		}
		return keyvals
	}
	value := a.Value.Any()
	if valuer, ok := value.(kitlog.Valuer); ok {
		value = valuer()
	}
	return append(keyvals, prefix+a.Key, value)
}
