package peers_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	backoff4 "github.com/cenkalti/backoff/v4"
	backoff5 "github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	gobreaker1 "github.com/sony/gobreaker"
	gobreaker2 "github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// Each test shows a defect of a peer and fails when the peer has mended it. The
// tests of package resilience that keep the defect out of ours are named after
// "Guarded by"; TestDefectsAreGuarded looks for them.

// A half-open probe that panics never returns its permit: the breaker stays
// half-open, without a place, for ever.
// Guarded by TestRegressionPanickingProbeReturnsItsPlace.
func TestDefect01PanickingProbeKeepsItsPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		breaker := circuitbreaker.NewBuilder[any]().WithDelay(time.Second).Build()
		executor := failsafe.With[any](breaker)
		_ = executor.Run(fails)
		time.Sleep(time.Second)
		swallow(func() { _ = executor.Run(func() error { panic("boom") }) })
		time.Sleep(time.Hour)
		err := executor.Run(func() error { return nil })
		still(t, failsafeGo, errors.Is(err, circuitbreaker.ErrOpen) && breaker.IsHalfOpen())
	})
}

// A breaker does not see panics.
// Guarded by TestRegressionPanicsAreFailures.
func TestDefect02PanicsAreInvisible(t *testing.T) {
	t.Parallel()
	breaker := circuitbreaker.NewBuilder[any]().WithFailureThreshold(5).Build()
	for range 100 {
		swallow(func() { _ = failsafe.With[any](breaker).Run(func() error { panic("boom") }) })
	}
	still(t, failsafeGo, breaker.IsClosed() && breaker.Metrics().Failures() == 0)
}

// A panic takes its place in the bulkhead with it.
// Guarded by TestRegressionBulkheadSurvivesPanicAndGoexit.
func TestDefect03PanicKeepsThePlaceInTheBulkhead(t *testing.T) {
	t.Parallel()
	executor := failsafe.With[any](bulkhead.New[any](1))
	swallow(func() { _ = executor.Run(func() error { panic("boom") }) })
	err := executor.Run(func() error { return nil })
	still(t, failsafeGo, errors.Is(err, bulkhead.ErrFull))
}

// A timeout is no deadline of the context, so nobody can pass it on to the callee.
// Guarded by TestRegressionTimeoutIsADeadline.
func TestDefect04TimeoutIsNoDeadline(t *testing.T) {
	t.Parallel()
	hasDeadline := true
	_ = failsafe.With[any](timeout.New[any](time.Minute)).RunWithExecution(func(e failsafe.Execution[any]) error {
		_, hasDeadline = e.Context().Deadline()
		return nil
	})
	still(t, failsafeGo, !hasDeadline)
}

// Callers that give up open the breaker of a callee that is well.
// Guarded by TestRegressionCallerCancellationIsNeutral.
func TestDefect05CallersThatCancelOpenTheBreaker(t *testing.T) {
	t.Parallel()
	breaker := circuitbreaker.NewBuilder[any]().WithFailureThreshold(3).Build()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		_ = failsafe.With[any](breaker).WithContext(ctx).RunWithExecution(func(e failsafe.Execution[any]) error {
			cancel()
			<-e.Context().Done()
			return e.Context().Err()
		})
	}
	still(t, failsafeGo, breaker.IsOpen())
}

// Calls begun before the breaker opened close it while its probe is still running.
// Guarded by TestRegressionStaleResultsDoNotDecide.
func TestDefect06OldSuccessesCloseAHalfOpenBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		breaker := circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(2).WithSuccessThreshold(2).WithDelay(time.Second).Build()
		executor := failsafe.With[any](breaker)
		lasting := func(d time.Duration) {
			go func() { _ = executor.Run(func() error { time.Sleep(d); return nil }) }()
			synctest.Wait()
		}
		lasting(2 * time.Second)
		lasting(2 * time.Second)
		_ = executor.Run(fails)
		_ = executor.Run(fails)
		time.Sleep(time.Second)
		lasting(time.Hour) // the probe
		if !breaker.IsHalfOpen() {
			t.Fatalf("state = %v, want half-open", breaker.State())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		still(t, failsafeGo, breaker.IsClosed())
		time.Sleep(time.Hour)
	})
}

