package armature

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// checkFreshness is how long a report answers for: probes of many balancers
// must not become load on the database they ask about.
const checkFreshness = time.Second

// checkInterval is how often the checks run though nobody asks /ready: gRPC health
// is watched rather than asked.
const checkInterval = 5 * time.Second

var errCheckStuck = errors.New("an earlier run has not returned yet")

// phase is where a service is in its life.
type phase int32

const (
	phaseNew phase = iota
	phaseStarting
	phaseReady
	phaseDraining
	phaseStopped
)

func (p phase) String() string {
	return [...]string{"new", "starting", "ready", "draining", "stopped"}[p]
}

type check struct {
	name string
	fn   func(context.Context) error
	busy atomic.Bool // a run that ignored its context is still out there
}

type checkResult struct {
	Status   string  `json:"status"` // "ok" or "failing"
	Error    string  `json:"error,omitempty"`
	Duration float64 `json:"duration_ms"`
	err      error
}

type healthReport struct {
	checks map[string]checkResult
	err    error // nil when every check passed
	at     time.Time
}

// health runs the checks, at most one round at a time. No lock is held while a
// check runs.
type health struct {
	checks   []*check
	timeout  time.Duration
	tell     func(error)    // told after each round what failed, nil when nothing did
	interval time.Duration  // between two rounds that nobody asked for
	quit     chan struct{}  // closed by stop
	rounds   sync.WaitGroup // joined by stop, so that nothing is left running

	mu     sync.Mutex
	last   healthReport
	flight chan struct{} // closed when the round under way is done; nil when none is
}

// report returns the last round's result, or runs a new one when that is older
// than maxAge. ctx bounds the wait only; the round goes on for the next caller.
func (h *health) report(ctx context.Context, maxAge time.Duration) (healthReport, error) {
	h.mu.Lock()
	if !h.last.at.IsZero() && time.Since(h.last.at) < maxAge {
		defer h.mu.Unlock()
		return h.last, nil
	}
	if h.flight == nil {
		h.flight = make(chan struct{})
		h.rounds.Go(h.round)
	}
	flight := h.flight
	h.mu.Unlock()

	select {
	case <-flight:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.last, nil
	case <-ctx.Done():
		return healthReport{}, context.Cause(ctx)
	}
}

func (h *health) round() {
	results := make([]checkResult, len(h.checks))
	var wg sync.WaitGroup
	for i, c := range h.checks {
		wg.Go(func() { results[i] = c.run(h.timeout, h.quit) })
	}
	wg.Wait()

	r := healthReport{checks: make(map[string]checkResult, len(h.checks)), at: time.Now()}
	var errs []error
	for i, c := range h.checks {
		r.checks[c.name] = results[i]
		if results[i].err != nil {
			errs = append(errs, fmt.Errorf("check %s: %w", c.name, results[i].err))
		}
	}
	r.err = errors.Join(errs...)

	h.mu.Lock()
	h.last = r
	h.mu.Unlock()
	h.tell(r.err) // before the next round begins, so that no older one comes after it
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.flight)
	h.flight = nil
}

// keepChecking runs a round per interval, unless /ready was asked just
// before, while the service is ready.
func (s *Service) keepChecking() {
	tick := time.NewTicker(s.health.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.phase() != phaseReady {
				return
			}
			_, _ = s.health.report(context.Background(), min(checkFreshness, s.health.interval)) // heard through heed
		case <-s.health.quit:
			return
		}
	}
}

// heed keeps gRPC health in step with the checks, and logs when they turn.
func (s *Service) heed(err error) {
	s.servable.Lock()
	defer s.servable.Unlock()
	if s.phase() != phaseReady || s.failing == (err != nil) {
		return
	}
	s.failing = err != nil
	if s.failing {
		s.Logger.Warn("not ready: a check fails", slog.String("error", scrub(oneLine(err))))
	} else {
		s.Logger.Info("ready again: all checks pass")
	}
	if s.GRPC != nil {
		s.GRPC.SetServing(!s.failing)
	}
}

// turn changes the phase together with what gRPC health says.
func (s *Service) turn(to phase) (from phase) {
	s.servable.Lock()
	defer s.servable.Unlock()
	from = phase(s.state.Swap(int32(to)))
	s.failing = false
	if s.GRPC != nil {
		s.GRPC.SetServing(to == phaseReady)
	}
	return from
}

// stop ends the round under way and waits for it; checks of later rounds are
// given up at once.
func (h *health) stop() {
	close(h.quit)
	h.rounds.Wait()
}

// run gives fn the time it has and reports it as failing afterwards even when it
// does not return; until it does, it is not run again.
func (c *check) run(timeout time.Duration, quit <-chan struct{}) checkResult {
	start := time.Now()
	err := errCheckStuck
	if c.busy.CompareAndSwap(false, true) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			defer c.busy.Store(false)
			done <- guard(ctx, c.fn)
		}()
		select {
		case err = <-done:
		case <-ctx.Done():
			select { // a check that honoured its context tells more
			case err = <-done:
			default:
				err = fmt.Errorf("no answer within %v: %w", timeout, ctx.Err())
			}
		case <-quit:
			err = errors.New("given up: the service stops")
		}
	}
	r := checkResult{Status: "ok", Duration: float64(time.Since(start).Microseconds()) / 1000, err: err}
	if err != nil {
		r.Status, r.Error = "failing", scrub(err.Error())
	}
	return r
}

// guard turns a panic of user code into an error.
func guard(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{value: p, stack: stack()}
		}
	}()
	return fn(ctx)
}

type readyBody struct {
	Status string                 `json:"status"`
	Checks map[string]checkResult `json:"checks"`
}

// readyHandler answers 200 while the service is ready and every check passes,
// 503 otherwise. Error texts may name hosts and users, so they are shown on the
// admin server only.
func (s *Service) readyHandler(detail bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := s.phase()
		body := readyBody{Status: now.String(), Checks: map[string]checkResult{}}
		status := http.StatusServiceUnavailable
		switch report, err := s.health.report(r.Context(), checkFreshness); {
		case err != nil:
			return // the prober has gone
		case report.err != nil:
			body.Checks = report.checks
			if now == phaseReady {
				body.Status = "failing"
			}
		default:
			body.Checks = report.checks
			if now == phaseReady {
				status = http.StatusOK
			}
		}
		if !detail {
			body.Checks = withoutErrors(body.Checks)
		}
		writeJSON(w, status, body)
	})
}

func withoutErrors(checks map[string]checkResult) map[string]checkResult {
	out := make(map[string]checkResult, len(checks))
	for name, c := range checks {
		c.Error = ""
		out[name] = c
	}
	return out
}

type healthBody struct {
	Status  string              `json:"status"`
	Service string              `json:"service"`
	Version string              `json:"version"`
	Jobs    map[string]jobState `json:"jobs,omitempty"`
}

// healthHandler always answers 200; how the jobs fare is told, and no reason to
// restart a process.
func (s *Service) healthHandler(detail bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body := healthBody{Status: "ok", Service: s.cfg.Name, Version: s.cfg.Version}
		if detail {
			body.Jobs = s.jobs.states()
		}
		writeJSON(w, http.StatusOK, body)
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil { // only strings and numbers get here
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the prober may have gone
}
