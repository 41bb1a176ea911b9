package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/failpoint"
)

// errStopped ends the drive of a saga without a verdict: the process is
// stopping, or the lease is gone.
var errStopped = errors.New("saga: coordinator is stopping")

// drive runs one saga until it is finished or cannot go on here.
func (t *term) drive(id string) {
	c := t.c
	var finished, clean bool
	defer func() {
		c.mu.Lock()
		delete(c.open, id)
		if !clean {
			// The open step may have run: the next one to pick the saga up,
			// also this node, must say so in the journal first.
			c.dirty[id] = struct{}{}
		} else {
			delete(c.dirty, id)
		}
		c.mu.Unlock()
		if finished {
			c.finished(id)
		}
	}()

	r, s, p, err := t.claim(id)
	switch {
	case errors.Is(err, ErrFenced), errors.Is(err, ErrNotFound), errors.Is(err, errNotMine):
		clean = true
		return
	case err != nil:
		if t.ctx.Err() == nil {
			c.cfg.Logger.WarnContext(t.ctx, "saga: cannot load, trying again", "saga_id", id, "error", err)
		}
		return
	}

	ctx := flow.Extract(t.ctx, flow.EventHeader(r.Header))
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(r.Header))
	ctx, span := c.tracer.Start(ctx, "saga "+r.Name, trace.WithAttributes(
		attribute.String("saga.id", id), attribute.Int("saga.version", r.Version), attribute.Int64("saga.epoch", r.Epoch)))
	defer span.End()
	ctx = flow.WithSaga(ctx, id, r.Epoch)

	err = t.advance(ctx, s, p)
	switch {
	case err == nil:
		finished, clean = true, true
		span.SetAttributes(attribute.String("saga.status", string(s.status)))
		level := slog.LevelInfo
		if s.status == Parked {
			level = slog.LevelError
			span.SetStatus(codes.Error, "parked")
		}
		c.cfg.Logger.LogAttrs(ctx, level, "saga "+string(s.status),
			slog.String("saga", r.Name), slog.String("id", id), slog.String("reason", s.reason), slog.Any("open_undos", s.openUndos()))
	case errors.Is(err, ErrFenced):
		clean = true
		c.cfg.Logger.WarnContext(ctx, "saga: fenced, another coordinator runs it", "id", id)
	case errors.Is(err, errStopped):
	default:
		c.cfg.Logger.WarnContext(ctx, "saga: stopped by an error of the store, trying again", "id", id, "error", err)
	}
}

// errNotMine means that somebody else runs the saga, or that it is finished.
var errNotMine = errors.New("saga: not this coordinator's")

// claim loads the saga and makes sure that this lease may write to it, with a
// takeover record where another run may have called the open step.
func (t *term) claim(id string) (Record, *state, program, error) {
	c := t.c
	r, entries, err := c.cfg.Store.Load(t.ctx, id)
	if err != nil {
		return r, nil, nil, err
	}
	if r.Status.Finished() {
		return r, nil, nil, errNotMine
	}
	p, ok := c.program(r)
	if !ok {
		c.reportUnknown(definitionID{r.Name, r.Version})
		return r, nil, nil, errNotMine
	}
	c.mu.Lock()
	_, dirty := c.dirty[id]
	c.mu.Unlock()
	if dirty || r.Node != c.cfg.Node || r.NodeEpoch != t.epoch {
		if err := c.cfg.Store.TakeOver(t.ctx, r, c.cfg.Node, t.epoch); err != nil {
			return r, nil, nil, err
		}
		if r, entries, err = c.cfg.Store.Load(t.ctx, id); err != nil {
			return r, nil, nil, err
		}
		c.cfg.Logger.InfoContext(t.ctx, "saga taken over", "saga", r.Name, "id", id, "epoch", r.Epoch)
	}
	s, err := replay(p, entries)
	if err == nil && r.Hash != p.fingerprint() {
		err = fmt.Errorf("definition %v changed its steps without a new version", p.id())
	}
	if err != nil {
		return r, nil, nil, t.parkUnreadable(r, err)
	}
	return r, s, p, nil
}

