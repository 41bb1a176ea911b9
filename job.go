package armature

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Every registers a worker that calls fn once per interval: sweeping, refreshing,
// reporting. The first call comes after a random part of the interval and each
// later one 10 % around it, so that replicas spread out. Calls never overlap: a
// turn that passes while fn still runs is left out.
//
// An error or panic of fn is logged and counted in armature_job_runs_total, and
// does not stop the service; how the last run ended is on the admin server's
// /health. The context ends where that of a [Service.Worker] does. A run that
// returns an error after that is not counted as failed.
//
// Every panics unless interval is positive, and where Worker does.
func (s *Service) Every(name string, interval time.Duration, fn func(ctx context.Context) error) {
	if interval <= 0 {
		panic(fmt.Sprintf("armature: register worker %s of %s: the interval %v is not positive", name, s.cfg.Name, interval))
	}
	if fn == nil {
		s.Worker(name, nil) // panics as it does for a worker
	}
	j := &job{name: name, logger: s.Logger, metrics: &s.jobs}
	s.Worker(name, func(ctx context.Context) error {
		wait := rand.N(interval)
		for sleep(ctx, wait); ctx.Err() == nil; sleep(ctx, wait) {
			begin := time.Now()
			j.run(ctx, fn)
			wait = pause(interval, time.Since(begin))
		}
		return nil
	})
	s.jobs.add(s.Metrics, j)
}

// pause is the time from the end of a run that took so long to the next turn.
func pause(interval, took time.Duration) time.Duration {
	spread := interval / 5
	if spread > 0 {
		spread = rand.N(spread) - interval/10
	}
	wait := interval + spread - took%interval
	if wait <= 0 {
		wait += interval
	}
	return wait
}

// job is one function of Every and how it fares.
type job struct {
	name    string
	logger  *slog.Logger
	metrics *jobs

	mu   sync.Mutex
	last jobState
}

// jobState is how the last run ended.
type jobState struct {
	Runs      int64     `json:"runs"`
	LastRun   time.Time `json:"last_run,omitzero"` // when it ended
	LastError string    `json:"last_error,omitempty"`
	Duration  float64   `json:"duration_ms"`
}

func (j *job) run(ctx context.Context, fn func(context.Context) error) {
	begin := time.Now()
	err := guard(ctx, fn)
	result := "ok"
	p, panicked := errors.AsType[*panicError](err)
	switch {
	case panicked:
		result = "panicked"
		j.logger.ErrorContext(ctx, "job panicked", slog.String("job", j.name), slog.String("panic", scrub(fmt.Sprint(p.value))), slog.String("stack", string(p.stack)))
	case err != nil && ctx.Err() != nil:
		result = "stopped"
	case err != nil:
		result = "failed"
		j.logger.WarnContext(ctx, "job failed", slog.String("job", j.name), slog.String("error", scrub(err.Error())))
	}
	end := time.Now()
	j.metrics.runs.WithLabelValues(j.name, result).Inc()
	if err == nil {
		j.metrics.success.WithLabelValues(j.name).Set(float64(end.UnixMilli()) / 1000)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last.Runs++
	j.last.LastRun, j.last.LastError = end, ""
	j.last.Duration = float64(end.Sub(begin).Microseconds()) / 1000
	if err != nil {
		j.last.LastError = scrub(err.Error())
	}
}

// jobs are all of a service and their metrics, which appear with the first one.
type jobs struct {
	mu      sync.Mutex
	all     []*job
	runs    *prometheus.CounterVec
	success *prometheus.GaugeVec
}

func (js *jobs) add(reg prometheus.Registerer, j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.runs == nil {
		js.runs = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "armature_job_runs_total",
			Help: "Runs of the functions given to Every, by how they ended: ok, failed, panicked, stopped.",
		}, []string{"job", "result"})
		js.success = prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "armature_job_last_success_timestamp_seconds",
			Help: "When a function given to Every last returned without an error.",
		}, []string{"job"})
		reg.MustRegister(js.runs, js.success)
	}
	for _, result := range []string{"ok", "failed", "panicked"} {
		js.runs.WithLabelValues(j.name, result) // a rate needs a zero to start from
	}
	js.all = append(js.all, j)
}

// states is what /health tells about each.
func (js *jobs) states() map[string]jobState {
	js.mu.Lock()
	all := slices.Clone(js.all)
	js.mu.Unlock()
	out := make(map[string]jobState, len(all))
	for _, j := range all {
		j.mu.Lock()
		out[j.name] = j.last
		j.mu.Unlock()
	}
	return out
}
