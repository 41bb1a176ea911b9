package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/slogtest"

	kitlog "github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLogger(t *testing.T, cfg logging.Config) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	cfg.Writer = &out
	if cfg.Service == "" {
		cfg.Service = "order"
	}
	l, err := logging.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

// line decodes the only line written, without its time.
func line(t *testing.T, out *bytes.Buffer) map[string]any {
	t.Helper()
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines:\n%s", n, out)
	}
	var fields map[string]any
	if err := json.Unmarshal(out.Bytes(), &fields); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if _, ok := fields["time"]; !ok {
		t.Errorf("no time in %s", out)
	}
	delete(fields, "time")
	return fields
}

func inFlight() context.Context {
	ctx := flow.WithCorrelationID(context.Background(), "corr-1")
	ctx = flow.WithSaga(ctx, "saga-1", 2)
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab, 15: 1}, SpanID: trace.SpanID{0xcd, 7: 1},
	}))
}

func TestLineHoldsServiceAndIDs(t *testing.T) {
	t.Parallel()
	l, out := newLogger(t, logging.Config{Service: "order", Environment: "test", Version: "1.2.3"})
	l.InfoContext(inFlight(), "placed", "order_id", 7)
	want := map[string]any{
		"level": "INFO", "msg": "placed", "service": "order", "env": "test", "version": "1.2.3",
		"correlation_id": "corr-1", "saga_id": "saga-1", "order_id": 7.0,
		"trace_id": "ab000000000000000000000000000001", "span_id": "cd00000000000001",
	}
	if diff := cmp.Diff(want, line(t, out)); diff != "" {
		t.Error(diff)
	}
}

func TestIDsStayAtTheTop(t *testing.T) {
	t.Parallel()
	l, out := newLogger(t, logging.Config{})
	l = l.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h")
	sibling := l.With("other", true) // must not show up in the line below
	_ = sibling
	l.With("c", 3).InfoContext(inFlight(), "m", "d", 4)
	want := map[string]any{
		"level": "INFO", "msg": "m", "service": "order", "a": 1.0,
		"correlation_id": "corr-1", "saga_id": "saga-1",
		"trace_id": "ab000000000000000000000000000001", "span_id": "cd00000000000001",
		"g": map[string]any{"b": 2.0, "h": map[string]any{"c": 3.0, "d": 4.0}},
	}
	if diff := cmp.Diff(want, line(t, out)); diff != "" {
		t.Error(diff)
	}
}

func TestSiblingsShareNothing(t *testing.T) {
	t.Parallel()
	l, out := newLogger(t, logging.Config{})
	for _, name := range []string{"a", "b", "c"} {
		l = l.WithGroup(name)
	}
	x, y := l.WithGroup("x"), l.WithGroup("y")
	x.Info("m", "n", 1)
	_ = y
	if !strings.Contains(out.String(), `"a":{"b":{"c":{"x":{"n":1}}}}`) {
		t.Errorf("wrote %s", out)
	}
}

func TestHandlerKeepsTheContractOfSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := slogtest.TestHandler(logging.NewHandler(slog.NewJSONHandler(&out, nil)), func() (lines []map[string]any) {
		for _, text := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
			var fields map[string]any
			if err := json.Unmarshal(text, &fields); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fields)
		}
		return lines
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLevelChangesAtRunTime(t *testing.T) {
	t.Parallel()
	var lvl slog.LevelVar
	l, out := newLogger(t, logging.Config{Level: &lvl})
	l = l.WithGroup("g")
	l.Debug("one")
	if out.Len() > 0 {
		t.Errorf("debug at info: %s", out)
	}
	lvl.Set(slog.LevelDebug)
	l.Debug("two")
	line(t, out)
	lvl.Set(slog.LevelError)
	if l.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("warn enabled at error")
	}
}

type customer struct{ name, card string }

func (c customer) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", c.name), slog.String("card", c.card))
}

type payment struct {
	ID         string
	CardNumber string            `json:"cardNumber"`
	Steps      []map[string]any  `json:"steps"`
	Labels     map[string]string `json:"labels"`
	Amount     int64
}

