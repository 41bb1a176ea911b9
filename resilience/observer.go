package resilience

import (
	"context"
	"log/slog"
	"time"
)

// EventKind says what an [Event] is about.
type EventKind uint8

const (
	// EventStateChanged: a breaker went From one state To another. Duration is the
	// time it stays open, Err what opened it (nil for slow calls and Trip).
	EventStateChanged EventKind = iota + 1
	// EventRejected: a policy turned a call away; Err is the rejection. With Shadow
	// set the call ran all the same, because the policy only measures.
	EventRejected
	// EventSlowCall: a call took Duration, longer than a breaker allows.
	EventSlowCall
	// EventRetry: attempt number Attempt failed with Err and Duration later the next
	// one begins.
	EventRetry
	// EventRetriesEnded: a retry gave up after Attempt attempts; Err is the *[RetryError].
	EventRetriesEnded
	// EventTimeout: a timeout of Duration fired.
	EventTimeout
	// EventHedge: attempt number Attempt was started beside the ones under way.
	EventHedge
	// EventFallback: the fallback answered in place of Err.
	EventFallback
	// EventLimitChanged: an adaptive limit became Limit.
	EventLimitChanged
	// EventStoreFailed: the store of a shared limiter failed with Err.
	EventStoreFailed
	// EventInjected: chaos injected Err, or a delay of Duration.
	EventInjected
)

// String returns the kind in words of a log line, such as "state changed".
func (k EventKind) String() string {
	switch k {
	case EventStateChanged:
		return "state changed"
	case EventRejected:
		return "rejected"
	case EventSlowCall:
		return "slow call"
	case EventRetry:
		return "retry"
	case EventRetriesEnded:
		return "gave up"
	case EventTimeout:
		return "timeout"
	case EventHedge:
		return "hedge"
	case EventFallback:
		return "fallback"
	case EventLimitChanged:
		return "limit changed"
	case EventStoreFailed:
		return "store failed"
	case EventInjected:
		return "injected"
	default:
		return "invalid"
	}
}

// Event is something a policy did. Which fields are set depends on Kind.
type Event struct {
	Kind     EventKind
	Policy   string // kind of the policy, as in Description: "breaker", "retry", …
	Name     string // its name
	From, To State
	Attempt  int
	Limit    int
	Duration time.Duration
	Shadow   bool
	Err      error
}

// Observer is told what policies do. On is called outside every lock and may use
// the policy it is told about. It runs on a call's own goroutine and should be
// quick. One policy's state changes arrive one at a time and in order. ctx is that
// of the call that caused the event, or of nobody when a timer did.
type Observer interface {
	On(ctx context.Context, e Event)
}

// ObserverFunc makes a function an [Observer].
type ObserverFunc func(ctx context.Context, e Event)

// On calls f.
func (f ObserverFunc) On(ctx context.Context, e Event) { f(ctx, e) }

// Observers tells each of several observers in turn. Nil ones are left out.
func Observers(observers ...Observer) Observer {
	var all observerList
	for _, o := range observers {
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

type observerList []Observer

func (l observerList) On(ctx context.Context, e Event) {
	for _, o := range l {
		o.On(ctx, e)
	}
}

// LogEvents writes events to log: state changes, failed stores and the end of
// retries as warnings, everything else at level debug. A nil log is silent.
func LogEvents(log *slog.Logger) Observer {
	if log == nil {
		return observerList{}
	}
	return ObserverFunc(func(ctx context.Context, e Event) {
		level := slog.LevelDebug
		switch e.Kind {
		case EventStateChanged, EventStoreFailed, EventRetriesEnded:
			level = slog.LevelWarn
		}
		if log.Enabled(ctx, level) {
			log.LogAttrs(ctx, level, e.Policy+" "+e.Kind.String(), e.attrs()...)
		}
	})
}

func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("name", e.Name)}
	add := func(set bool, attr slog.Attr) {
		if set {
			attrs = append(attrs, attr)
		}
	}
	add(e.Kind == EventStateChanged, slog.String("from", e.From.String()))
	add(e.Kind == EventStateChanged, slog.String("to", e.To.String()))
	add(e.Attempt > 0, slog.Int("attempt", e.Attempt))
	add(e.Kind == EventLimitChanged, slog.Int("limit", e.Limit))
	add(e.Duration > 0, slog.Duration("duration", e.Duration))
	add(e.Shadow, slog.Bool("shadow", true))
	add(e.Err != nil, slog.Any("error", e.Err))
	return attrs
}
