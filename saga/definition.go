package saga

import (
	"context"
	"database/sql"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Backoff says how often a step is tried and how long to wait between tries:
// Initial, doubled after each try up to Max, each wait drawn from its upper
// half so that sagas which failed together do not come back together.
type Backoff struct {
	// Initial is the wait after the first try. Default 100 ms.
	Initial time.Duration
	// Max bounds one wait. Default 1 s before the pivot, 1 min for undos and
	// for steps after the pivot.
	Max time.Duration
	// Attempts is how often the step is tried in all. Default 5 before the
	// pivot and 1 440 for undos and for steps after it, which is about a day.
	Attempts int
}

// StepOf is one step over data of type T. Its methods return a changed copy,
// so they chain.
type StepOf[T any] struct {
	meta   stepMeta
	do     func(ctx context.Context, data *T) error
	doTx   func(ctx context.Context, tx *sql.Tx, data *T) error
	undo   func(ctx context.Context, data *T) error
	undoTx func(ctx context.Context, tx *sql.Tx, data *T) error
}

// stepMeta is what the protocol needs to know of a step.
type stepMeta struct {
	name       string
	local      bool
	localUndo  bool
	hasUndo    bool
	noUndo     bool
	pivot      bool
	timeout    time.Duration
	retry      Backoff
	undoRetry  Backoff
	afterPivot bool
}

// Step is a step that calls a participant. do gets the data of the saga and may
// change it; the changes are kept only when it returns nil. It may run more
// than once, each time with the data as the step before left it.
func Step[T any](name string, do func(ctx context.Context, data *T) error) StepOf[T] {
	return StepOf[T]{meta: stepMeta{name: name}, do: do}
}

// LocalStep is a step in the database of the journal: what do writes with tx
// and the record that it was done are one transaction, so it happens exactly
// once. do must not call anybody else.
func LocalStep[T any](name string, do func(ctx context.Context, tx *sql.Tx, data *T) error) StepOf[T] {
	return StepOf[T]{meta: stepMeta{name: name, local: true}, doTx: do}
}

// Undo says how to take the step back. It may be called although the step
// never happened, when that could not be known.
func (s StepOf[T]) Undo(undo func(ctx context.Context, data *T) error) StepOf[T] {
	s.undo, s.meta.hasUndo = undo, true
	return s
}

// UndoTx is [StepOf.Undo] in the database of the journal, in one transaction
// with the record that it was undone.
func (s StepOf[T]) UndoTx(undo func(ctx context.Context, tx *sql.Tx, data *T) error) StepOf[T] {
	s.undoTx, s.meta.hasUndo, s.meta.localUndo = undo, true, true
	return s
}

// NoUndo says that there is nothing to take back.
func (s StepOf[T]) NoUndo() StepOf[T] {
	s.meta.noUndo = true
	return s
}

// Pivot marks the last step that may be refused. Once it is done the saga only
// goes forward.
func (s StepOf[T]) Pivot() StepOf[T] {
	s.meta.pivot = true
	return s
}

// Timeout bounds one try of the step and of its undo. Default 10 s.
func (s StepOf[T]) Timeout(d time.Duration) StepOf[T] {
	s.meta.timeout = d
	return s
}

// Retry sets how the step is tried again; zero fields keep their defaults.
func (s StepOf[T]) Retry(b Backoff) StepOf[T] {
	s.meta.retry = b
	return s
}

// UndoRetry sets how the undo is tried again; zero fields keep their defaults.
func (s StepOf[T]) UndoRetry(b Backoff) StepOf[T] {
	s.meta.undoRetry = b
	return s
}

// Definition is a checked sequence of steps over data of type T. It is
// immutable and safe for concurrent use.
type Definition[T any] struct {
	name    string
	version int
	hash    int64
	steps   []StepOf[T]
	metas   []stepMeta
}

// Name returns the name the definition was made with.
func (d *Definition[T]) Name() string { return d.name }

// Version returns the version the definition was made with.
func (d *Definition[T]) Version() int { return d.version }

// Define checks the steps and returns their definition. It refuses what would
// only fail in the middle of the night: a step up to the pivot that says neither
// Undo nor NoUndo, an undo after the pivot, two pivots, names that clash, and
// data that would lose fields in the journal. Data is kept as JSON.
//
// Change the version with every change of the steps: a saga started under
// another shape of the same version parks instead of being misread.
func Define[T any](name string, version int, steps ...StepOf[T]) (*Definition[T], error) {
	d := &Definition[T]{name: name, version: version, steps: slices.Clone(steps)}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !validName(name) {
		fail("name %q: use letters, digits, '-', '_' and '.'", name)
	}
	if version < 1 {
		fail("version %d: count from 1", version)
	}
	if len(steps) == 0 {
		fail("no steps: a saga needs at least one")
	}
	hash := fnv.New32a()
	seen := map[string]bool{}
	pivot := ""
	for i := range d.steps {
		s := &d.steps[i]
		m := &s.meta
		m.afterPivot = pivot != ""
		switch {
		case !validName(m.name):
			fail("step %d: name %q: use letters, digits, '-', '_' and '.'", i, m.name)
		case seen[m.name]:
			fail("step %q: the name is used twice; keys and journal records need different ones", m.name)
		}
		seen[m.name] = true
		if s.do == nil && s.doTx == nil {
			fail("step %q: its function is nil", m.name)
		}
		if m.hasUndo && s.undo == nil && s.undoTx == nil {
			fail("step %q: its undo is nil; say NoUndo if there is nothing to take back", m.name)
		}
		switch {
		case m.hasUndo && m.noUndo:
			fail("step %q: says both Undo and NoUndo; keep one", m.name)
		case m.afterPivot && m.hasUndo:
			fail("step %q: comes after the pivot %q and will never be undone; drop its Undo or move the pivot", m.name, pivot)
		case !m.afterPivot && !m.hasUndo && !m.noUndo:
			fail("step %q: says neither Undo nor NoUndo; add one", m.name)
		}
		if m.pivot {
			if pivot != "" {
				fail("step %q: is a second pivot after %q; a saga has one", m.name, pivot)
			}
			pivot = m.name
		}
		m.setDefaults()
		fmt.Fprintf(hash, "%s|%t|%t|%t;", m.name, m.local, m.hasUndo, m.pivot)
	}
	if err := journalable(reflect.TypeFor[T](), nil); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("saga: define %s: %w", name, err)
	}
	d.hash = int64(hash.Sum32())
	for i := range d.steps {
		d.metas = append(d.metas, d.steps[i].meta)
	}
	return d, nil
}