// An HTTP retry sends a POST again, does not close the responses it throws away and
// so runs out of connections.
// Guarded by TestRoundTripperNeverRepeatsAgainstTheRule, TestRoundTripperReusesConnections.
func TestDefect07HTTPRetry(t *testing.T) {
	t.Parallel()
	t.Run("repeats a POST and leaves bodies open", func(t *testing.T) {
		t.Parallel()
		var sent, closed int
		client := http.Client{Transport: failsafehttp.NewRoundTripper(roundTripper(func(r *http.Request) (*http.Response, error) {
			sent++
			return &http.Response{
				StatusCode: http.StatusServiceUnavailable, Request: r,
				Body: body{Reader: strings.NewReader("down"), onClose: func() { closed++ }},
			}, nil
		}), failsafehttp.NewRetryPolicyBuilder().ReturnLastFailure().Build())}
		response, err := client.Post("http://payment.test/charges", "text/plain", strings.NewReader("1 euro"))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		still(t, failsafeGo, sent > 1)
		still(t, failsafeGo, closed < sent)
	})
	t.Run("waits for a connection it holds itself", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			served := 0
			transport := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if served++; served <= 2 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				_, _ = io.WriteString(w, strings.Repeat("text ", 100))
			})
			transport.MaxConnsPerHost = 2
			client := http.Client{
				Transport: failsafehttp.NewRoundTripper(transport, failsafehttp.NewRetryPolicyBuilder().Build()),
				Timeout:   30 * time.Second,
			}
			response, err := client.Get("http://payment.test/charges")
			if err == nil {
				_ = response.Body.Close()
			}
			still(t, failsafeGo, errors.Is(err, context.DeadlineExceeded) && served == 2)
		})
	})
}

// A panic in a hedged call happens on a goroutine where nobody can recover it, and
// ends the process.
// Guarded by TestRegressionPanicInAHedgeReachesTheCaller.
func TestDefect08HedgePanicKillsTheProcess(t *testing.T) {
	t.Parallel()
	const survived = "the caller recovered"
	if os.Getenv("PEERS_CHILD") == t.Name() {
		swallow(func() {
			executor := failsafe.With[any](hedgepolicy.NewWithDelay[any](time.Minute))
			_ = executor.Run(func() error { panic("boom") })
		})
		t.Log(survived)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PEERS_CHILD="+t.Name())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	switch text := string(out); {
	case err != nil && strings.Contains(text, "panic: boom"):
	case err == nil && strings.Contains(text, survived):
		still(t, failsafeGo, false)
	default:
		t.Fatalf("the child neither died of the panic nor recovered (%v):\n%s", err, out)
	}
}

// runtime.Goexit in a half-open probe, as of t.FailNow, keeps its place for ever.
// Guarded by TestRegressionGoexitInProbe.
func TestDefect09GoexitKeepsTheProbesPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v1 := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{
			Timeout: time.Second, ReadyToTrip: func(gobreaker1.Counts) bool { return true },
		})
		v2 := gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{
			Timeout: time.Second, ReadyToTrip: func(gobreaker2.Counts) bool { return true },
		})
		run := func(fn func() (any, error)) (err1, err2 error) {
			apart(func() { _, err1 = v1.Execute(fn) })
			apart(func() { _, err2 = v2.Execute(fn) })
			return err1, err2
		}
		run(func() (any, error) { return nil, errDown })
		time.Sleep(2 * time.Second)
		run(func() (any, error) { runtime.Goexit(); return nil, nil })
		time.Sleep(24 * time.Hour)
		err1, err2 := run(func() (any, error) { return nil, nil })
		still(t, gobreakerA, errors.Is(err1, gobreaker1.ErrTooManyRequests) && v1.State() == gobreaker1.StateHalfOpen)
		still(t, gobreakerB, errors.Is(err2, gobreaker2.ErrTooManyRequests) && v2.State() == gobreaker2.StateHalfOpen)
	})
}

// A probe that hangs blocks recovery as long as it hangs.
// Guarded by TestRegressionHungProbeDoesNotBlockRecovery.
func TestDefect10HungProbeBlocksRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		breaker := gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{
			Timeout: time.Second, MaxRequests: 1, ReadyToTrip: func(gobreaker2.Counts) bool { return true },
		})
		_, _ = breaker.Execute(func() (any, error) { return nil, errDown })
		time.Sleep(2 * time.Second)
		hang := make(chan struct{})
		go func() { _, _ = breaker.Execute(func() (any, error) { <-hang; return nil, nil }) }()
		synctest.Wait()
		time.Sleep(24 * time.Hour)
		_, err := breaker.Execute(func() (any, error) { return nil, nil })
		still(t, gobreakerB, errors.Is(err, gobreaker2.ErrTooManyRequests))
		close(hang)
	})
}

// A listener that asks the breaker waits for the lock it was called under.
// Guarded by TestRegressionListenerMayAskTheBreaker.
func TestDefect11ListenerRunsUnderTheLock(t *testing.T) {
	t.Parallel()
	var breaker *gobreaker2.CircuitBreaker[any]
	deadlocks := false
	breaker = gobreaker2.NewCircuitBreaker[any](gobreaker2.Settings{
		ReadyToTrip: func(gobreaker2.Counts) bool { return true },
		OnStateChange: func(string, gobreaker2.State, gobreaker2.State) {
			deadlocks = waitsForMutex(").Counts", func() { breaker.Counts() })
		},
	})
	_, _ = breaker.Execute(func() (any, error) { return nil, errDown })
	still(t, gobreakerB, deadlocks)
}