func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	const secret = "4111-1111"
	l := func() (*slog.Logger, *bytes.Buffer) {
		return newLogger(t, logging.Config{Redact: []string{"voucher", "tax id"}})
	}
	header := http.Header{"Authorization": {secret}, "Accept": {"text/plain"}}
	deep := payment{ID: "p1", CardNumber: secret, Amount: 1 << 60,
		Steps: []map[string]any{{"api-key": secret, "n": 1}}, Labels: map[string]string{"colour": "red"}}
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		keep string // must still be on the line
	}{
		{"attribute", func(l *slog.Logger) { l.Info("m", "password", secret, "n", "kept") }, "kept"},
		{"case and separators", func(l *slog.Logger) { l.Info("m", "X-API-Key", secret) }, "X-API-Key"},
		{"camel case", func(l *slog.Logger) { l.Info("m", "cardNumber", secret) }, "cardNumber"},
		{"initials", func(l *slog.Logger) { l.Info("m", "userJWTValue", secret) }, "userJWTValue"},
		{"plural", func(l *slog.Logger) { l.Info("m", "access_tokens", secret) }, "access_tokens"},
		{"own word", func(l *slog.Logger) { l.Info("m", "voucher_code", secret) }, "voucher_code"},
		{"own word of two parts", func(l *slog.Logger) { l.Info("m", "taxID", secret, "TAX_ID", secret, "taxid", secret) }, "taxID"},
		{"number", func(l *slog.Logger) { l.Info("m", "cvv", 41111111) }, "cvv"},
		{"group", func(l *slog.Logger) { l.Info("m", slog.Group("a", slog.Group("b", "token", secret, "n", "kept"))) }, "kept"},
		{"secret group", func(l *slog.Logger) { l.Info("m", slog.Group("card", "digits", secret)) }, "card"},
		{"open secret group", func(l *slog.Logger) { l.WithGroup("credentials").Info("m", "user", secret) }, "credentials"},
		{"with", func(l *slog.Logger) { l.With("token", secret).Info("m") }, "token"},
		{"with in group", func(l *slog.Logger) { l.WithGroup("g").With("token", secret).Info("m") }, "token"},
		{"log valuer", func(l *slog.Logger) { l.Info("m", "customer", customer{"Ann", secret}) }, "Ann"},
		{"log valuer with", func(l *slog.Logger) { l.With("customer", customer{"Ann", secret}).Info("m") }, "Ann"},
		{"struct", func(l *slog.Logger) { l.Info("m", "payment", deep) }, fmt.Sprint(1 << 60)},
		{"pointer to struct", func(l *slog.Logger) { l.Info("m", "payment", &deep) }, "colour"},
		{"slice of structs", func(l *slog.Logger) { l.Info("m", "payments", []payment{deep}) }, "p1"},
		{"header", func(l *slog.Logger) { l.Info("m", "header", header) }, "text/plain"},
		{"cannot be inspected", func(l *slog.Logger) {
			l.Info("m", "x", struct {
				Password string
				F        func()
			}{Password: secret})
		}, "cannot be inspected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, out := l()
			tt.log(l)
			if strings.Contains(out.String(), secret) || strings.Contains(out.String(), "41111111") {
				t.Errorf("secret in %s", out)
			}
			if !strings.Contains(out.String(), logging.Redacted) || !strings.Contains(out.String(), tt.keep) {
				t.Errorf("%q or the mark is missing in %s", tt.keep, out)
			}
		})
	}
}

func TestOthersAreNotRedacted(t *testing.T) {
	t.Parallel()
	l, out := newLogger(t, logging.Config{})
	l.Info("m", "discard", "1", "cardinality", "2", "company", "3", "panel", "4", "err", errors.New("5"),
		"steps", []string{"6"}, "order", map[string]int{"n": 7}, "idempotency_key", "8", "", "9", "spancount", "10")
	if strings.Contains(out.String(), logging.Redacted) {
		t.Errorf("redacted in %s", out)
	}
	line(t, out)
}

func TestNewNeedsAService(t *testing.T) {
	t.Parallel()
	_, err := logging.New(logging.Config{})
	if err == nil || !strings.Contains(err.Error(), "Service") {
		t.Errorf("error = %v", err)
	}
}

type stringer struct{}

func (stringer) String() string { return "key" }

