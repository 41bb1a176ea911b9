package armature

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// Main runs a program until it is done or told to stop, and exits with its
// status: 0 when run returned nil, 1 with the error on standard error otherwise.
//
// The first SIGINT or SIGTERM ends run's context, with the signal as its cause;
// the second exits at once with 128 plus the signal's number, for the operator
// who does not want to wait for a drain. Main is the last call of main: it does
// not return, so deferred calls of its caller do not run.
func Main(run func(ctx context.Context) error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		cancel(fmt.Errorf("received %v", <-signals))
		code := 1
		if sig, ok := (<-signals).(syscall.Signal); ok {
			code = 128 + int(sig)
		}
		os.Exit(code)
	}()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RunAll runs several services in one process. They start in the order given,
// each when the one before is ready, and stop in reverse order, each when the
// one after it has drained: name those that are called before those that call.
// When one fails, all stop. It returns everything that went wrong.
func RunAll(ctx context.Context, services ...*Service) error {
	type member struct {
		stop context.CancelCauseFunc
		done chan error // receives what Run returned, once
	}
	var members []member
	failed := make(chan struct{})
	var once sync.Once

	var cause error
start:
	for _, s := range services {
		run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
		m := member{stop: stop, done: make(chan error, 1)}
		members = append(members, m)
		go func() {
			err := s.Run(run)
			m.done <- err
			if run.Err() == nil { // it ended on its own account
				once.Do(func() { close(failed) })
			}
		}()
		select {
		case <-s.Ready():
		case <-failed:
			break start
		case <-ctx.Done():
			cause = context.Cause(ctx)
			break start
		}
	}
	if cause == nil {
		select {
		case <-failed:
			cause = errors.New("another service of the process stopped")
		case <-ctx.Done():
			cause = context.Cause(ctx)
		}
	}
	var errs []error
	for _, m := range slices.Backward(members) {
		m.stop(cause)
		errs = append(errs, <-m.done)
	}
	for _, s := range services[len(members):] {
		errs = append(errs, s.Close(context.WithoutCancel(ctx)))
	}
	return errors.Join(errs...)
}
