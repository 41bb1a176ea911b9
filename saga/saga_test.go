package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type order struct {
	ID    string
	Trail []string
}

func openStore(t testing.TB) (*sqlstore.Store, *sql.DB) {
	t.Helper()
	db, dialect, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "saga.db")+"?sync=normal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: dialect})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store, db
}

// start runs a coordinator until the test ends or the returned func is called.
func start(t testing.TB, cfg saga.Config, defs ...*saga.Definition[order]) (*saga.Coordinator, func()) {
	t.Helper()
	if cfg.Node == "" {
		cfg.Node = "test"
	}
	c, err := saga.NewCoordinator(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range defs {
		if err := saga.Register(c, d); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// recorder notes what was called and answers from a script.
type recorder struct {
	mu     sync.Mutex
	calls  []string
	script map[string][]error
}

func (r *recorder) call(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, name)
	answers := r.script[name]
	if len(answers) == 0 {
		return nil
	}
	if len(answers) > 1 {
		r.script[name] = answers[1:]
	}
	if errors.Is(answers[0], errPanic) {
		panic(name)
	}
	return answers[0]
}

func (r *recorder) list() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.calls, " ")
}

func (r *recorder) step(name string) saga.StepOf[order] {
	return saga.Step(name, func(_ context.Context, o *order) error {
		o.Trail = append(o.Trail, name)
		return r.call(name)
	})
}

func (r *recorder) undoable(name string) saga.StepOf[order] {
	return r.step(name).Undo(func(context.Context, *order) error { return r.call("-" + name) })
}

var (
	errNo   = saga.Refuse(errors.New("no"))
	errLost = errors.New("connection lost")
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	quick := saga.Backoff{Initial: time.Second, Max: time.Second, Attempts: 3}
	tests := []struct {
		name   string
		script map[string][]error
		status saga.Status
		calls  string
		trail  string
		open   string
	}{
		{"all well", nil, saga.Completed, "a b c", "a b c", ""},
		{"first refused", map[string][]error{"a": {errNo}}, saga.Compensated, "a", "", ""},
		{"refused: not undone itself", map[string][]error{"b": {errNo}}, saga.Compensated, "a b -a", "a", ""},
		{"lost for good: undone itself", map[string][]error{"b": {errLost}}, saga.Compensated, "a b b b -b -a", "a", ""},
		{"lost, then refused: still undone", map[string][]error{"b": {errLost, errNo}}, saga.Compensated, "a b b -b -a", "a", ""},
		{"lost once", map[string][]error{"b": {errLost, nil}}, saga.Completed, "a b b c", "a b c", ""},
		{"not executed, then refused: nothing to undo", map[string][]error{"b": {notExecuted{}, errNo}}, saga.Compensated, "a b b -a", "a", ""},
		{"not worth a retry, yet unknown", map[string][]error{"b": {notRetryable{}}}, saga.Compensated, "a b -b -a", "a", ""},
		{"panic is unknown", map[string][]error{"b": {errPanic}}, saga.Compensated, "a b b b -b -a", "a", ""},
		{"after the pivot a refusal is tried again", map[string][]error{"c": {errNo, errLost, nil}}, saga.Completed, "a b c c c", "a b c", ""},
		{"after the pivot it parks", map[string][]error{"c": {errLost}}, saga.Parked, "a b c c c", "a b", ""},
		{"undo is tried again", map[string][]error{"b": {errNo}, "-a": {errLost, errNo, nil}}, saga.Compensated, "a b -a -a -a", "a", ""},
		{"a stuck undo does not hold up the others", map[string][]error{"b": {errLost}, "-b": {errLost}}, saga.Parked, "a b b b -b -b -b -a", "a", "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{script: tt.script}
				wrap := func(s saga.StepOf[order]) saga.StepOf[order] { return s.Retry(quick).UndoRetry(quick) }
				def, err := saga.Define("order", 1, wrap(r.undoable("a")), wrap(r.undoable("b")).Pivot(), wrap(r.step("c")))
				if err != nil {
					t.Fatal(err)
				}
				store, _ := openStore(t)
				c, stop := start(t, saga.Config{Store: store}, def)
				defer stop()
				if err := saga.Start(t.Context(), c, def, "o-1", &order{ID: "o-1"}); err != nil {
					t.Fatal(err)
				}
				info, err := c.Wait(t.Context(), "o-1")
				if err != nil {
					t.Fatal(err)
				}
				if info.Status != tt.status || r.list() != tt.calls {
					t.Errorf("%s after %q, want %s after %q", info.Status, r.list(), tt.status, tt.calls)
				}
				want := `{"ID":"o-1","Trail":null}`
				if tt.trail != "" {
					want = `{"ID":"o-1","Trail":["` + strings.ReplaceAll(tt.trail, " ", `","`) + `"]}`
				}
				if string(info.Data) != want {
					t.Errorf("data = %s, want %s", info.Data, want)
				}
				if got := strings.Join(info.OpenUndos, " "); got != tt.open {
					t.Errorf("open undos = %q, want %q", got, tt.open)
				}
				for i, e := range info.Journal {
					if e.Seq != int64(i+1) {
						t.Errorf("journal has a gap at %d", i)
					}
				}
			})
		})
	}
}