// parkUnreadable parks a saga whose journal does not fit its definition. It
// cannot go through the state, which could not be built.
func (t *term) parkUnreadable(r Record, cause error) error {
	e := Entry{SagaID: r.ID, Seq: r.Seq + 1, Epoch: r.Epoch, Kind: EntryParked, Step: -1, Error: cause.Error(), Time: time.Now()}
	if err := t.c.cfg.Store.Append(t.ctx, e, Parked); err != nil {
		return err
	}
	t.c.cfg.Logger.ErrorContext(t.ctx, "saga parked", "saga", r.Name, "id", r.ID, "reason", cause)
	t.c.finished(r.ID)
	return errNotMine
}

func (c *Coordinator) reportUnknown(id definitionID) {
	c.mu.Lock()
	seen := c.unknown[id]
	c.unknown[id] = true
	c.mu.Unlock()
	if !seen {
		c.cfg.Logger.Warn("saga: sagas of a definition that is not registered are waiting", "definition", id.String())
	}
}

// advance does what the state decides until nothing is left to do.
func (t *term) advance(ctx context.Context, s *state, p program) error {
	for {
		action, step := s.decide()
		var err error
		switch action {
		case actionNone:
			return nil
		case actionDo:
			err = t.forward(ctx, s, p, step)
		case actionUndo:
			err = t.backward(ctx, s, p, step)
		}
		if err != nil {
			return err
		}
	}
}

// forward runs one step to a verdict and writes the verdict down.
func (t *term) forward(ctx context.Context, s *state, p program, step int) error {
	m := s.steps[step]
	body, unknown, err := t.attempts(ctx, s, p, step, OpDo)
	failpoint.Hit("saga: step answered")
	switch {
	case errors.Is(err, errStopped), errors.Is(err, ErrFenced):
		return err
	case err == nil && m.local:
		return nil // the record was written with the effect
	case err == nil:
		return t.append(ctx, s, Entry{Kind: EntryDone, Step: step, Name: m.name, Body: body})
	case m.afterPivot:
		return t.append(ctx, s, Entry{Kind: EntryParked, Step: -1,
			Error: fmt.Sprintf("step %s, after the pivot: %v", m.name, err)})
	}
	// A local step leaves nothing behind. Of any other step that a coordinator
	// before this one may have called, even a refusal proves nothing.
	unknown = !m.local && (unknown || s.taken)
	return t.append(ctx, s, Entry{Kind: EntryAborted, Step: step, Name: m.name, Unknown: unknown, Error: err.Error()})
}

// backward undoes one step, or gives it up so that the others can go on.
func (t *term) backward(ctx context.Context, s *state, p program, step int) error {
	m := s.steps[step]
	_, _, err := t.attempts(ctx, s, p, step, OpUndo)
	failpoint.Hit("saga: undo answered")
	switch {
	case errors.Is(err, errStopped), errors.Is(err, ErrFenced):
		return err
	case err == nil && m.localUndo:
		return nil
	case err == nil:
		return t.append(ctx, s, Entry{Kind: EntryUndone, Step: step, Name: m.name})
	}
	return t.append(ctx, s, Entry{Kind: EntryUndoFailed, Step: step, Name: m.name,
		Error: fmt.Sprintf("undo of %s: %v", m.name, err)})
}

// attempts tries a step or its undo until it answers, refuses, or the attempts
// are spent. unknown says whether some attempt may have had an effect.
func (t *term) attempts(ctx context.Context, s *state, p program, step int, op Op) (body []byte, unknown bool, err error) {
	m := s.steps[step]
	policy, local := m.retry, m.local
	if op == OpUndo {
		policy, local = m.undoRetry, m.localUndo
	}
	// Undos and steps after the pivot have no way out but success.
	mustSucceed := op == OpUndo || m.afterPivot
	wait := policy.Initial
	for attempt := 1; ; attempt++ {
		if err := t.acquire(); err != nil {
			return nil, unknown, err
		}
		body, err = t.attempt(ctx, s, p, step, op, local)
		<-t.c.slots
		switch {
		case err == nil, errors.Is(err, ErrFenced):
			return body, unknown, err
		case t.ctx.Err() != nil:
			return nil, true, errStopped
		case !local && !IsRefused(err) && !notExecuted(err):
			unknown = true
		}
		if attempt >= policy.Attempts || (!mustSucceed && (IsRefused(err) || permanent(err))) {
			return nil, unknown, err
		}
		delay := jitter(wait)
		if after, ok := retryAfter(err); ok {
			delay = min(max(delay, after), policy.Max)
		}
		t.c.cfg.Logger.WarnContext(ctx, "saga step failed, trying again",
			"step", m.name, "op", op.String(), "attempt", attempt, "in", delay, "error", err)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-t.stop:
			timer.Stop()
			return nil, unknown, errStopped
		}
		wait = min(wait*2, policy.Max)
	}
}

func retryAfter(err error) (time.Duration, bool) {
	var e interface{ RetryAfter() (time.Duration, bool) }
	if errors.As(err, &e) {
		return e.RetryAfter()
	}
	return 0, false
}

// acquire takes a slot to run a step in, unless the coordinator is stopping.
func (t *term) acquire() error {
	select {
	case <-t.stop:
		return errStopped
	default:
	}
	select {
	case t.c.slots <- struct{}{}:
		return nil
	case <-t.stop:
		return errStopped
	}
}

// attempt calls the step once, under its timeout, in its own span.
func (t *term) attempt(ctx context.Context, s *state, p program, step int, op Op, local bool) (body []byte, err error) {
	m := s.steps[step]
	id, epoch, _ := flow.Saga(ctx)
	name := "saga step " + m.name
	if op == OpUndo {
		name = "saga undo " + m.name
	}
	ctx, span := t.c.tracer.Start(ctx, name, trace.WithAttributes(
		attribute.String("saga.id", id), attribute.String("saga.step", m.name), attribute.String("saga.op", op.String())))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	ctx = withStep(ctx, id, epoch, m.name, op)
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()

	defer func() {
		if r := recover(); r != nil {
			t.c.cfg.Logger.ErrorContext(ctx, "saga step panicked", "id", id, "step", m.name, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("saga: step %s panicked: %v", m.name, r)
		}
	}()
	if !local {
		return p.run(ctx, step, op, s.body)
	}
	kind := EntryDone
	if op == OpUndo {
		kind = EntryUndone
	}
	var e Entry
	err = t.c.cfg.Store.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		out, err := p.runTx(ctx, tx, step, op, s.body)
		if err != nil {
			return err
		}
		e = t.entry(s, id, Entry{Kind: kind, Step: step, Name: m.name})
		if op == OpDo {
			e.Body = out
		}
		status, err := s.after(e)
		if err != nil {
			return err
		}
		return t.c.cfg.Store.AppendTx(ctx, tx, e, status)
	})
	if err != nil {
		return nil, err
	}
	return e.Body, s.apply(e)
}

// append writes one record and applies it.
func (t *term) append(ctx context.Context, s *state, e Entry) error {
	id, _, _ := flow.Saga(ctx)
	e = t.entry(s, id, e)
	status, err := s.after(e)
	if err != nil {
		return err
	}
	if err := t.c.cfg.Store.Append(t.ctx, e, status); err != nil {
		return err
	}
	return s.apply(e)
}

func (t *term) entry(s *state, id string, e Entry) Entry {
	e.SagaID, e.Seq, e.Epoch, e.Time = id, s.seq+1, s.epoch, time.Now()
	return e
}
