package armature_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/armature-go/armature"
)

func TestEveryKeepsItsPace(t *testing.T) {
	t.Parallel()
	for name, took := range map[string]time.Duration{"quick": 0, "half the interval": 30 * time.Second, "longer than the interval": 90 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				svc := bare(t)
				var begun []time.Time
				active := 0
				svc.Every("sweep", time.Minute, func(ctx context.Context) error {
					active++
					defer func() { active-- }()
					if active > 1 {
						t.Error("two runs at once")
					}
					begun = append(begun, time.Now())
					select {
					case <-time.After(took):
					case <-ctx.Done():
					}
					return nil
				})
				start := time.Now()
				if err := running(t, svc, func(stop func()) { time.Sleep(time.Hour); stop() }); err != nil {
					t.Error(err)
				}
				if len(begun) < 25 || begun[0].Sub(start) >= time.Minute {
					t.Fatalf("%d runs in an hour, the first after %v", len(begun), begun[0].Sub(start))
				}
				turn := time.Minute
				if took > turn {
					turn = 2 * time.Minute // the one that passed meanwhile is left out
				}
				even := true
				for i := 1; i < len(begun); i++ {
					gap := begun[i].Sub(begun[i-1])
					if least, most := turn-6*time.Second, turn+6*time.Second; gap < least || gap > most {
						t.Errorf("run %d came %v after the one before, want between %v and %v", i, gap, least, most)
					}
					even = even && gap == turn
				}
				if even {
					t.Error("the runs are exactly even: no jitter")
				}
			})
		})
	}
}

func TestEverySurvivesErrorsAndPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		svc := bare(t, func(c *armature.Config) { c.LogWriter = &out })
		var runs atomic.Int32
		svc.Every("sweep", time.Minute, func(context.Context) error {
			switch runs.Add(1) {
			case 1:
				return errors.New("dial postgres://u:hunter2@db/x: refused")
			case 2:
				panic("password=hunter2 is wrong")
			}
			return nil
		})
		admin := svc.AdminHandler()
		health := func() (body struct {
			Status string `json:"status"`
			Jobs   map[string]struct {
				Runs      int        `json:"runs"`
				LastRun   *time.Time `json:"last_run"`
				LastError string     `json:"last_error"`
			} `json:"jobs"`
		}) {
			code, text := ask(t, admin, http.MethodGet, "/health", "")
			if code != http.StatusOK || json.Unmarshal([]byte(text), &body) != nil || body.Status != "ok" {
				t.Errorf("GET /health = %d %s", code, text)
			}
			return body
		}
		if j := health().Jobs["sweep"]; j.Runs != 0 || j.LastRun != nil {
			t.Errorf("before the first run /health says %+v", j)
		}
		err := running(t, svc, func(stop func()) {
			defer stop()
			for runs.Load() < 2 {
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if j := health().Jobs["sweep"]; j.Runs != 2 || j.LastError != "panic: password=xxxxx is wrong" {
				t.Errorf("after a panic /health says %+v", j)
			}
			for runs.Load() < 4 {
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if j := health().Jobs["sweep"]; j.Runs != 4 || j.LastError != "" || j.LastRun == nil {
				t.Errorf("after a good run /health says %+v", j)
			}
		})
		if err != nil {
			t.Errorf("Run = %v, want nil: a job does not stop the service", err)
		}
		want := `
# HELP armature_job_runs_total Runs of the functions given to Every, by how they ended: ok, failed, panicked, stopped.
# TYPE armature_job_runs_total counter
armature_job_runs_total{job="sweep",result="failed"} 1
armature_job_runs_total{job="sweep",result="ok"} 2
armature_job_runs_total{job="sweep",result="panicked"} 1
`
		if err := testutil.GatherAndCompare(svc.Metrics, strings.NewReader(want), "armature_job_runs_total"); err != nil {
			t.Error(err)
		}
		if text := out.String(); !strings.Contains(text, "job failed") || !strings.Contains(text, "job panicked") || strings.Contains(text, "hunter2") {
			t.Errorf("the log is\n%s", text)
		}
	})
}

func TestEveryEndsInItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		svc := bare(t)
		svc.Worker("store", j.until("store told"))
		svc.Every("sweep", time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(2 * time.Second)
			j.add("sweep ended")
			return ctx.Err()
		})
		err := running(t, svc, func(stop func()) {
			time.Sleep(10 * time.Second)
			stop()
		})
		if err != nil {
			t.Errorf("Run = %v, want nil: a job told to stop has not failed", err)
		}
		j.want(t, "12s sweep ended", "12s store told")
		want := `
# HELP armature_job_runs_total Runs of the functions given to Every, by how they ended: ok, failed, panicked, stopped.
# TYPE armature_job_runs_total counter
armature_job_runs_total{job="sweep",result="failed"} 0
armature_job_runs_total{job="sweep",result="ok"} 0
armature_job_runs_total{job="sweep",result="panicked"} 0
armature_job_runs_total{job="sweep",result="stopped"} 1
`
		if err := testutil.GatherAndCompare(svc.Metrics, strings.NewReader(want), "armature_job_runs_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestEveryRefuses(t *testing.T) {
	t.Parallel()
	svc := bare(t)
	noop := func(context.Context) error { return nil }
	svc.Worker("taken", noop)
	for want, register := range map[string]func(){
		"interval 0s is not positive": func() { svc.Every("sweep", 0, noop) },
		"the function is nil":         func() { svc.Every("sweep", time.Second, nil) },
		"the name is taken":           func() { svc.Every("taken", time.Second, noop) },
		"the name is empty":           func() { svc.Every("", time.Second, noop) },
	} {
		wantPanic(t, want, register)
	}
	if err := svc.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func wantPanic(t *testing.T, want string, fn func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if p := recover(); !strings.Contains(fmt.Sprint(p), want) {
			t.Errorf("panic = %v, want %q", p, want)
		}
	}()
	fn()
}
