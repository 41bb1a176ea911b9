package otelresilience_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/otelresilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// traced returns the events that fn causes, as "name key=value …".
func traced(t *testing.T, fn func(ctx context.Context)) []string {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	ctx, span := provider.Tracer("test").Start(t.Context(), "call")
	fn(ctx)
	span.End()
	var events []string
	for _, e := range spans.Ended()[0].Events() {
		line := []string{e.Name}
		for _, a := range e.Attributes {
			line = append(line, string(a.Key)+"="+a.Value.String())
		}
		events = append(events, strings.Join(line, " "))
	}
	return events
}

func TestEventsOfACall(t *testing.T) {
	t.Parallel()
	events := traced(t, func(ctx context.Context) {
		b, err := resilience.NewBreaker(resilience.BreakerConfig{
			Name: "payment", Window: resilience.Consecutive(), Failures: 1,
			OpenFor: resilience.OpenFixed(time.Minute), Observer: otelresilience.SpanEvents(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_ = resilience.Do(ctx, b, func(context.Context) error { return io.ErrUnexpectedEOF })
		}
	})
	want := []string{
		"armature.resilience.state_changed armature.resilience.policy=breaker armature.resilience.name=payment " +
			"armature.resilience.from=closed armature.resilience.to=open armature.resilience.duration=60 error.type=*errors.errorString",
		"armature.resilience.rejected armature.resilience.policy=breaker armature.resilience.name=payment error.type=open",
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	ended := &resilience.RetryError{
		Reason: resilience.StopAttempts, Attempts: 2,
		Errs: []error{errors.New("first"), &os.PathError{Op: "open", Path: "/home/ada", Err: os.ErrNotExist}},
	}
	for name, test := range map[string]struct {
		event resilience.Event
		want  string
	}{
		"nothing but a kind": {
			resilience.Event{Kind: resilience.EventHedge, Policy: "hedge", Attempt: 2},
			"armature.resilience.hedge armature.resilience.policy=hedge armature.resilience.attempt=2",
		},
		"limit, even when it is 0": {
			resilience.Event{Kind: resilience.EventLimitChanged, Policy: "adaptive", Name: "db"},
			"armature.resilience.limit_changed armature.resilience.policy=adaptive armature.resilience.name=db armature.resilience.limit=0",
		},
		"shadow": {
			resilience.Event{Kind: resilience.EventRejected, Policy: "breaker", Shadow: true, Err: resilience.ErrOpen},
			"armature.resilience.rejected armature.resilience.policy=breaker armature.resilience.shadow=true error.type=open",
		},
		"seconds": {
			resilience.Event{Kind: resilience.EventTimeout, Policy: "timeout", Duration: 250 * time.Millisecond},
			"armature.resilience.timeout armature.resilience.policy=timeout armature.resilience.duration=0.25",
		},
		"the last error of a retry": {
			resilience.Event{Kind: resilience.EventRetriesEnded, Policy: "retry", Attempt: 2, Err: ended},
			"armature.resilience.gave_up armature.resilience.policy=retry armature.resilience.attempt=2 " +
				"armature.resilience.reason=attempts exhausted error.type=*fs.PathError",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := traced(t, func(ctx context.Context) { otelresilience.SpanEvents().On(ctx, test.event) })
			if diff := cmp.Diff([]string{test.want}, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

type declined struct{}

func (declined) Error() string { return "card 4111 1111 1111 1111 declined" }

// Texts of errors carry what users typed; a trace must not.
func TestOnlyTheTypeOfAnErrorIsTold(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"otelresilience_test.declined": fmt.Errorf("pay for ada@example.org: %w", declined{}),
		"*errors.errorString":          errors.New("ada@example.org"),
		"*url.Error":                   &url.Error{Op: "Get", URL: "https://ada:secret@example.org", Err: errors.New("ada")},
		"canceled":                     fmt.Errorf("ada: %w", context.Canceled),
		"deadline_exceeded":            context.DeadlineExceeded,
		"timeout":                      &resilience.TimeoutError{Err: context.DeadlineExceeded},
		"rate_limited":                 resilience.ErrRateLimited,
		"throttled":                    resilience.ErrThrottled,
		"full":                         &resilience.FullError{Name: "db"},
	} {
		got := traced(t, func(ctx context.Context) {
			otelresilience.SpanEvents().On(ctx, resilience.Event{Kind: resilience.EventRejected, Policy: "x", Err: err})
		})
		if !strings.HasSuffix(got[0], " error.type="+want) || strings.Contains(got[0], "ada") || strings.Contains(got[0], "4111") {
			t.Errorf("%v: %s, want type %s", err, got[0], want)
		}
	}
}

// Not parallel: allocations of other tests would count.
func TestWithoutRecordingSpanNothingHappens(t *testing.T) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	ctx, span := provider.Tracer("test").Start(t.Context(), "call")
	defer span.End()
	observer := otelresilience.SpanEvents()
	event := resilience.Event{Kind: resilience.EventRetry, Policy: "retry", Name: "x", Attempt: 1, Err: io.EOF}
	for _, ctx := range []context.Context{ctx, t.Context()} {
		if n := testing.AllocsPerRun(100, func() { observer.On(ctx, event) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestKeysAreOurs(t *testing.T) {
	t.Parallel()
	for _, k := range []attribute.Key{
		otelresilience.PolicyKey, otelresilience.NameKey, otelresilience.FromKey, otelresilience.ToKey, otelresilience.AttemptKey,
		otelresilience.LimitKey, otelresilience.DurationKey, otelresilience.ShadowKey, otelresilience.ReasonKey,
	} {
		if !strings.HasPrefix(string(k), "armature.resilience.") {
			t.Errorf("%s is not in our namespace", k)
		}
	}
}