type notExecuted struct{}

func (notExecuted) Error() string     { return "breaker open" }
func (notExecuted) NotExecuted() bool { return true }

type notRetryable struct{}

func (notRetryable) Error() string   { return "internal" }
func (notRetryable) Retryable() bool { return false }

var errPanic = errors.New("panic, please")

func TestPanicParksNothingAndKillsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		def, err := saga.Define("order", 1,
			saga.Step("boom", func(context.Context, *order) error { panic("boom") }).NoUndo())
		if err != nil {
			t.Fatal(err)
		}
		store, _ := openStore(t)
		c, stop := start(t, saga.Config{Store: store}, def)
		defer stop()
		if err := saga.Start(t.Context(), c, def, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		info, err := c.Wait(t.Context(), "o-1")
		if err != nil || info.Status != saga.Compensated || !strings.Contains(info.Error, "panicked: boom") {
			t.Errorf("%s %q %v", info.Status, info.Error, err)
		}
	})
}

func TestResumeAfterRepair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		once := saga.Backoff{Attempts: 1}
		r := &recorder{script: map[string][]error{"b": {errNo}, "-a": {errLost, nil}}}
		def, err := saga.Define("order", 1, r.undoable("a").UndoRetry(once), r.undoable("b"))
		if err != nil {
			t.Fatal(err)
		}
		store, _ := openStore(t)
		c, stop := start(t, saga.Config{Store: store}, def)
		defer stop()
		if err := saga.Start(t.Context(), c, def, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		info, err := c.Wait(t.Context(), "o-1")
		if err != nil || info.Status != saga.Parked || !slices.Equal(info.OpenUndos, []string{"a"}) {
			t.Fatalf("%s, open %v, %v", info.Status, info.OpenUndos, err)
		}
		if err := c.Resume(t.Context(), "o-1", "ann: stock service repaired"); err != nil {
			t.Fatal(err)
		}
		info, err = c.Wait(t.Context(), "o-1")
		if err != nil || info.Status != saga.Compensated {
			t.Errorf("%s, %v", info.Status, err)
		}
		if err := c.Resume(t.Context(), "o-1", "again"); err == nil {
			t.Error("a finished saga was resumed")
		}
	})
}