func (m *stepMeta) setDefaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&m.timeout, 10*time.Second)
	patient := func(b *Backoff) {
		or(&b.Initial, 100*time.Millisecond)
		or(&b.Max, time.Minute)
		if b.Attempts <= 0 {
			b.Attempts = 1440
		}
	}
	patient(&m.undoRetry)
	if m.afterPivot {
		patient(&m.retry)
		return
	}
	or(&m.retry.Initial, 100*time.Millisecond)
	or(&m.retry.Max, time.Second)
	if m.retry.Attempts <= 0 {
		m.retry.Attempts = 5
	}
}

func validName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return name != "" && name != "undo" && strings.Trim(name, allowed) == ""
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// journalable refuses types that JSON would lose or cannot write.
func journalable(t reflect.Type, path []reflect.Type) error {
	if t.Implements(jsonMarshaler) || t.Implements(textMarshaler) ||
		reflect.PointerTo(t).Implements(jsonMarshaler) || reflect.PointerTo(t).Implements(textMarshaler) ||
		slices.Contains(path, t) {
		return nil
	}
	path = append(path, t)
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("data type %v cannot be written to the journal: keep it out of the saga's data", t)
	case reflect.Interface:
		return fmt.Errorf("data type %v would come back from the journal as another type: use a concrete one", t)
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return journalable(t.Elem(), path)
	case reflect.Struct:
		for f := range t.Fields() {
			if !f.IsExported() && !f.Anonymous {
				return fmt.Errorf("data field %v.%s would be lost in the journal: export it", t, f.Name)
			}
			if f.Tag.Get("json") == "-" {
				return fmt.Errorf("data field %v.%s would be lost in the journal: drop its json:\"-\"", t, f.Name)
			}
			if err := journalable(f.Type, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// program is a Definition without its type parameter, as the coordinator runs it.
type program interface {
	id() definitionID
	fingerprint() int64
	steps() []stepMeta
	run(ctx context.Context, step int, op Op, body []byte) ([]byte, error)
	runTx(ctx context.Context, tx *sql.Tx, step int, op Op, body []byte) ([]byte, error)
}

type definitionID struct {
	name    string
	version int
}

func (id definitionID) String() string { return fmt.Sprintf("%s/%d", id.name, id.version) }

type typed[T any] struct{ *Definition[T] }

func (p typed[T]) id() definitionID   { return definitionID{p.name, p.version} }
func (p typed[T]) fingerprint() int64 { return p.hash }
func (p typed[T]) steps() []stepMeta  { return p.metas }

func (p typed[T]) run(ctx context.Context, step int, op Op, body []byte) ([]byte, error) {
	fn := p.Definition.steps[step].do
	if op == OpUndo {
		fn = p.Definition.steps[step].undo
	}
	return p.apply(body, func(data *T) error { return fn(ctx, data) })
}

func (p typed[T]) runTx(ctx context.Context, tx *sql.Tx, step int, op Op, body []byte) ([]byte, error) {
	fn := p.Definition.steps[step].doTx
	if op == OpUndo {
		fn = p.Definition.steps[step].undoTx
	}
	return p.apply(body, func(data *T) error { return fn(ctx, tx, data) })
}

// apply gives every attempt the journal's data, so that what a failed attempt
// changed in memory cannot leak into the next one.
func (p typed[T]) apply(body []byte, fn func(*T) error) ([]byte, error) {
	data := new(T)
	if err := json.Unmarshal(body, data); err != nil {
		return nil, Refuse(fmt.Errorf("saga: read the data of %s: %w", p.name, err))
	}
	if err := fn(data); err != nil {
		return nil, err
	}
	out, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("saga: write the data of %s: %w", p.name, err)
	}
	return out, nil
}
