package resilience

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// RetryConfig describes a [Retry]. The zero value means three attempts with
// exponential backoff from 100 ms to 10 s and full jitter.
type RetryConfig struct {
	Name string // for errors and Describe

	// MaxAttempts bounds the attempts, the first included. 0 means 3.
	MaxAttempts int

	// MaxElapsed bounds the time from the first attempt to the start of the last
	// one. 0 means no bound beside the context's deadline.
	MaxElapsed time.Duration

	// Backoff makes the delays of one call. It is called at the first failure, so
	// that success costs nothing and no two calls share state. It may be any
	// backoff.BackOff; backoff.Stop ends the retry. Nil means
	// Exponential(100*time.Millisecond, 10*time.Second, FullJitter).
	Backoff func() backoff.BackOff

	// MaxRetryAfter is the longest wish of a callee (RetryAfter on its error) that
	// is waited for; a longer one ends the retry, because asking earlier than told
	// would hammer the callee. 0 means one minute.
	MaxRetryAfter time.Duration

	// Retryable decides whether err deserves another attempt. It is not asked once
	// ctx is done. Nil means [Retryable].
	Retryable func(ctx context.Context, err error) bool

	// Budget, if not nil, bounds the retries of all policies that share it.
	Budget *Budget

	// Observer, if not nil, is told before each wait and when a *[RetryError] is the
	// end, unless nothing ran.
	Observer Observer
}

// Retryable is the default judgement of [Retry]: not after backoff.Permanent, not
// when the error says Retryable() false, not when a breaker is forced open. An open
// breaker is asked again when it says; while it is half-open the probes decide within
// a moment, and the usual delay is as good a guess as any. Errors that say nothing
// are retried, so the operation must be idempotent or carry an idempotency key.
func Retryable(_ context.Context, err error) bool {
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		return false
	}
	if open, ok := errors.AsType[*OpenError](err); ok && open.State == Open && open.Until.IsZero() {
		return false // forced open
	}
	return retryable(err)
}

// RetryStats are the totals of a [Retry] since it was made.
type RetryStats struct {
	Calls     uint64
	Retries   uint64 // attempts beyond the first of each call
	Recovered uint64 // calls that succeeded after a retry

	// Calls that failed, by the reason to stop.
	Exhausted, NotRetryable, Deadline, Elapsed, RetryAfter, Backoff, Context, Budget uint64
}

// Retry runs the operation again when it fails. Safe for concurrent use.
type Retry struct {
	cfg       RetryConfig
	calls     atomic.Uint64
	retries   atomic.Uint64
	recovered atomic.Uint64
	stopped   struct {
		attempts, notRetryable, deadline, elapsed, retryAfter, backoff, context, budget atomic.Uint64
	}
}

// NewRetry returns a retry policy.
func NewRetry(cfg RetryConfig) (*Retry, error) {
	bad := func(field string, value any, fix string) (*Retry, error) {
		return nil, configError("retry", cfg.Name, field, value, "must not be negative", fix)
	}
	switch {
	case cfg.MaxAttempts < 0:
		return bad("MaxAttempts", cfg.MaxAttempts, "use 0 for the default of 3 or 1 for no retry")
	case cfg.MaxElapsed < 0:
		return bad("MaxElapsed", cfg.MaxElapsed, "use 0 for no bound")
	case cfg.MaxRetryAfter < 0:
		return bad("MaxRetryAfter", cfg.MaxRetryAfter, "use 0 for the default of one minute")
	}
	if cfg.MaxAttempts == 0 {
		cfg.MaxAttempts = 3
	}
	if cfg.MaxRetryAfter == 0 {
		cfg.MaxRetryAfter = time.Minute
	}
	if cfg.Backoff == nil {
		cfg.Backoff = Exponential(100*time.Millisecond, 10*time.Second, FullJitter)
	}
	if cfg.Retryable == nil {
		cfg.Retryable = Retryable
	}
	return &Retry{cfg: cfg}, nil
}

// Name returns the name given in the configuration.
func (r *Retry) Name() string { return r.cfg.Name }

// Stats returns a view of the moment.
func (r *Retry) Stats() RetryStats {
	s := &r.stopped
	return RetryStats{
		Exhausted: s.attempts.Load(), NotRetryable: s.notRetryable.Load(), Deadline: s.deadline.Load(),
		Elapsed: s.elapsed.Load(), RetryAfter: s.retryAfter.Load(), Backoff: s.backoff.Load(),
		Context: s.context.Load(), Budget: s.budget.Load(),
		Recovered: r.recovered.Load(), Retries: r.retries.Load(), Calls: r.calls.Load(),
	}
}

func (r *Retry) count(reason StopReason) {
	s := &r.stopped
	switch reason {
	case StopAttempts:
		s.attempts.Add(1)
	case StopNotRetryable:
		s.notRetryable.Add(1)
	case StopDeadline:
		s.deadline.Add(1)
	case StopElapsed:
		s.elapsed.Add(1)
	case StopRetryAfter:
		s.retryAfter.Add(1)
	case StopBackoff:
		s.backoff.Add(1)
	case StopContext:
		s.context.Add(1)
	case StopBudget:
		s.budget.Add(1)
	}
}