func TestStartIsIdempotentAndStrict(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	def, err := saga.Define("order", 1, r.undoable("a"))
	if err != nil {
		t.Fatal(err)
	}
	store, db := openStore(t)
	c, err := saga.NewCoordinator(saga.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := saga.Start(ctx, c, def, "o-1", &order{}); err == nil || !strings.Contains(err.Error(), "saga.Register") {
		t.Errorf("unregistered: %v", err)
	}
	if err := saga.Register(c, def); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "a b", "ü", strings.Repeat("x", 129)} {
		if err := saga.Start(ctx, c, def, id, &order{}); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
	if err := saga.Start(ctx, c, def, "o-1", nil); err == nil {
		t.Error("nil data was taken")
	}
	if err := saga.Start(ctx, c, def, "o-1", &order{}); err != nil {
		t.Fatal(err)
	}
	if err := saga.Start(ctx, c, def, "o-1", &order{}); !errors.Is(err, saga.ErrExists) {
		t.Errorf("second start: %v, want ErrExists", err)
	}
	boom := errors.New("boom")
	err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		if err := saga.StartTx(ctx, tx, c, def, "o-2", &order{}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "o-2"); !errors.Is(err, saga.ErrNotFound) {
		t.Errorf("a rolled back saga exists: %v", err)
	}
	counts, err := c.Count(ctx)
	if err != nil || counts[saga.Running] != 1 || len(counts) != 1 {
		t.Errorf("counts = %v, %v", counts, err)
	}
}

func TestLocalStepsHappenWithTheirRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, db := openStore(t)
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE marks (what TEXT)"); err != nil {
			t.Fatal(err)
		}
		mark := func(what string, answer error) func(context.Context, *sql.Tx, *order) error {
			return func(ctx context.Context, tx *sql.Tx, _ *order) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO marks VALUES (?)", what); err != nil {
					return err
				}
				return answer
			}
		}
		def, err := saga.Define("order", 1,
			saga.LocalStep("open", mark("open", nil)).UndoTx(mark("cancel", nil)),
			saga.LocalStep("fail", mark("fail", errNo)).UndoTx(mark("never", nil)))
		if err != nil {
			t.Fatal(err)
		}
		c, stop := start(t, saga.Config{Store: store}, def)
		defer stop()
		if err := saga.Start(t.Context(), c, def, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		info, err := c.Wait(t.Context(), "o-1")
		if err != nil || info.Status != saga.Compensated {
			t.Fatalf("%s %v", info.Status, err)
		}
		var marks string
		if err := db.QueryRowContext(t.Context(), "SELECT group_concat(what, ' ') FROM (SELECT what FROM marks ORDER BY rowid)").Scan(&marks); err != nil {
			t.Fatal(err)
		}
		if marks != "open cancel" {
			t.Errorf("marks = %q; a refused local step must leave nothing, the one before is undone", marks)
		}
	})
}

func TestStepContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		tp := trace.NewTracerProvider(trace.WithSyncer(spans))
		defer func() { _ = tp.Shutdown(context.Background()) }()
		var keys []string
		look := func(ctx context.Context, _ *order) error {
			id, epoch, _ := flow.Saga(ctx)
			deadline, _ := ctx.Deadline()
			keys = append(keys, fmt.Sprint(flow.OutgoingIdempotencyKey(ctx), " ", saga.KeyFrom(ctx), " ", id, " ", epoch, " ",
				flow.CorrelationID(ctx), " ", time.Until(deadline)))
			return nil
		}
		def, err := saga.Define("order", 1,
			saga.Step("a", look).Undo(look).Timeout(7*time.Second),
			saga.Step("b", func(context.Context, *order) error { return errNo }).NoUndo())
		if err != nil {
			t.Fatal(err)
		}
		store, _ := openStore(t)
		c, stop := start(t, saga.Config{Store: store, TracerProvider: tp}, def)
		defer stop()
		synctest.Wait() // until the node has joined, so that the saga is its own from the start
		ctx, span := tp.Tracer("test").Start(flow.WithCorrelationID(t.Context(), "corr-1"), "request")
		if err := saga.Start(ctx, c, def, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		span.End()
		if _, err := c.Wait(t.Context(), "o-1"); err != nil {
			t.Fatal(err)
		}
		stop()
		want := []string{"o-1/a o-1/a o-1 1 corr-1 7s", "o-1/a/undo o-1/a o-1 1 corr-1 7s"}
		if !slices.Equal(keys, want) {
			t.Errorf("got  %q\nwant %q", keys, want)
		}
		for _, s := range spans.GetSpans() {
			if s.SpanContext.TraceID() != span.SpanContext().TraceID() {
				t.Errorf("span %q is of another trace", s.Name)
			}
		}
		if n := len(spans.GetSpans()); n != 5 {
			t.Errorf("%d spans, want request, saga, a, b, undo a", n)
		}
	})
}

