package resilience

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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

	// Observer, if not nil, is told before each wait.
	Observer Observer
}

// Retryable is the default judgement of [Retry]: not after backoff.Permanent, not
// when the error says Retryable() false, not when a breaker is open without
// telling when it will admit calls again. Errors that say nothing are retried, so
// the operation must be idempotent or carry an idempotency key.
func Retryable(_ context.Context, err error) bool {
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		return false
	}
	if errors.Is(err, ErrOpen) {
		if _, known := retryAfter(err); !known {
			return false
		}
	}
	return retryable(err)
}

// StopReason says why a [Retry] made no further attempt.
type StopReason string

// The reasons to stop.
const (
	StopAttempts     StopReason = "attempts exhausted"
	StopNotRetryable StopReason = "error is not retryable"
	StopDeadline     StopReason = "next delay does not fit the deadline"
	StopElapsed      StopReason = "next delay does not fit the elapsed time allowed"
	StopRetryAfter   StopReason = "callee asks for a longer wait than allowed"
	StopBackoff      StopReason = "backoff stopped"
	StopContext      StopReason = "context done"
)

// RetryError reports that all attempts failed. It matches, with [errors.Is] and
// [errors.As], the error of every attempt, the last one first, and after them the
// context's error when the context was the reason to stop.
type RetryError struct {
	Name     string
	Attempts int     // attempts made; 0 when the context was done from the start
	Errs     []error // one per attempt, in order
	Reason   StopReason
	ctxErr   error
}

// Error names the reason and the last attempt's error.
func (e *RetryError) Error() string {
	var b strings.Builder
	b.WriteString("resilience: retry")
	if e.Name != "" {
		fmt.Fprintf(&b, " %q", e.Name)
	}
	fmt.Fprintf(&b, ": %s after %d attempt", e.Reason, e.Attempts)
	if e.Attempts != 1 {
		b.WriteByte('s')
	}
	if last := e.last(); last != nil {
		fmt.Fprintf(&b, ": %v", last)
	} else if e.ctxErr != nil {
		fmt.Fprintf(&b, ": %v", e.ctxErr)
	}
	return b.String()
}

// Unwrap returns the attempts' errors, last first, and the context's error.
func (e *RetryError) Unwrap() []error {
	errs := make([]error, 0, len(e.Errs)+1)
	for i := len(e.Errs) - 1; i >= 0; i-- {
		errs = append(errs, e.Errs[i])
	}
	if e.ctxErr != nil {
		errs = append(errs, e.ctxErr)
	}
	return errs
}

func (e *RetryError) last() error {
	if len(e.Errs) == 0 {
		return nil
	}
	return e.Errs[len(e.Errs)-1]
}

// Retryable reports what the last attempt's error says; false when the caller's
// context or the error itself ended the retry.
func (e *RetryError) Retryable() bool {
	switch e.Reason {
	case StopNotRetryable, StopContext:
		return false
	default:
		return retryable(e.last())
	}
}

// RetryAfter reports the wish of the last attempt's error.
func (e *RetryError) RetryAfter() (time.Duration, bool) { return retryAfter(e.last()) }

// NotExecuted reports whether no attempt reached the callee.
func (e *RetryError) NotExecuted() bool {
	for _, err := range e.Errs {
		if !notExecuted(err) {
			return false
		}
	}
	return true
}

// Retry runs the operation again when it fails. Safe for concurrent use.
type Retry struct{ cfg RetryConfig }

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

// Run executes next until it succeeds or there is a reason to stop. A context
// that is done runs nothing. A delay that would pass the deadline is not waited
// for: the error comes at once. An error that is final at the first attempt is
// returned as it is, without a backoff.Permanent around it; every other failure
// is a *[RetryError]. A success costs nothing.
func (r *Retry) Run(ctx context.Context, next Next) error {
	if ctx.Err() != nil {
		return &RetryError{Name: r.cfg.Name, Reason: StopContext, ctxErr: ctx.Err()}
	}
	var start time.Time
	if r.cfg.MaxElapsed > 0 {
		start = time.Now()
	}
	err := next.Run(withAttempt(ctx, 1))
	if err == nil {
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
		failed.Attempts = attempt
		failed.Errs = append(failed.Errs, unwrapPermanent(err))
		switch {
		case ctx.Err() != nil:
			return failed.stop(StopContext, ctx.Err())
		case !r.cfg.Retryable(ctx, err):
			if attempt == 1 {
				return failed.Errs[0]
			}
			return failed.stop(StopNotRetryable, nil)
		case attempt >= r.cfg.MaxAttempts:
			return failed.stop(StopAttempts, nil)
		}

		if delays == nil {
			delays = r.cfg.Backoff()
		}
		delay := delays.NextBackOff()
		if delay == backoff.Stop {
			return failed.stop(StopBackoff, nil)
		}
		if wish, ok := retryAfter(err); ok {
			if wish > r.cfg.MaxRetryAfter {
				return failed.stop(StopRetryAfter, nil)
			}
			delay = max(delay, wish)
		}
		if r.cfg.MaxElapsed > 0 && time.Since(start)+delay > r.cfg.MaxElapsed {
			return failed.stop(StopElapsed, nil)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
			return failed.stop(StopDeadline, context.DeadlineExceeded)
		}
		if r.cfg.Observer != nil {
			r.cfg.Observer.On(ctx, Event{
				Kind: EventRetry, Policy: "retry", Name: r.cfg.Name,
				Attempt: attempt, Duration: delay, Err: failed.last(),
			})
		}
		if !sleep(ctx, delay) {
			return failed.stop(StopContext, ctx.Err())
		}
		if err = next.Run(withAttempt(ctx, attempt+1)); err == nil {
			return nil
		}
	}
}

func (e *RetryError) stop(reason StopReason, ctxErr error) error {
	e.Reason, e.ctxErr = reason, ctxErr
	return e
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
// [Retry], counting from 1. Without a retry policy it is 1.
func AttemptFromContext(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// Jitter spreads delays so that callers that failed together do not come back
// together.
type Jitter uint8

const (
	// FullJitter draws from [0, d]: the widest spread, the default.
	FullJitter Jitter = iota
	// EqualJitter draws from [d/2, d]: never at once.
	EqualJitter
	// NoJitter waits exactly d.
	NoJitter
)

// Exponential returns a factory of delays for [RetryConfig]: base, 2*base,
// 4*base and so on up to max, each spread by j. A base or max that is not
// positive means no delay. The delays are backoff.ExponentialBackOff's.
func Exponential(base, max time.Duration, j Jitter) func() backoff.BackOff {
	if base <= 0 || max <= 0 {
		return func() backoff.BackOff { return &backoff.ZeroBackOff{} }
	}
	return func() backoff.BackOff {
		return &jittered{jitter: j, grow: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(min(base, max)),
			backoff.WithMaxInterval(max),
			backoff.WithMultiplier(2),
			backoff.WithRandomizationFactor(0),
			backoff.WithMaxElapsedTime(0),
		)}
	}
}

type jittered struct {
	grow   *backoff.ExponentialBackOff
	jitter Jitter
}

func (b *jittered) Reset() { b.grow.Reset() }

func (b *jittered) NextBackOff() time.Duration {
	d := b.grow.NextBackOff()
	switch b.jitter {
	case NoJitter:
		return d
	case EqualJitter:
		return d/2 + rand.N(d-d/2+1)
	default:
		return rand.N(d + 1)
	}
}
