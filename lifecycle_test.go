package armature_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature"
)

// journal records what happened, and when on the clock of the bubble.
type journal struct {
	mu    sync.Mutex
	begin time.Time
	lines []string
}

func newJournal() *journal { return &journal{begin: time.Now()} }

func (j *journal) add(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, time.Since(j.begin).String()+" "+what)
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if diff := cmp.Diff(lines, j.lines); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

// until is a worker that writes down its end.
func (j *journal) until(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name)
		return ctx.Err()
	}
}

func (j *journal) hook(name string, err error) func(context.Context) error {
	return func(context.Context) error {
		j.add(name)
		return err
	}
}

// bare is a service without servers, which needs no sockets and so runs in a
// bubble of virtual time.
func bare(t *testing.T, change ...func(*armature.Config)) *armature.Service {
	t.Helper()
	cfg := armature.Config{Name: "order", LogWriter: io.Discard}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := armature.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

func TestDrainRunsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		svc := bare(t, func(c *armature.Config) { c.DrainDelay = 5 * time.Second })
		svc.Worker("first", j.until("worker first ended"))
		svc.Worker("second", j.until("worker second ended"))
		svc.OnStop("database", j.hook("database closed", nil))
		svc.OnStop("broker", j.hook("broker closed", nil))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-svc.Ready()
			j.add("ready")
			cancel()
		}()
		if err := svc.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil after an orderly stop", err)
		}
		j.want(t, "0s ready", "5s worker second ended", "5s worker first ended", "5s broker closed", "5s database closed")
	})
}

func TestEachWorkerHasEndedBeforeTheNextIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		svc := bare(t)
		svc.Worker("store", j.until("store told"))
		svc.Worker("consumer", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(3 * time.Second) // what it still had to do
			j.add("consumer ended")
			return nil
		})
		running(t, svc, func(stop func()) { stop() })
		j.want(t, "3s consumer ended", "3s store told")
	})
}

// running starts svc, calls body once it is ready and returns what Run returned.
func running(t *testing.T, svc *armature.Service, body func(stop func())) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
		body(cancel)
		return <-done
	case err := <-done:
		return err
	}
}

func TestReadinessWaitsForTheChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		svc := bare(t)
		up := time.Now().Add(2 * time.Second)
		svc.Check("database", func(context.Context) error {
			if time.Now().Before(up) {
				return errors.New("connection refused")
			}
			return nil
		})
		if err := running(t, svc, func(stop func()) { j.add("ready"); stop() }); err != nil {
			t.Error(err)
		}
		j.want(t, "2s ready")
	})
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	tests := []struct {
		name  string
		setup func(*armature.Service)
		after time.Duration
		want  []string
	}{
		{
			name:  "a check never passes",
			setup: func(s *armature.Service) { s.Check("database", func(context.Context) error { return cause }) },
			after: 30 * time.Second,
			want:  []string{"start service order", "not ready after 30s", "check database: disk on fire"},
		},
		{
			name: "a check never answers",
			setup: func(s *armature.Service) {
				s.Check("broker", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
			},
			after: 30 * time.Second,
			want:  []string{"check broker", "context deadline exceeded"},
		},
		{
			name: "a worker fails meanwhile",
			setup: func(s *armature.Service) {
				s.Check("database", func(context.Context) error { return errors.New("not yet") })
				s.Worker("relay", func(context.Context) error { return cause })
			},
			want: []string{"service order: worker relay: disk on fire"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j := newJournal()
				svc := bare(t, func(c *armature.Config) { c.DrainDelay = time.Hour })
				tt.setup(svc)
				svc.OnStop("database", j.hook("database closed", nil))
				err := running(t, svc, func(func()) { t.Error("ready") })
				for _, want := range tt.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("Run = %v, want it to contain %q", err, want)
					}
				}
				// Nobody was ever sent here, so there is no one to wait for.
				if got := time.Since(j.begin); got.Round(time.Second) != tt.after {
					t.Errorf("failed after %v, want %v", got, tt.after)
				}
				if len(j.lines) != 1 {
					t.Errorf("the hook ran %d times, want once", len(j.lines))
				}
			})
		})
	}
}

func TestStopWhileStartingIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := bare(t)
		svc.Check("database", func(context.Context) error { return errors.New("not yet") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := svc.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestWorkerDecidesWhatItsEndMeans(t *testing.T) {
	t.Parallel()
	cause := errors.New("lost the lease")
	tests := []struct {
		name   string
		worker func(context.Context) error
		want   error  // errors.Is
		text   string // in the message
	}{
		{name: "an error stops the service", worker: func(context.Context) error { return cause }, want: cause, text: "armature: service order: worker relay: lost the lease"},
		{name: "so does a panic", worker: func(context.Context) error { panic(cause) }, want: cause, text: "worker relay: panic: lost the lease"},
		{name: "an error while stopping is reported", worker: func(ctx context.Context) error { <-ctx.Done(); return cause }, want: cause, text: "stop worker relay: lost the lease"},
		{name: "its own context's error is not", worker: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{name: "nil means done", worker: func(context.Context) error { return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				svc := bare(t)
				svc.Worker("relay", tt.worker)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := svc.Run(ctx)
				if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("Run = %v, want %v and %q", err, tt.want, tt.text)
				}
			})
		})
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		release := make(chan struct{})
		svc := bare(t, func(c *armature.Config) { c.ShutdownTimeout = 4 * time.Second })
		svc.Worker("polite", j.until("polite ended"))
		svc.Worker("deaf", func(context.Context) error { <-release; return nil })
		svc.OnStop("database", j.hook("database closed", nil))
		err := running(t, svc, func(stop func()) { stop() })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stop worker deaf: still running") {
			t.Errorf("Run = %v, want it to name the worker that did not end", err)
		}
		if strings.Contains(err.Error(), "polite") {
			t.Errorf("Run = %v blames a worker that ended when told", err)
		}
		close(release)
		synctest.Wait()
		j.want(t, "4s polite ended", "4s database closed")
	})
}

func TestHooksAllRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		one, two := errors.New("one"), errors.New("two")
		svc := bare(t)
		svc.OnStop("a", j.hook("a", one))
		svc.OnStop("b", func(context.Context) error { panic("b") })
		svc.OnStop("c", j.hook("c", two))
		err := running(t, svc, func(stop func()) { stop() })
		if !errors.Is(err, one) || !errors.Is(err, two) || !strings.Contains(err.Error(), "hook b: panic: b") {
			t.Errorf("Run = %v, want all three", err)
		}
		j.want(t, "0s c", "0s a")
	})
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := bare(t)
		if err := running(t, svc, func(stop func()) { stop() }); err != nil {
			t.Error(err)
		}
		if err := svc.Run(t.Context()); !errors.Is(err, armature.ErrAlreadyRun) {
			t.Errorf("second Run = %v, want ErrAlreadyRun", err)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	t.Run("releases a service that never ran", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			j := newJournal()
			svc := bare(t, func(c *armature.Config) { c.DrainDelay = time.Hour })
			svc.Worker("relay", j.until("never"))
			svc.OnStop("database", j.hook("database closed", nil))
			for range 2 {
				if err := svc.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			j.want(t, "0s database closed")
			if err := svc.Run(t.Context()); !errors.Is(err, armature.ErrAlreadyRun) {
				t.Errorf("Run after Close = %v, want ErrAlreadyRun", err)
			}
		})
	})
	t.Run("stops one that runs, and waits", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			j := newJournal()
			svc := bare(t, func(c *armature.Config) { c.DrainDelay = 2 * time.Second })
			err := running(t, svc, func(func()) {
				hasty, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := svc.Close(hasty); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Close of the impatient = %v, want its deadline", err)
				}
				if err := svc.Close(t.Context()); err != nil {
					t.Error(err)
				}
				j.add("closed")
			})
			if err != nil {
				t.Error(err)
			}
			j.want(t, "2s closed")
		})
	})
}

func TestRegisteringMistakesPanic(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context) error { return nil }
	tests := map[string]func(*armature.Service){
		"an empty name":   func(s *armature.Service) { s.Worker("", nothing) },
		"no function":     func(s *armature.Service) { s.Check("a", nil) },
		"a worker twice":  func(s *armature.Service) { s.Worker("a", nothing); s.Worker("a", nothing) },
		"a check twice":   func(s *armature.Service) { s.Check("a", nothing); s.Check("a", nothing) },
		"a hook twice":    func(s *armature.Service) { s.OnStop("a", nothing); s.OnStop("a", nothing) },
		"after the start": func(s *armature.Service) { _ = s.Close(context.Background()); s.Worker("a", nothing) },
	}
	for name, mistake := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := bare(t)
			defer func() {
				if p := recover(); p == nil || !strings.HasPrefix(p.(string), "armature: register ") {
					t.Errorf("recovered %v, want armature's panic", p)
				}
			}()
			mistake(svc)
		})
	}
}

func TestRunAllStopsInReverse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		var services []*armature.Service
		for _, name := range []string{"product", "order", "gateway"} {
			svc := bare(t, func(c *armature.Config) { c.Name, c.DrainDelay = name, time.Second })
			svc.Check("c", j.hook(name+" started", nil))
			svc.Worker("w", j.until(name+" stopped"))
			services = append(services, svc)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-services[2].Ready()
			synctest.Wait()
			cancel()
		}()
		if err := armature.RunAll(ctx, services...); err != nil {
			t.Error(err)
		}
		j.want(t, "0s product started", "0s order started", "0s gateway started",
			"1s gateway stopped", "2s order stopped", "3s product stopped")
	})
}

func TestRunAllStopsAllWhenOneFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("broken")
	for _, failing := range []string{"product", "order", "gateway"} {
		t.Run(failing, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				j := newJournal()
				var services []*armature.Service
				for _, name := range []string{"product", "order", "gateway"} {
					svc := bare(t, func(c *armature.Config) { c.Name = name })
					svc.OnStop("hook", j.hook(name, nil))
					if name == failing {
						svc.Check("c", func(context.Context) error { return errors.New("not yet") })
						svc.Worker("w", func(context.Context) error { return cause })
					}
					services = append(services, svc)
				}
				if err := armature.RunAll(t.Context(), services...); !errors.Is(err, cause) {
					t.Errorf("RunAll = %v, want the cause", err)
				}
				if len(j.lines) != 3 {
					t.Errorf("hooks ran: %v, want one per service", j.lines)
				}
			})
		})
	}
}