func TestToKit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		log  func(kitlog.Logger) error
		want map[string]any // nil for no line
	}{
		{"plain", func(l kitlog.Logger) error { return l.Log("msg", "hi", "n", 1) }, map[string]any{"level": "INFO", "msg": "hi", "n": 1.0}},
		{"level", func(l kitlog.Logger) error { return level.Error(l).Log("msg", "hi") }, map[string]any{"level": "ERROR", "msg": "hi"}},
		{"first level counts", func(l kitlog.Logger) error { return level.Warn(level.Error(l)).Log() }, map[string]any{"level": "WARN", "msg": ""}},
		{"too low", func(l kitlog.Logger) error { return level.Debug(l).Log("msg", "hi") }, nil},
		{"odd", func(l kitlog.Logger) error { return l.Log("msg", "hi", "n") }, map[string]any{"level": "INFO", "msg": "hi", "n": "(MISSING)"}},
		{"valuer", func(l kitlog.Logger) error { return l.Log("v", kitlog.Valuer(func() any { return 7 })) }, map[string]any{"level": "INFO", "msg": "", "v": 7.0}},
		{"bound valuer", func(l kitlog.Logger) error {
			return kitlog.With(l, "v", kitlog.Valuer(func() any { return 7 })).Log("msg", "hi")
		}, map[string]any{"level": "INFO", "msg": "hi", "v": 7.0}},
		{"odd keys", func(l kitlog.Logger) error { return l.Log(stringer{}, 1, 2, 3, nil, 4) }, map[string]any{"level": "INFO", "msg": "", "key": 1.0, "2": 3.0, "<nil>": 4.0}},
		{"redacted", func(l kitlog.Logger) error { return l.Log("token", "abc") }, map[string]any{"level": "INFO", "msg": "", "token": logging.Redacted}},
		{"error", func(l kitlog.Logger) error { return l.Log("err", errors.New("down")) }, map[string]any{"level": "INFO", "msg": "", "err": "down"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, out := newLogger(t, logging.Config{})
			if err := tt.log(logging.ToKit(l)); err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				if out.Len() > 0 {
					t.Errorf("wrote %s", out)
				}
				return
			}
			tt.want["service"] = "order"
			if diff := cmp.Diff(tt.want, line(t, out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFromKit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("hi", "n", 1) }, `level=info msg=hi n=1`},
		{"levels", func(l *slog.Logger) { l.Log(context.Background(), slog.LevelWarn+1, "hi") }, `level=warn msg=hi`},
		{"debug", func(l *slog.Logger) { l.Debug("hi") }, `level=debug msg=hi`},
		{"error", func(l *slog.Logger) { l.Error("hi") }, `level=error msg=hi`},
		{"groups", func(l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).Info("hi", slog.Group("h", "c", 3), slog.Group("", "d", 4), slog.Attr{})
		}, `level=info msg=hi a=1 g.b=2 g.h.c=3 g.d=4`},
		{"no name", func(l *slog.Logger) { l.WithGroup("").Info("hi", "n", 1) }, `level=info msg=hi n=1`},
		{"log valuer", func(l *slog.Logger) { l.Info("hi", "c", customer{"Ann", "x"}) }, `level=info msg=hi c.name=Ann c.card=x`},
		{"kit valuer", func(l *slog.Logger) { l.Info("hi", "v", kitlog.Valuer(func() any { return 7 })) }, `level=info msg=hi v=7`},
		{"there and back", func(l *slog.Logger) {
			_ = level.Warn(logging.ToKit(l)).Log("msg", "hi", "n", 1)
		}, `level=warn msg=hi n=1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			tt.log(logging.FromKit(kitlog.NewLogfmtLogger(&out)))
			if got := strings.TrimSpace(out.String()); got != tt.want {
				t.Errorf("wrote %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFromKitKeepsTheContractOfSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := logging.FromKit(kitlog.NewLogfmtLogger(&out))
	a := l.With("x", 1)
	b := a.With("y", 2)
	c := a.With("z", 3) // shares nothing with b
	b.Info("b")
	c.Info("c")
	if got, want := out.String(), "level=info msg=b x=1 y=2\nlevel=info msg=c x=1 z=3\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func TestNilLoggersAreSilent(t *testing.T) {
	t.Parallel()
	if err := logging.ToKit(nil).Log("msg", "hi"); err != nil {
		t.Error(err)
	}
	logging.FromKit(nil).Info("hi")
}

// FuzzRedact looks for keys that break the matcher, and for secrets that slip by
// behind a prefix.
func FuzzRedact(f *testing.F) {
	for _, key := range []string{"", "_", "token", "Ünïcode", "aB", "AB", "ABc", "x-y_z", "\xff"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		var out bytes.Buffer
		l := slog.New(logging.NewHandler(slog.NewJSONHandler(&out, nil)))
		l.Info("m", key+"_password", "hunter2")
		l.Info("m", slog.Group(key, slog.String("token", "hunter2")))
		if strings.Contains(out.String(), "hunter2") {
			t.Errorf("key %q lets a secret through: %s", key, out.String())
		}
	})
}

func BenchmarkInfoContext(b *testing.B) {
	l, err := logging.New(logging.Config{Service: "order", Writer: discard{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx := inFlight()
	b.ReportAllocs()
	for b.Loop() {
		l.InfoContext(ctx, "placed", "order_id", "o-1", "amount", 1999)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// strangerError is an error as transports have it: strangers see its JSON, the log its text.
type strangerError struct{ cause string }

func (e *strangerError) Error() string              { return "unavailable: " + e.cause }
func (*strangerError) MarshalJSON() ([]byte, error) { return []byte(`{"title":"unavailable"}`), nil }

func TestErrorsShowTheirTextWhateverTheirJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := logging.New(logging.Config{Service: "test", Writer: &out})
	if err != nil {
		t.Fatal(err)
	}
	var absent *strangerError
	log.Info("failed", "error", &strangerError{"disk full"}, "group", slog.GroupValue(slog.Any("error", &strangerError{"no route"})), "none", absent)
	for _, want := range []string{"unavailable: disk full", "unavailable: no route", "without a text"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s does not say %q", out.String(), want)
		}
	}
}
