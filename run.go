package armature

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/tracing"
)

const (
	// farewell bounds talking to a registry and flushing telemetry: both are
	// courtesies that must not hold up the end of a process.
	farewell = 5 * time.Second
	// lastTurn is what a worker or hook gets when those before it used up the time.
	lastTurn = time.Second
	// startPoll is how often the checks are asked while the service starts.
	startPoll = 100 * time.Millisecond
)

// ErrAlreadyRun is returned by Run when the service was run or closed before.
var ErrAlreadyRun = errors.New("armature: run service: it was run or closed before")

// errStopped tells start that it was asked to stop, which is no failure.
var errStopped = errors.New("stopped while starting")

// Run starts the service, serves until ctx ends or something fails, and drains.
// It returns nil after an orderly stop, which the end of ctx is. It can be called
// once.
func (s *Service) Run(ctx context.Context) error {
	if !s.state.CompareAndSwap(int32(phaseNew), int32(phaseStarting)) {
		return ErrAlreadyRun
	}
	defer close(s.done)
	err := s.start(ctx)
	reason := "start failed"
	if err == nil {
		reason, err = s.wait(ctx)
	}
	if errors.Is(err, errStopped) {
		reason, err = "stopped while starting", nil
	}
	return errors.Join(err, s.drain(context.WithoutCancel(ctx), reason, err))
}

// Actor returns the pair that github.com/oklog/run adds to its group: execute is
// Run, interrupt begins the drain and returns at once.
func (s *Service) Actor() (execute func() error, interrupt func(error)) {
	return func() error { return s.Run(context.Background()) },
		func(error) { s.quitOnce.Do(func() { close(s.quit) }) }
}

// Close stops the service and waits for the end of its drain, or of ctx. A
// service that never ran is released: hooks, connections, telemetry. Close is
// idempotent; errors of a drain are Run's to return.
func (s *Service) Close(ctx context.Context) error {
	s.quitOnce.Do(func() { close(s.quit) })
	if s.state.CompareAndSwap(int32(phaseNew), int32(phaseStarting)) {
		defer close(s.done)
		return s.drain(ctx, "closed", nil)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("armature: close service %s: %w", s.cfg.Name, context.Cause(ctx))
	}
}

// named keeps a server together with what messages call it.
type named struct {
	server
	name string
}

// servers lists what there is, in the order of binding.
func (s *Service) servers() []named {
	var out []named
	if s.admin != nil {
		out = append(out, named{s.admin, "admin"})
	}
	if s.GRPC != nil {
		out = append(out, named{s.GRPC, "grpc"})
	}
	if s.HTTP != nil {
		out = append(out, named{s.HTTP, "http"})
	}
	return out
}

