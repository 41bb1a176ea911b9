package armature

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// worker is one loop of the service. Its context is its own: it outlives Run's,
// because workers stop after the servers that feed them.
type worker struct {
	name   string
	run    func(context.Context) error
	cancel context.CancelFunc
	done   chan struct{}
	err    error // what it returned after it was told to stop; read after done
}

// start runs the worker; report receives an error it returns on its own account.
func (w *worker) start(base context.Context, report func(error)) {
	ctx, cancel := context.WithCancel(base)
	w.cancel = cancel
	go func() {
		defer close(w.done)
		err := guard(ctx, w.run)
		switch {
		case err == nil:
		case ctx.Err() == nil:
			report(fmt.Errorf("worker %s: %w", w.name, err))
		case !errors.Is(err, context.Canceled):
			w.err = fmt.Errorf("stop worker %s: %w", w.name, err)
		}
	}()
}

// stop ends the worker and waits, no longer than ctx.
func (w *worker) stop(ctx context.Context) error {
	if w.cancel == nil {
		return nil // never started
	}
	w.cancel()
	select {
	case <-w.done:
		return w.err
	default:
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("stop worker %s: still running when its time was over: %w", w.name, ctx.Err())
	}
}

// panicError is a panic of a worker, check or hook, as an error. The stack is for
// the log; the text stays one line.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// Unwrap returns the panic value where it was an error.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

func stack() []byte { return debug.Stack() }
