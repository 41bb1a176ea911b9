package armature_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/run"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

func TestNewNamesTheField(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  armature.Config
		want string
	}{
		{name: "no name", cfg: armature.Config{}, want: `Name = ""`},
		{name: "name with capitals", cfg: armature.Config{Name: "Order"}, want: `Name = "Order": must be lower-case`},
		{name: "name too long", cfg: armature.Config{Name: strings.Repeat("a", 64)}, want: "at most 63"},
		{name: "address without port", cfg: armature.Config{Name: "order", HTTPAddr: "localhost"}, want: `HTTPAddr = "localhost": must be host:port`},
		{name: "address with a wild port", cfg: armature.Config{Name: "order", GRPCAddr: ":99999"}, want: `GRPCAddr = ":99999"`},
		{name: "one address twice", cfg: armature.Config{Name: "order", HTTPAddr: ":8080", AdminAddr: ":8080"}, want: `AdminAddr = ":8080": is the address of HTTPAddr too`},
		{name: "negative duration", cfg: armature.Config{Name: "order", DrainDelay: -time.Second}, want: `DrainDelay = "-1s": must not be negative`},
		{name: "a server's own mistake", cfg: armature.Config{Name: "order", HTTPAddr: ":0", HTTP: httpx.Config{Timeout: -1}}, want: "Timeout"},
		{name: "a sample ratio of 2", cfg: armature.Config{Name: "order", SampleRatio: new(2.0)}, want: "SampleRatio"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := armature.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

type greeting struct {
	Text string `json:"text"`
}

type nobody struct{}

// full is a service with all three servers on free loopback ports.
func full(t *testing.T, change ...func(*armature.Config)) *armature.Service {
	t.Helper()
	cfg := armature.Config{
		Name: "order", LogWriter: io.Discard,
		HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0",
	}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := armature.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if svc.HTTP != nil {
		httpx.Handle(svc.HTTP, "GET /greet", func(context.Context, nobody) (*greeting, error) { return &greeting{"hello"}, nil })
	}
	return svc
}

// client keeps no connections, so that goleak sees only what the service left.
func client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServiceServes(t *testing.T) {
	t.Parallel()
	reg := registry(t)
	svc := full(t, func(c *armature.Config) { c.Registrar = reg })
	svc.Check("database", func(context.Context) error { return nil })
	err := running(t, svc, func(stop func()) {
		c := client(t)
		admin := "http://" + svc.AdminAddr()
		if code, body := get(t, c, "http://"+svc.HTTPAddr()+"/greet"); code != 200 || !strings.Contains(body, "hello") {
			t.Errorf("GET /greet = %d %s", code, body)
		}
		if code, body := get(t, c, admin+"/health"); code != 200 || !strings.Contains(body, `"service":"order"`) {
			t.Errorf("GET /health = %d %s", code, body)
		}
		if code, body := get(t, c, admin+"/ready"); code != 200 || !strings.Contains(body, `"status":"ready","checks":{"database":{"status":"ok"`) {
			t.Errorf("GET /ready = %d %s", code, body)
		}
		_, metrics := get(t, c, admin+"/metrics")
		for _, want := range []string{"go_goroutines", "process_start_time_seconds", "armature_service_ready 1", `armature_service_info{environment="development",service="order",version="dev"} 1`, `http_request_duration_seconds_count{method="GET",route="/greet",status_code="200"} 1`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("GET /metrics lacks %s", want)
			}
		}
		if code, _ := get(t, c, "http://"+svc.HTTPAddr()+"/ready"); code != 404 {
			t.Errorf("GET /ready on the public address = %d, want 404 beside an admin server", code)
		}
		cc := connect(t, svc.GRPCAddr())
		answer, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("gRPC health = %v, %v, want SERVING", answer, err)
		}
		for name, addr := range map[string]string{"order": svc.GRPCAddr(), "order-http": svc.HTTPAddr()} {
			snap := now(t, reg, name)
			if len(snap.Instances) != 1 || snap.Instances[0].Addr != addr {
				t.Errorf("discovery knows %s as %v, want %s", name, snap.Instances, addr)
			}
		}
		stop()
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"order", "order-http"} {
		if snap := now(t, reg, name); len(snap.Instances) != 0 {
			t.Errorf("discovery still knows %s as %v", name, snap.Instances)
		}
	}
}

func TestHealthIsOnHTTPWithoutAdminServer(t *testing.T) {
	t.Parallel()
	svc := full(t, func(c *armature.Config) { c.AdminAddr, c.GRPCAddr = "", "" })
	broken := atomic.Bool{}
	svc.Check("database", func(context.Context) error {
		if broken.Load() {
			return errors.New("dial tcp db.internal: refused")
		}
		return nil
	})
	err := running(t, svc, func(stop func()) {
		defer stop()
		c, base := client(t), "http://"+svc.HTTPAddr()
		for _, path := range []string{"/health", "/ready", "/metrics"} {
			if code, _ := get(t, c, base+path); code != 200 {
				t.Errorf("GET %s = %d, want 200", path, code)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	broken.Store(true)
	rec := httptest.NewRecorder()
	svc.HTTP.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready", nil))
	if rec.Code != 503 || strings.Contains(rec.Body.String(), "db.internal") {
		t.Errorf("GET /ready = %d %s, want 503 and no word about the inside", rec.Code, rec.Body)
	}
}

// Virtual time: the report is asked through the handler, no sockets needed.
func TestReadyAsksTheChecksOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := bare(t, func(c *armature.Config) { c.HTTPAddr = "127.0.0.1:0" })
		asked := 0
		svc.Check("database", func(context.Context) error { asked++; return errors.New("down") })
		ask := func() (int, string) {
			rec := httptest.NewRecorder()
			svc.HTTP.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready", nil))
			return rec.Code, rec.Body.String()
		}
		for range 100 {
			if code, body := ask(); code != 503 || !strings.Contains(body, `"status":"new"`) || !strings.Contains(body, `"database":{"status":"failing"`) {
				t.Fatalf("GET /ready = %d %s", code, body)
			}
		}
		if asked != 1 {
			t.Errorf("100 probes asked %d times, want once", asked)
		}
		time.Sleep(time.Second)
		ask()
		if asked != 2 {
			t.Errorf("a second later the check was asked %d times, want twice", asked)
		}
		if err := svc.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestACheckThatHangsIsNotPiledUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := bare(t, func(c *armature.Config) { c.HTTPAddr = "127.0.0.1:0" })
		release := make(chan struct{})
		var runs atomic.Int32 // the check is still in there while it is read
		svc.Check("broker", func(context.Context) error { runs.Add(1); <-release; return nil })
		var bodies []map[string]any
		for range 3 {
			begin := time.Now()
			rec := httptest.NewRecorder()
			svc.HTTP.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready", nil))
			var body map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, body)
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("the prober waited %v, want at most the check's 2s", took)
			}
			time.Sleep(2 * time.Second)
		}
		if got := runs.Load(); got != 1 {
			t.Errorf("%d runs of the hanging check, want 1", got)
		}
		for _, b := range bodies {
			if !strings.Contains(fmt.Sprint(b["checks"]), "failing") {
				t.Errorf("a hanging check shows as %v", b)
			}
		}
		close(release)
		if err := svc.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// watcher is a registry that looks at the service while it is being told things.
type watcher struct {
	discovery.Registrar
	onRegister, onRemove func()
}

func (w watcher) Register(_ context.Context, in discovery.Instance) (*discovery.Registration, error) {
	w.onRegister()
	in, err := in.Normalize()
	if err != nil {
		return nil, err
	}
	return discovery.NewRegistration(in, entry(w)), nil
}

type entry watcher

func (entry) Put(context.Context, discovery.Instance) error { return nil }

func (e entry) Remove(context.Context) error {
	e.onRemove()
	return nil
}

func TestReadinessLeadsDiscovery(t *testing.T) {
	t.Parallel()
	var svc *armature.Service
	var seen []string
	ready := func(when string) func() {
		return func() {
			code, _ := get(t, client(t), "http://"+svc.AdminAddr()+"/ready")
			served, _ := get(t, client(t), "http://"+svc.HTTPAddr()+"/greet")
			seen = append(seen, fmt.Sprintf("%s: ready %d, served %d", when, code, served))
		}
	}
	svc = full(t, func(c *armature.Config) {
		c.GRPCAddr = ""
		c.Registrar = watcher{onRegister: ready("registering"), onRemove: ready("deregistering")}
	})
	svc.Worker("relay", func(ctx context.Context) error {
		<-ctx.Done()
		if conn, err := net.Dial("tcp", svc.HTTPAddr()); err == nil {
			conn.Close()
			t.Error("the server still accepts while the workers end")
		}
		return nil
	})
	if err := running(t, svc, func(stop func()) { stop() }); err != nil {
		t.Error(err)
	}
	want := "registering: ready 200, served 200; deregistering: ready 503, served 200"
	if got := strings.Join(seen, "; "); got != want {
		t.Errorf("saw %q, want %q", got, want)
	}
}

func TestGRPCHealthLeadsDiscovery(t *testing.T) {
	t.Parallel()
	var svc *armature.Service
	var seen []string
	ask := func(when string) func() {
		return func() {
			answer, err := healthpb.NewHealthClient(connect(t, svc.GRPCAddr())).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
			seen = append(seen, when+" "+answer.GetStatus().String())
		}
	}
	svc = full(t, func(c *armature.Config) {
		c.HTTPAddr = ""
		c.Registrar = watcher{onRegister: ask("registering"), onRemove: ask("deregistering")}
	})
	first := true
	svc.Check("database", func(context.Context) error {
		if first {
			first = false
			ask("starting")()
		}
		return nil
	})
	if err := running(t, svc, func(stop func()) { stop() }); err != nil {
		t.Error(err)
	}
	want := "starting NOT_SERVING; registering SERVING; deregistering NOT_SERVING"
	if got := strings.Join(seen, "; "); got != want {
		t.Errorf("saw %q, want %q", got, want)
	}
}

func TestBindFailureNamesTheServer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() }) // after the parallel subtests
	for _, field := range []string{"http", "grpc", "admin"} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			svc := full(t, func(c *armature.Config) {
				switch field {
				case "http":
					c.HTTPAddr = ln.Addr().String()
				case "grpc":
					c.GRPCAddr = ln.Addr().String()
				case "admin":
					c.AdminAddr = ln.Addr().String()
				}
			})
			closed := false
			svc.OnStop("database", func(context.Context) error { closed = true; return nil })
			err := svc.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), "start service order: bind "+field) {
				t.Errorf("Run = %v, want the %s server's address", err, field)
			}
			if !closed {
				t.Error("the hook did not run")
			}
			for _, addr := range []string{svc.HTTPAddr(), svc.GRPCAddr(), svc.AdminAddr()} {
				if addr == ln.Addr().String() || strings.HasSuffix(addr, ":0") {
					continue
				}
				if conn, err := net.Dial("tcp", addr); err == nil {
					conn.Close()
					t.Errorf("%s is still bound", addr)
				}
			}
		})
	}
}