func (s *Service) start(ctx context.Context) error {
	begin := time.Now()
	s.mu.Lock()
	workers := s.workers
	s.mu.Unlock()
	servers := s.servers()
	s.failed = make(chan error, len(workers)+len(servers))

	if s.GRPC != nil {
		s.GRPC.SetServing(false) // it answers from the first moment, and is not ready
	}
	for _, srv := range servers {
		if err := srv.Listen(ctx); err != nil {
			return fmt.Errorf("armature: start service %s: bind %s: %w", s.cfg.Name, srv.name, err)
		}
	}
	for _, srv := range servers {
		s.serving.Go(func() {
			if err := srv.Serve(); err != nil {
				s.failed <- fmt.Errorf("armature: service %s: serve %s: %w", s.cfg.Name, srv.name, err)
			}
		})
	}
	base := tracing.WithProvider(context.WithoutCancel(ctx), s.TracerProvider)
	for _, w := range workers {
		w.start(base, func(err error) {
			if p, ok := errors.AsType[*panicError](err); ok {
				s.Logger.ErrorContext(base, "worker panicked", slog.String("worker", w.name), slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
			}
			s.failed <- fmt.Errorf("armature: service %s: %w", s.cfg.Name, err)
		})
	}
	if err := s.awaitChecks(ctx); err != nil {
		return err
	}
	s.turn(phaseReady)
	if s.GRPC != nil && len(s.health.checks) > 0 {
		s.health.rounds.Go(s.keepChecking)
	}
	if err := s.register(ctx); err != nil {
		return err
	}
	attrs := []any{slog.Duration("took", time.Since(begin))}
	for _, srv := range servers {
		attrs = append(attrs, slog.String(srv.name+"_addr", srv.Addr()))
	}
	s.Logger.InfoContext(ctx, "service ready", attrs...)
	close(s.ready)
	return nil
}

// awaitChecks returns when every check has passed, or why that will not happen.
func (s *Service) awaitChecks(ctx context.Context) error {
	bound, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout)
	defer cancel()
	last := errors.New("the checks have not answered yet")
	for {
		report, err := s.health.report(bound, startPoll)
		if err == nil {
			if report.err == nil {
				return nil
			}
			last = report.err
		}
		select {
		case <-time.After(startPoll):
		case <-s.quit:
			return errStopped
		case err := <-s.failed:
			return err
		case <-bound.Done():
			if ctx.Err() != nil {
				return errStopped
			}
			return fmt.Errorf("armature: start service %s: not ready after %v: %w", s.cfg.Name, s.cfg.StartTimeout, last)
		}
	}
}

func (s *Service) register(ctx context.Context) error {
	if s.cfg.Registrar == nil {
		return nil
	}
	instances, err := s.instances()
	if err != nil {
		return err
	}
	for _, in := range instances {
		reg, err := s.cfg.Registrar.Register(ctx, in)
		if err != nil {
			if ctx.Err() != nil {
				return errStopped
			}
			return fmt.Errorf("armature: start service %s: register %s at %s: %w", s.cfg.Name, in.Service, in.Addr, err)
		}
		s.mu.Lock()
		s.regs = append(s.regs, reg)
		s.mu.Unlock()
	}
	return nil
}