func TestDefineRefuses(t *testing.T) {
	t.Parallel()
	ok := func(context.Context, *order) error { return nil }
	step := func(name string) saga.StepOf[order] { return saga.Step(name, ok).NoUndo() }
	tests := []struct {
		name  string
		steps []saga.StepOf[order]
		want  string
	}{
		{"none", nil, "no steps"},
		{"same name", []saga.StepOf[order]{step("a"), step("a")}, "used twice"},
		{"bad name", []saga.StepOf[order]{step("a/b")}, "use letters"},
		{"reserved name", []saga.StepOf[order]{step("undo")}, "use letters"},
		{"no undo", []saga.StepOf[order]{saga.Step("a", ok)}, "neither Undo nor NoUndo"},
		{"both", []saga.StepOf[order]{saga.Step("a", ok).Undo(ok).NoUndo()}, "both"},
		{"undo after the pivot", []saga.StepOf[order]{step("a").Pivot(), saga.Step("b", ok).Undo(ok)}, "after the pivot"},
		{"two pivots", []saga.StepOf[order]{step("a").Pivot(), step("b").Pivot()}, "second pivot"},
		{"nil function", []saga.StepOf[order]{saga.Step[order]("a", nil).NoUndo()}, "is nil"},
		{"nil undo", []saga.StepOf[order]{saga.Step("a", ok).Undo(nil)}, "undo is nil"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := saga.Define("order", 1, tt.steps...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want it to say %q", err, tt.want)
			}
		})
	}
	if _, err := saga.Define("order", 0, step("a")); err == nil {
		t.Error("version 0 passed")
	}
	for name, err := range map[string]error{
		"unexported": defineWith[struct{ hidden int }](),
		"function":   defineWith[struct{ F func() }](),
		"interface":  defineWith[struct{ V any }](),
		"skipped": defineWith[struct {
			V int `json:"-"`
		}](),
	} {
		if err == nil {
			t.Errorf("%s data passed", name)
		}
	}
	if err := defineWith[struct {
		At   time.Time
		Next *order
		Map  map[string][]order
	}](); err != nil {
		t.Error(err)
	}
}

func defineWith[T any]() error {
	_, err := saga.Define("x", 1, saga.Step("a", func(context.Context, *T) error { return nil }).NoUndo())
	return err
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"o-1/charge": "o-1/charge do", "o-1/charge/undo": "o-1/charge undo", "": " do", "/undo": " undo",
	} {
		base, op := saga.ParseKey(key)
		if got := base + " " + op.String(); got != want {
			t.Errorf("ParseKey(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestUnregisteredDefinitionWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		v1, err := saga.Define("order", 1, r.undoable("a"))
		if err != nil {
			t.Fatal(err)
		}
		v2, err := saga.Define("order", 2, r.undoable("b"))
		if err != nil {
			t.Fatal(err)
		}
		store, _ := openStore(t)
		first, err := saga.NewCoordinator(saga.Config{Store: store, Node: "first"})
		if err != nil {
			t.Fatal(err)
		}
		if err := saga.Register(first, v1); err != nil {
			t.Fatal(err)
		}
		if err := saga.Start(t.Context(), first, v1, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		_, stop := start(t, saga.Config{Store: store, Node: "second"}, v2)
		time.Sleep(time.Minute) // virtual
		stop()
		if r.list() != "" {
			t.Errorf("ran %q of a definition that was not registered", r.list())
		}
		c, stop := start(t, saga.Config{Store: store, Node: "third"}, v1, v2)
		defer stop()
		if info, err := c.Wait(t.Context(), "o-1"); err != nil || info.Status != saga.Completed {
			t.Errorf("%s %v", info.Status, err)
		}
	})
}

func TestChangedDefinitionParks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		before, err := saga.Define("order", 1, r.undoable("a"), r.undoable("b"))
		if err != nil {
			t.Fatal(err)
		}
		after, err := saga.Define("order", 1, r.undoable("b"), r.undoable("a"))
		if err != nil {
			t.Fatal(err)
		}
		store, _ := openStore(t)
		c, err := saga.NewCoordinator(saga.Config{Store: store, Node: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := saga.Register(c, before); err != nil {
			t.Fatal(err)
		}
		if err := saga.Register(c, after); err == nil {
			t.Error("two definitions under one version were taken")
		}
		if err := saga.Start(t.Context(), c, before, "o-1", &order{}); err != nil {
			t.Fatal(err)
		}
		next, stop := start(t, saga.Config{Store: store, Node: "y"}, after)
		defer stop()
		info, err := next.Wait(t.Context(), "o-1")
		if err != nil || info.Status != saga.Parked || r.list() != "" {
			t.Errorf("%s after %q, %v; want parked, nothing called", info.Status, r.list(), err)
		}
	})
}