func TestRequestsInFlightAreAnswered(t *testing.T) {
	t.Parallel()
	svc := full(t)
	entered, release := make(chan struct{}), make(chan struct{})
	httpx.Handle(svc.HTTP, "GET /slow", func(context.Context, nobody) (*greeting, error) {
		close(entered)
		<-release
		return &greeting{"late"}, nil
	})
	err := running(t, svc, func(stop func()) {
		answer := make(chan string, 1)
		go func() {
			_, body := get(t, client(t), "http://"+svc.HTTPAddr()+"/slow")
			answer <- body
		}()
		<-entered
		stop()
		for { // the drain has begun once the admin server says so
			if code, body := get(t, client(t), "http://"+svc.AdminAddr()+"/ready"); code == 503 && strings.Contains(body, "draining") {
				break
			}
		}
		close(release)
		if got := <-answer; !strings.Contains(got, "late") {
			t.Errorf("the request in flight was answered %q", got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestActorFitsARunGroup(t *testing.T) {
	t.Parallel()
	svc := full(t)
	cause := errors.New("the other one")
	var g run.Group
	g.Add(svc.Actor())
	g.Add(func() error { <-svc.Ready(); return cause }, func(error) {})
	if err := g.Run(); !errors.Is(err, cause) {
		t.Errorf("the group returned %v, want the other's error", err)
	}
	if conn, err := net.Dial("tcp", svc.HTTPAddr()); err == nil {
		conn.Close()
		t.Error("the service still listens after the group ended")
	}
}

func TestDialFindsServicesByName(t *testing.T) {
	t.Parallel()
	reg := registry(t)
	callee := full(t, func(c *armature.Config) { c.Name, c.Registrar, c.HTTPAddr = "product", reg, "" })
	caller := full(t, func(c *armature.Config) { c.Resolver = reg })
	seen := 0
	cc, err := caller.Dial("product", armature.WithIntercept(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		seen++
		return invoke(ctx, method, req, reply, cc, opts...)
	}))
	if err != nil {
		t.Fatal(err)
	}
	err = running(t, callee, func(stopCallee func()) {
		err := running(t, caller, func(stopCaller func()) {
			_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || seen != 1 {
				t.Errorf("call by name: %v after %d attempts", err, seen)
			}
			if _, metrics := get(t, client(t), "http://"+caller.AdminAddr()+"/metrics"); !strings.Contains(metrics, `armature_resilience_breaker_state{name="product",state="closed"} 1`) ||
				!strings.Contains(metrics, `armature_resilience_bulkhead_max_calls{name="product"} 256`) {
				t.Errorf("the policies are no metrics:\n%s", metrics)
			}
			stopCaller()
		})
		if err != nil {
			t.Error(err)
		}
		stopCallee()
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Canceled && transport.CodeOf(err) != transport.Canceled {
		t.Errorf("call after the stop = %v, want a closed connection", err)
	}
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	svc := bare(t)
	if _, err := svc.Dial("product"); err == nil || !strings.Contains(err.Error(), "Resolver is nil") {
		t.Errorf("Dial by name without a resolver = %v", err)
	}
	for range 2 {
		_, err := svc.Dial("127.0.0.1:1", armature.WithStandard(armature.StandardConfig{Attempts: -1}))
		if err == nil {
			t.Error("a nonsensical policy was accepted")
		}
	}
	if _, err := svc.Dial("127.0.0.1:1", armature.WithPolicy(nil)); err != nil {
		t.Error(err)
	}
	if err := svc.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := svc.Dial("127.0.0.1:2"); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("Dial after the end = %v", err)
	}
}

// A repetition must not double an effect; what makes it harmless is either that
// nothing happened or that the callee can tell.
func TestStandardPolicyRepeatsOnlyWhatIsHarmless(t *testing.T) {
	t.Parallel()
	lost := transport.Errorf(transport.Unavailable, "LOST", "connection lost")
	untouched := transport.Errorf(transport.Unavailable, "NOBODY", "no instance")
	untouched.Details.NotExecuted = true
	tests := []struct {
		name       string
		err        error
		keyed      bool
		repeatable bool
		want       int
	}{
		{name: "may have happened", err: lost, want: 1},
		{name: "may have happened, with a key", err: lost, keyed: true, want: 3},
		{name: "may have happened, a read", err: lost, repeatable: true, want: 3},
		{name: "did not happen", err: untouched, want: 3},
		{name: "refused", err: transport.Errorf(transport.FailedPrecondition, "NO", "no"), keyed: true, want: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, err := armature.StandardPolicy(armature.StandardConfig{Name: "payment", Repeatable: tt.repeatable})
				if err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if tt.keyed {
					ctx = flow.WithOutgoingIdempotencyKey(ctx, "saga-1/charge")
				}
				attempts := 0
				err = resilience.Do(ctx, p, func(context.Context) error { attempts++; return tt.err })
				if !errors.Is(err, tt.err) || attempts != tt.want {
					t.Errorf("%v after %d attempts, want %d", err, attempts, tt.want)
				}
			})
		})
	}
	p, err := armature.StandardPolicy(armature.StandardConfig{Name: "payment"})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, c := range p.Describe().Children {
		kinds = append(kinds, c.Kind)
	}
	if got := strings.Join(kinds, " > "); got != "timeout > retry > breaker > bulkhead > timeout" || len(p.Describe().Warnings) > 0 {
		t.Errorf("order is %s, warnings %v", got, p.Describe().Warnings)
	}
}

func registry(t *testing.T) *static.Registry {
	t.Helper()
	reg, err := static.New(static.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// now is what the registry knows at the moment.
func now(t *testing.T, r discovery.Resolver, service string) discovery.Snapshot {
	t.Helper()
	for snap := range r.Watch(t.Context(), service) {
		return snap
	}
	t.Fatal("the watch ended")
	return discovery.Snapshot{}
}

func connect(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}