// Classifiers run under the lock: a slow one stops every other call.
// Guarded by TestRegressionClassifierRunsOutsideLocks.
func TestDefect12ClassifiersRunUnderTheLock(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"IsSuccessful", "IsExcluded"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var breaker *gobreaker2.CircuitBreaker[any]
			stopped, armed := false, true
			classify := func(error) bool {
				if armed {
					armed = false
					stopped = waitsForMutex(").beforeRequest", func() {
						_, _ = breaker.Execute(func() (any, error) { return nil, nil })
					})
				}
				return false
			}
			settings := gobreaker2.Settings{IsSuccessful: classify}
			if name == "IsExcluded" {
				settings = gobreaker2.Settings{IsExcluded: classify}
			}
			breaker = gobreaker2.NewCircuitBreaker[any](settings)
			_, _ = breaker.Execute(func() (any, error) { return nil, errDown })
			still(t, gobreakerB, stopped)
		})
	}
}

// An interval that tumbles forgets at its border: 18 failures within 200 ms do not
// trip a breaker that trips at 10.
// Guarded by TestRegressionWindowSlidesAcrossItsBorders.
func TestDefect13TumblingIntervalForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		breaker := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{
			Interval: 10 * time.Second, ReadyToTrip: func(c gobreaker1.Counts) bool { return c.TotalFailures >= 10 },
		})
		time.Sleep(10*time.Second - 100*time.Millisecond)
		for range 2 {
			for range 9 {
				_, _ = breaker.Execute(func() (any, error) { return nil, errDown })
			}
			time.Sleep(200 * time.Millisecond)
		}
		still(t, gobreakerA, breaker.State() == gobreaker1.StateClosed)
	})
}

// A context that is done from the start does not keep the operation from running.
// Guarded by TestRegressionRetryRunsNothingWithADeadContext.
func TestDefect14DeadContextRunsTheOperation(t *testing.T) {
	t.Parallel()
	ran4, ran5 := 0, 0
	_ = backoff4.Retry(func() error { ran4++; return nil },
		backoff4.WithContext(backoff4.NewExponentialBackOff(), cancelled(t)))
	_, _ = backoff5.Retry(cancelled(t), func() (any, error) { ran5++; return nil, nil })
	still(t, backoffA, ran4 == 1)
	still(t, backoffB, ran5 == 1)
}

// A delay that cannot fit the deadline is waited for all the same, and in the end
// the error that counts is lost.
// Guarded by TestRegressionRetryDoesNotSleepIntoTheDeadline.
func TestDefect15SleepsIntoTheDeadline(t *testing.T) {
	t.Parallel()
	for peer, retry := range map[string]func(context.Context) error{
		backoffA: func(ctx context.Context) error {
			return backoff4.Retry(fails, backoff4.WithContext(backoff4.NewConstantBackOff(time.Minute), ctx))
		},
		backoffB: func(ctx context.Context) error {
			_, err := backoff5.Retry(ctx, func() (any, error) { return nil, errDown },
				backoff5.WithBackOff(backoff5.NewConstantBackOff(time.Minute)))
			return err
		},
		failsafeGo: func(ctx context.Context) error {
			policy := retrypolicy.NewBuilder[any]().WithDelay(time.Minute).Build()
			return failsafe.With[any](policy).WithContext(ctx).Run(fails)
		},
	} {
		t.Run(peer, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				err := retry(ctx)
				if err == nil {
					t.Fatal("no error")
				}
				still(t, peer, time.Since(start) == 5*time.Second && !errors.Is(err, errDown))
			})
		})
	}
}

// A wait that would pass the deadline is refused with an error that is not
// context.DeadlineExceeded.
// Guarded by TestWaitThatCannotFitTheDeadlineIsNotBegun.
func TestDefect16WaitOverTheDeadlineIsUntyped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := rate.NewLimiter(rate.Every(time.Hour), 1)
		limiter.Allow()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := limiter.Wait(ctx)
		if err == nil {
			t.Fatal("waited an hour within a second")
		}
		still(t, xTime, !errors.Is(err, context.DeadlineExceeded))
	})
}

// A stale timestamp, as of a clock read before a contended lock, sets the limiter
// back, and the time in between is granted again and again.
// Guarded by TestRegressionStaleClockMintsNoPermits.
func TestDefect17StaleTimestampsMintPermits(t *testing.T) {
	t.Parallel()
	const perSecond, burst, calls = 1e6, 3, 1000
	limiter := rate.NewLimiter(perSecond, burst)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	allowed := 0
	for i := range calls {
		at := now
		if i%2 == 1 {
			at = at.Add(-3 * time.Microsecond)
		}
		if limiter.AllowN(at, 1) {
			allowed++
		}
	}
	still(t, xTime, allowed > 2*burst)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type body struct {
	io.Reader
	onClose func()
}

func (b body) Close() error {
	b.onClose()
	return nil
}

// serve returns a transport to a server that lives in the same synctest bubble: its
// connections are pipes.
func serve(t *testing.T, handler http.HandlerFunc) *http.Transport {
	t.Helper()
	listener := pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		client, peer := net.Pipe()
		select {
		case listener.conns <- peer:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
	})
	return transport
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }
