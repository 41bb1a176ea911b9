package armature_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/logging"
	"github.com/armature-go/armature/transport/httpx"
)

// ask asks the admin pages without a socket.
func ask(t *testing.T, h http.Handler, method, target, body string) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body)))
	return rec.Code, rec.Body.String()
}

var operatorPages = []string{
	"/", "/health", "/ready", "/metrics", "/buildinfo", "/config", "/routes", "/loglevel",
	"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=0", "/debug/pprof/trace?seconds=0",
}

// Not parallel: a process takes one profile and one trace at a time.
func TestAdminPages(t *testing.T) {
	svc := full(t)
	httpx.Handle(svc.HTTP, "DELETE /greet/{name...}", func(context.Context, struct {
		Name string `path:"name"`
	}) (*greeting, error) {
		return &greeting{}, nil
	})
	svc.ShowConfig(&armature.Effective{Values: []armature.Value{{Key: "http_addr", Value: ":1", Origin: "default"}}, Args: []string{"hunter2"}})
	err := running(t, svc, func(stop func()) {
		defer stop()
		c, base := client(t), "http://"+svc.AdminAddr()
		_, index := get(t, c, base+"/")
		for _, path := range operatorPages {
			code, body := get(t, c, base+path)
			if code != http.StatusOK || body == "" && !strings.Contains(path, "seconds=0") {
				t.Errorf("GET %s = %d %q", path, code, body)
			}
			if path, _, _ := strings.Cut(path, "?"); path != "/" && path != "/debug/pprof/heap" && !strings.Contains(index, "GET "+path) {
				t.Errorf("the index does not list %s:\n%s", path, index)
			}
		}
		for path, want := range map[string]string{
			"/config":                        `{"values":[{"key":"http_addr","value":":1","origin":"default"}]}` + "\n",
			"/routes":                        `{"http":["DELETE /greet/{name}","GET /greet"],"grpc":["/grpc.health.v1.Health/Check"`,
			"/buildinfo":                     `{"service":"order","version":"dev","environment":"development","go":"go1.`,
			"/loglevel":                      `{"level":"INFO","base":"INFO"}` + "\n",
			"/debug/pprof/goroutine?debug=1": "goroutine profile: total",
		} {
			if _, body := get(t, c, base+path); !strings.HasPrefix(body, want) {
				t.Errorf("GET %s = %s, want %s", path, body, want)
			}
		}
		for path, want := range map[string]int{
			"/debug/pprof/cmdline": 404, "/debug/pprof/nothing": 404, "/nothing": 404,
			"/debug/pprof/profile?seconds=301": 400, "/debug/pprof/trace?seconds=-1": 400, "/debug/pprof/heap?gc=x": 400,
		} {
			if code, body := get(t, c, base+path); code != want {
				t.Errorf("GET %s = %d %s, want %d", path, code, body, want)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Whatever the operator can see, the public cannot: neither beside an admin server
// nor without one, nor through the default mux of net/http.
func TestNoOperatorPageIsPublic(t *testing.T) {
	t.Parallel()
	for name, adminAddr := range map[string]string{"with admin": "127.0.0.1:0", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := full(t, func(c *armature.Config) { c.AdminAddr = adminAddr })
			t.Cleanup(func() {
				if err := svc.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			for _, path := range operatorPages {
				open := adminAddr == "" && (path == "/health" || path == "/ready" || path == "/metrics")
				for _, method := range []string{http.MethodGet, http.MethodPut} {
					if code, _ := ask(t, svc.HTTP, method, path, ""); !open && code != http.StatusNotFound {
						t.Errorf("%s %s on the public server = %d, want 404", method, path, code)
					}
				}
				if _, pattern := http.DefaultServeMux.Handler(httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)); pattern != "" {
					t.Errorf("GET %s is on http.DefaultServeMux as %s", path, pattern)
				}
			}
		})
	}
}

func TestLogLevelForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		svc := bare(t, func(c *armature.Config) { c.LogWriter, c.LogLevel = &out, slog.LevelWarn })
		admin := svc.AdminHandler()
		svc.Logger.Info("one")
		if code, body := ask(t, admin, http.MethodPut, "/loglevel", `{"level":"debug","for":"10m"}`); code != 200 || !strings.Contains(body, `{"level":"DEBUG","base":"WARN","until":"`) {
			t.Errorf("PUT /loglevel = %d %s", code, body)
		}
		svc.Logger.Debug("two")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		svc.Logger.Info("three")
		if code, body := ask(t, admin, http.MethodPut, "/loglevel", `{"level":"ERROR"}`); code != 200 || body != `{"level":"ERROR","base":"ERROR"}`+"\n" {
			t.Errorf("PUT /loglevel = %d %s", code, body)
		}
		if text := out.String(); strings.Contains(text, "one") || !strings.Contains(text, "two") || strings.Contains(text, "three") ||
			!strings.Contains(text, `"msg":"log level changed"`) || !strings.Contains(text, `"from":"WARN","to":"DEBUG"`) {
			t.Errorf("the log is\n%s", text)
		}
		if err := svc.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLogLevelRefuses(t *testing.T) {
	t.Parallel()
	svc := bare(t)
	admin := svc.AdminHandler()
	for body, want := range map[string]string{
		``: "the body must be", `{}`: "level is missing", `{"level":"LOUD"}`: "LOUD", `{"level":"INFO","for":"soon"}`: `for = "soon"`,
		`{"level":"INFO","for":"-1s"}`: "positive", `{"level":"INFO"}{}`: "follows", `{"level":"INFO","fro":"1s"}`: "fro",
		`{"level":"` + strings.Repeat("x", 2000) + `"}`: "too large",
	} {
		if code, answer := ask(t, admin, http.MethodPut, "/loglevel", body); code != 400 || !strings.Contains(answer, want) {
			t.Errorf("PUT /loglevel %s = %d %s, want 400 with %s", body, code, answer, want)
		}
	}
	if _, body := ask(t, admin, http.MethodGet, "/loglevel", ""); !strings.Contains(body, `"level":"INFO"`) {
		t.Errorf("after mistakes the level is %s", body)
	}
	if err := svc.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A level that a logger does not heed is not offered.
func TestLogLevelOfAForeignLogger(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		level slog.Leveler
		own   bool // the program brings its logger
		want  int
	}{
		{name: "nothing said", want: 200},
		{name: "a level", level: slog.LevelDebug, want: 200},
		{name: "the program's leveler", level: new(slog.LevelVar), want: 404},
		{name: "logger", own: true, want: 404},
		{name: "logger and a level that means nothing", own: true, level: slog.LevelDebug, want: 404},
		{name: "logger and its level", own: true, level: new(logging.Level), want: 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			svc := bare(t, func(c *armature.Config) {
				c.LogLevel = tt.level
				if tt.own {
					c.Logger = slog.New(slog.DiscardHandler)
				}
			})
			if code, _ := ask(t, svc.AdminHandler(), http.MethodGet, "/loglevel", ""); code != tt.want {
				t.Errorf("GET /loglevel = %d, want %d", code, tt.want)
			}
			if err := svc.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Not parallel, as TestAdminPages.
func TestAProfileEndsWithTheService(t *testing.T) {
	svc := full(t)
	begun := time.Now()
	err := running(t, svc, func(stop func()) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+svc.AdminAddr()+"/debug/pprof/trace?seconds=300", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client(t).Do(req) // the first bytes are there: it runs
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := get(t, client(t), "http://"+svc.AdminAddr()+"/debug/pprof/trace"); code != http.StatusConflict {
			t.Errorf("a second trace = %d, want 409", code)
		}
		stop()
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n == 0 {
			t.Errorf("the trace has %d bytes, %v", n, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the service took %v to stop", took)
	}
}

// The watch sees each turn once, without anybody asking /ready.
func TestGRPCHealthFollowsTheChecks(t *testing.T) {
	t.Parallel()
	svc := full(t, func(c *armature.Config) { c.HTTPAddr = "" })
	svc.CheckEvery(10 * time.Millisecond)
	var down atomic.Bool
	svc.Check("database", func(context.Context) error {
		if down.Load() {
			return errors.New("refused")
		}
		return nil
	})
	err := running(t, svc, func(stop func()) {
		defer stop()
		watch, err := healthpb.NewHealthClient(connect(t, svc.GRPCAddr())).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, next := range []func(){func() {}, func() { down.Store(true) }, func() { down.Store(false) }} {
			next()
			answer, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, answer.GetStatus().String())
		}
		if diff := cmp.Diff([]string{"SERVING", "NOT_SERVING", "SERVING"}, seen); diff != "" {
			t.Errorf("gRPC health (-want +got):\n%s", diff)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzLogLevelBody(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"level":"DEBUG"}`, `{"level":"INFO+2","for":"1h"}`, `{"level":"WARN","for":"-1s"}`, `{"level":null,"for":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, d, err := armature.ParseLevelChange(data)
		if d < 0 && err == nil {
			t.Errorf("%q is a change for %v", data, d)
		}
		if err == nil && !json.Valid(data) {
			t.Errorf("%q was accepted and is no JSON", data)
		}
	})
}