// instances describes the servers to the registry. Two protocols never share a
// name: a caller that asks for one must not be sent to the other.
func (s *Service) instances() ([]discovery.Instance, error) {
	var out []discovery.Instance
	add := func(service, scheme, addr string) error {
		addr, err := s.advertise(addr)
		if err != nil {
			return fmt.Errorf("armature: start service %s: advertise %s: %w", s.cfg.Name, scheme, err)
		}
		out = append(out, discovery.Instance{Service: service, Scheme: scheme, Addr: addr, Version: s.cfg.Version})
		return nil
	}
	name := s.cfg.Name
	if s.GRPC != nil {
		if err := add(name, "grpc", s.GRPC.Addr()); err != nil {
			return nil, err
		}
		name += "-http"
	}
	if s.HTTP != nil {
		if err := add(name, "http", s.HTTP.Addr()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// advertise replaces a wildcard host by one that others can reach.
func (s *Service) advertise(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return addr, nil
	}
	if host = s.cfg.AdvertiseHost; host == "" {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find the host name (set AdvertiseHost): %w", err)
		}
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port), nil
}

// wait blocks until something begins the drain, and says what.
func (s *Service) wait(ctx context.Context) (reason string, err error) {
	select {
	case <-ctx.Done():
		return context.Cause(ctx).Error(), nil
	case <-s.quit:
		return "closed", nil
	case err := <-s.failed:
		return "failure", err
	}
}

// drain takes the service down in the order the package documentation names. It
// also takes down what a failed start had begun.
func (s *Service) drain(ctx context.Context, reason string, cause error) error {
	begin := time.Now()
	wasReady := s.turn(phaseDraining) == phaseReady
	attrs := []any{slog.String("reason", reason)}
	if cause != nil {
		attrs = append(attrs, slog.Any("error", cause))
	}
	s.Logger.InfoContext(ctx, "service draining", attrs...)

	var errs []error
	errs = append(errs, s.deregister(ctx))
	if s.HTTP != nil {
		s.HTTP.Drain()
	}
	if s.GRPC != nil {
		s.GRPC.Drain()
	}
	if wasReady && s.cfg.DrainDelay > 0 {
		sleep(ctx, s.cfg.DrainDelay)
	}

	errs = append(errs, s.shutdownServers(ctx))
	errs = append(errs, s.stopWorkers(ctx))
	errs = append(errs, s.runHooks(ctx))
	errs = append(errs, s.closeConns())
	if s.admin != nil {
		errs = append(errs, s.within(ctx, s.admin.Shutdown))
	}
	s.serving.Wait()
	s.health.stop()
	s.state.Store(int32(phaseStopped))
	errs = append(errs, s.leftovers())

	err := errors.Join(errs...)
	if err != nil {
		err = fmt.Errorf("armature: stop service %s: %w", s.cfg.Name, err)
		s.Logger.ErrorContext(ctx, "service stopped", slog.Duration("took", time.Since(begin)), slog.Any("error", err))
	} else {
		s.Logger.InfoContext(ctx, "service stopped", slog.Duration("took", time.Since(begin)))
	}
	flush, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if ferr := s.Tracing.Shutdown(flush); ferr != nil {
		err = errors.Join(err, fmt.Errorf("armature: stop service %s: flush traces: %w", s.cfg.Name, ferr))
	}
	return err
}

func (s *Service) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	s.mu.Lock()
	regs := slices.Clone(s.regs)
	s.mu.Unlock()
	errs := make([]error, len(regs))
	var wg sync.WaitGroup
	for i, reg := range regs {
		wg.Go(func() { errs[i] = reg.Drain(ctx, 0) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Service) shutdownServers(ctx context.Context) error {
	var httpErr, grpcErr error
	var wg sync.WaitGroup
	if s.HTTP != nil {
		wg.Go(func() { httpErr = s.within(ctx, s.HTTP.Shutdown) })
	}
	if s.GRPC != nil {
		wg.Go(func() { grpcErr = s.within(ctx, s.GRPC.Shutdown) })
	}
	wg.Wait()
	return errors.Join(httpErr, grpcErr)
}

func (s *Service) stopWorkers(ctx context.Context) error {
	s.mu.Lock()
	workers := slices.Clone(s.workers)
	s.mu.Unlock()
	return lastFirst(ctx, s.cfg.ShutdownTimeout, workers, func(turn context.Context, w *worker) error { return w.stop(turn) })
}

func (s *Service) runHooks(ctx context.Context) error {
	s.mu.Lock()
	hooks := slices.Clone(s.hooks)
	s.mu.Unlock()
	return lastFirst(ctx, s.cfg.ShutdownTimeout, hooks, func(turn context.Context, h hook) error {
		if err := guard(turn, h.fn); err != nil {
			return fmt.Errorf("hook %s: %w", h.name, err)
		}
		return nil
	})
}

// lastFirst stops items one after the other, the last one first. Together they
// have limit; whoever comes after that still has its turn.
func lastFirst[T any](ctx context.Context, limit time.Duration, items []T, stop func(context.Context, T) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var errs []error
	for _, item := range slices.Backward(items) {
		turn, done := atLeast(ctx, lastTurn)
		errs = append(errs, stop(turn, item))
		done()
	}
	return errors.Join(errs...)
}

func (s *Service) closeConns() error {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	var errs []error
	for _, c := range slices.Backward(conns) {
		if err := c.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close connection to %s: %w", c.Target(), err))
		}
	}
	return errors.Join(errs...)
}

// leftovers collects what failed beside the failure that began the drain.
func (s *Service) leftovers() error {
	var errs []error
	for {
		select {
		case err := <-s.failed:
			errs = append(errs, err)
		default:
			return errors.Join(errs...)
		}
	}
}

func (s *Service) within(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	return fn(ctx)
}

// atLeast is ctx while that lives, and d of grace after it: what one worker or
// hook has used up is not taken from the next.
func atLeast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