// Run executes next until it succeeds or there is a reason to stop. A context
// that is done runs nothing. A delay that would pass the deadline is not waited
// for: the error comes at once. An error that is final at the first attempt is
// returned as it is, without a backoff.Permanent around it; every other failure
// is a *[RetryError]. A success allocates nothing. A panic ends the retry and
// passes through.
func (r *Retry) Run(ctx context.Context, next Next) error {
	r.calls.Add(1)
	if err := doneAtStart(ctx); err != nil {
		r.count(StopContext)
		return &RetryError{Name: r.cfg.Name, Reason: StopContext, ctxErr: err}
	}
	var start time.Time
	if r.cfg.MaxElapsed > 0 {
		start = time.Now()
	}
	r.cfg.Budget.began()
	err := next.Run(withAttempt(ctx, 1))
	if err == nil {
		r.cfg.Budget.succeeded()
		return nil
	}
	return r.again(ctx, next, start, err)
}

// again is everything after a first failure, kept apart so that the path of a
// success stays small.
func (r *Retry) again(ctx context.Context, next Next, start time.Time, err error) error {
	failed := &RetryError{Name: r.cfg.Name}
	var delays backoff.BackOff
	for attempt := 1; ; attempt++ {
		failed.add(unwrapPermanent(err))
		if ctx.Err() != nil {
			return r.stop(ctx, failed, StopContext, ctx.Err())
		}
		if !r.cfg.Retryable(ctx, err) {
			if attempt == 1 {
				r.count(StopNotRetryable)
				return failed.last()
			}
			return r.stop(ctx, failed, StopNotRetryable, nil)
		}
		r.cfg.Budget.failed(err)
		if attempt >= r.cfg.MaxAttempts {
			return r.stop(ctx, failed, StopAttempts, nil)
		}

		if delays == nil {
			delays = r.cfg.Backoff()
		}
		delay := delays.NextBackOff()
		if delay == backoff.Stop {
			return r.stop(ctx, failed, StopBackoff, nil)
		}
		delay = max(0, delay)
		if wish, ok := retryAfter(err); ok {
			if wish > r.cfg.MaxRetryAfter {
				return r.stop(ctx, failed, StopRetryAfter, nil)
			}
			delay = max(delay, wish)
		}
		if r.cfg.MaxElapsed > 0 && delay > r.cfg.MaxElapsed-time.Since(start) {
			return r.stop(ctx, failed, StopElapsed, nil)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
			return r.stop(ctx, failed, StopDeadline, context.DeadlineExceeded)
		}
		if r.cfg.Budget != nil && !r.cfg.Budget.TryTake() {
			return r.stop(ctx, failed, StopBudget, nil)
		}
		if r.cfg.Observer != nil {
			r.cfg.Observer.On(ctx, Event{
				Kind: EventRetry, Policy: "retry", Name: r.cfg.Name,
				Attempt: attempt, Duration: delay, Err: failed.last(),
			})
		}
		if !sleep(ctx, delay) {
			return r.stop(ctx, failed, StopContext, ctx.Err())
		}
		r.retries.Add(1)
		if err = next.Run(withAttempt(ctx, attempt+1)); err == nil {
			r.cfg.Budget.succeeded()
			r.recovered.Add(1)
			return nil
		}
	}
}

// stop completes failed, counts it and tells of it.
func (r *Retry) stop(ctx context.Context, failed *RetryError, reason StopReason, ctxErr error) error {
	failed.Reason, failed.ctxErr = reason, ctxErr
	r.count(reason)
	if r.cfg.Observer != nil {
		r.cfg.Observer.On(ctx, Event{
			Kind: EventRetriesEnded, Policy: "retry", Name: r.cfg.Name, Attempt: failed.Attempts, Err: failed,
		})
	}
	return failed
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// unwrapPermanent removes the marker, which has done its work, if it is the
// outermost error.
func unwrapPermanent(err error) error {
	if p, ok := err.(*backoff.PermanentError); ok && p.Err != nil {
		return p.Err
	}
	return err
}

// Describe reports the effective settings.
func (r *Retry) Describe() Description {
	d := Description{Kind: "retry", Name: r.cfg.Name, Settings: []Setting{setting("attempts", r.cfg.MaxAttempts)}}
	if r.cfg.MaxElapsed > 0 {
		d.Settings = append(d.Settings, setting("elapsed", r.cfg.MaxElapsed))
	}
	d.Settings = append(d.Settings, setting("max-retry-after", r.cfg.MaxRetryAfter))
	if r.cfg.Budget != nil {
		d.Settings = append(d.Settings, setting("budget", r.cfg.Budget))
	}
	return d
}

type attemptKey struct{}

// withAttempt stores the number of the attempt. The first one is what an empty
// context means, so it is stored only over another number.
func withAttempt(ctx context.Context, n int) context.Context {
	if AttemptFromContext(ctx) == n {
		return ctx
	}
	return context.WithValue(ctx, attemptKey{}, n)
}

// AttemptFromContext returns the number of the current attempt of the innermost
// [Retry] or [Hedge], counting from 1. Without such a policy it is 1.
func AttemptFromContext(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}
