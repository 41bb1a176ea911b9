package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
	"github.com/armature-go/armature/transport/grpcx"
	"github.com/armature-go/armature/transport/httpx"
)

// authenticator recognises the bearer token "ann", refuses "bad" and does not know
// about "unknown".
type authenticator struct{}

func (authenticator) Authenticate(_ context.Context, r auth.Request) (auth.Identity, error) {
	values := r.Values("Authorization")
	if len(values) == 0 {
		return auth.Identity{}, auth.ErrMissing
	}
	switch values[0] {
	case "Bearer ann":
		return auth.Identity{Principal: flow.Principal{Subject: "ann", Scopes: []string{"read"}, Roles: []string{"clerk"}}}, nil
	case "Bearer nobody":
		return auth.Identity{}, nil
	case "Bearer unknown":
		return auth.Identity{}, errors.New("the directory db.internal is away")
	}
	return auth.Identity{}, fmt.Errorf("wrong word: %w", auth.ErrInvalid)
}

func newGuard(t testing.TB, change func(*auth.Config)) *auth.Guard {
	t.Helper()
	cfg := auth.Config{Authenticator: authenticator{}}
	if change != nil {
		change(&cfg)
	}
	g, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func whoami(w http.ResponseWriter, r *http.Request) {
	p, _ := flow.PrincipalFrom(r.Context())
	fmt.Fprintf(w, "%s %v %v", p.Subject, p.Scopes, p.Roles)
}

func get(h http.Handler, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/orders", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestGuardOverHTTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		optional  bool
		headers   []string
		status    int
		challenge string
		body      string // a part of it
	}{
		{"known", false, []string{"Authorization", "Bearer ann"}, 200, "", "ann [read] [clerk]"},
		{"nobody", false, nil, 401, `Bearer realm="shop"`, "CREDENTIALS_MISSING"},
		{"bad", false, []string{"Authorization", "Bearer bad"}, 401, `Bearer realm="shop", error="invalid_token"`, "CREDENTIALS_INVALID"},
		{"no subject", false, []string{"Authorization", "Bearer nobody"}, 401, `Bearer realm="shop", error="invalid_token"`, "CREDENTIALS_INVALID"},
		{"undecided", false, []string{"Authorization", "Bearer unknown"}, 503, "", "credentials cannot be checked now"},
		{"nobody may", true, nil, 200, "", " [] []"},
		{"bad may not", true, []string{"Authorization", "Bearer bad"}, 401, `Bearer realm="shop", error="invalid_token"`, "CREDENTIALS_INVALID"},
		{"undecided may not", true, []string{"Authorization", "Bearer unknown"}, 503, "", "UNAVAILABLE"},
		{"a stranger's word counts for nothing", true, []string{"X-Principal-Subject", "root", "X-Principal-Roles", "admin", "X-Principal-Scopes", "all"}, 200, "", " [] []"},
		{"not beside credentials either", false, []string{"Authorization", "Bearer ann", "X-Principal-Subject", "root", "X-Principal-Roles", "admin"}, 200, "", "ann [read] [clerk]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGuard(t, func(c *auth.Config) { c.Optional, c.Realm = tt.optional, "shop" })
			w := get(g.HTTP(http.HandlerFunc(whoami)), tt.headers...)
			if w.Code != tt.status || w.Header().Get("WWW-Authenticate") != tt.challenge || !strings.Contains(w.Body.String(), tt.body) {
				t.Errorf("got %d, %q, %s", w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
			}
			if strings.Contains(w.Body.String(), "db.internal") || strings.Contains(w.Body.String(), "wrong word") {
				t.Errorf("a stranger is told %s", w.Body)
			}
		})
	}
}

func TestIdentityHeadersOfStrangersAreRemoved(t *testing.T) {
	t.Parallel()
	g := newGuard(t, func(c *auth.Config) { c.Optional = true })
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Principal-Subject", "root")
	r.Header.Set("X-Other", "kept")
	for name, wrap := range map[string]func(http.Handler) http.Handler{"HTTP": g.HTTP, "Carry": g.Carry} {
		var seen http.Header
		wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })).ServeHTTP(httptest.NewRecorder(), r)
		if seen.Get("X-Principal-Subject") != "" || seen.Get("X-Other") != "kept" {
			t.Errorf("%s: the handler sees %v", name, seen)
		}
	}
	if r.Header.Get("X-Principal-Subject") != "root" {
		t.Error("the caller's request was changed")
	}
	// An outer layer that believed the header is overruled.
	ctx := flow.Extract(context.Background(), flow.HTTPHeader(r.Header))
	w := httptest.NewRecorder()
	g.HTTP(http.HandlerFunc(whoami)).ServeHTTP(w, r.WithContext(ctx))
	if w.Body.String() != " [] []" {
		t.Errorf("got %s, want nobody", w.Body)
	}
}

func TestChecksTell401From403(t *testing.T) {
	t.Parallel()
	custom := func(err error) auth.Check {
		return func(context.Context, flow.Principal, any) error { return err }
	}
	g := newGuard(t, func(c *auth.Config) { c.Optional = true })
	for _, tt := range []struct {
		name            string
		check           auth.Check
		nobody, ann     int
		challengeForAnn string
	}{
		{"anybody", auth.Require(), 401, 200, ""},
		{"scope", auth.Require("read"), 401, 200, ""},
		{"missing scope", auth.Require("read", "write"), 401, 403, `Bearer error="insufficient_scope", scope="read write"`},
		{"role", auth.RequireRole("admin", "clerk"), 401, 200, ""},
		{"missing role", auth.RequireRole("admin"), 401, 403, `Bearer error="insufficient_scope"`},
		{"all", auth.All(auth.Require("read"), auth.RequireRole("admin")), 401, 403, `Bearer error="insufficient_scope"`},
		{"none of nothing", auth.All(), 200, 200, ""},
		{"hook", custom(errors.New("not on a Sunday: rule 7")), 401, 403, `Bearer error="insufficient_scope"`},
		{"hook with its own answer", custom(transport.Errorf(transport.NotFound, "", "no such order")), 404, 404, ""},
		{"hook that permits", custom(nil), 200, 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := g.HTTP(tt.check.HTTP(http.HandlerFunc(whoami)))
			if w := get(h); w.Code != tt.nobody || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("nobody: got %d, %q", w.Code, w.Header().Get("WWW-Authenticate"))
			}
			w := get(h, "Authorization", "Bearer ann")
			if w.Code != tt.ann || w.Header().Get("WWW-Authenticate") != tt.challengeForAnn {
				t.Errorf("ann: got %d, %q", w.Code, w.Header().Get("WWW-Authenticate"))
			}
			if strings.Contains(w.Body.String(), "Sunday") {
				t.Errorf("the caller is told %s", w.Body)
			}
		})
	}
}

func TestCheckSeesPrincipalAndRequest(t *testing.T) {
	t.Parallel()
	type order struct{ Owner string }
	own := auth.Check(func(_ context.Context, p flow.Principal, request any) error {
		if o, ok := request.(*order); !ok || o.Owner != p.Subject {
			return errors.New("somebody else's")
		}
		return nil
	})
	e := own.Endpoint(func(context.Context, any) (any, error) { return "done", nil })
	ctx := flow.WithPrincipal(context.Background(), flow.Principal{Subject: "ann"})
	if got, err := e(ctx, &order{"ann"}); got != "done" || err != nil {
		t.Errorf("her own: got %v, %v", got, err)
	}
	if _, err := e(ctx, &order{"bob"}); transport.CodeOf(err) != transport.PermissionDenied || !errors.Is(err, auth.ErrForbidden) {
		t.Errorf("another's: got %v, want it forbidden", err)
	}
	if _, err := e(context.Background(), &order{"bob"}); !errors.Is(err, auth.ErrMissing) {
		t.Errorf("nobody: got %v, want credentials missing", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e(canceled, &order{"bob"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestGuardIsAGoKitMiddleware(t *testing.T) {
	t.Parallel()
	g := newGuard(t, nil)
	e := endpoint.Chain(g.Endpoint, auth.Require("read").Endpoint)(func(ctx context.Context, _ any) (any, error) {
		p, _ := flow.PrincipalFrom(ctx)
		return p.Subject, nil
	})
	s := kithttp.NewServer(e,
		func(context.Context, *http.Request) (any, error) { return nil, nil }, kithttp.EncodeJSONResponse,
		kithttp.ServerBefore(auth.HTTPToContext))
	if w := get(s, "Authorization", "Bearer ann"); w.Code != 200 || w.Body.String() != "\"ann\"\n" {
		t.Errorf("ann: got %d, %s", w.Code, w.Body)
	}
	// go-kit's own error encoder knows nothing of us.
	w := get(s)
	var problem transport.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" || problem.Code != "UNAUTHENTICATED" {
		t.Errorf("nobody: got %d, %v, %s", w.Code, w.Header(), w.Body)
	}
	if _, err := e(context.Background(), nil); !errors.Is(err, auth.ErrMissing) {
		t.Errorf("without a transport: got %v, want it refused", err)
	}
	// The word of another guard is not taken.
	lax := newGuard(t, func(c *auth.Config) { c.Optional = true })
	if w := get(lax.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := g.Endpoint(func(context.Context, any) (any, error) { return nil, nil })(r.Context(), nil)
		fmt.Fprint(w, errors.Is(err, auth.ErrMissing))
	}))); w.Body.String() != "true" {
		t.Error("a guard believed another one")
	}
}

func TestGuardInsideTheServerOfThisProject(t *testing.T) {
	t.Parallel()
	for _, trust := range []bool{false, true} {
		g := newGuard(t, nil)
		s := must(httpx.NewServer(httpx.Config{TrustHeaders: trust, Middleware: []endpoint.Middleware{g.Endpoint}}))
		httpx.Handle(s, "GET /orders", func(ctx context.Context, _ struct{}) (string, error) {
			p, _ := flow.PrincipalFrom(ctx)
			return p.Subject, nil
		})
		h := g.Carry(s)
		if w := get(h, "Authorization", "Bearer ann", "X-Principal-Subject", "root"); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `"ann"` {
			t.Errorf("ann: got %d, %s", w.Code, w.Body)
		}
		w := get(h, "X-Principal-Subject", "root")
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" || !strings.Contains(w.Body.String(), `"instance":"/orders"`) {
			t.Errorf("nobody: got %d, %v, %s", w.Code, w.Header(), w.Body)
		}
	}
}

func TestChallengeOfTheHandlerIsKept(t *testing.T) {
	t.Parallel()
	g := newGuard(t, func(c *auth.Config) { c.Optional = true })
	for own, want := range map[string]string{"": "Bearer", "Negotiate": "Negotiate"} {
		w := get(g.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if own != "" {
				w.Header().Set("WWW-Authenticate", own)
			}
			w.WriteHeader(http.StatusUnauthorized)
		})))
		if got := w.Header().Get("WWW-Authenticate"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestGuardKeepsWhatWritersCan(t *testing.T) {
	t.Parallel()
	g := newGuard(t, func(c *auth.Config) { c.Optional = true })
	srv := httptest.NewServer(g.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
			_ = conn.Close()
			return
		}
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})))
	defer srv.Close()
	for path, want := range map[string]string{"/hijack": "hi", "/": "a"} {
		res, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: got %q, %v", path, body, err)
		}
	}
}

func TestAnyOfAsksEachInTurn(t *testing.T) {
	t.Parallel()
	says := func(subject string, err error) auth.Authenticator { return constant{subject, err} }
	bad, away := fmt.Errorf("x: %w", auth.ErrInvalid), errors.New("away")
	for _, tt := range []struct {
		name string
		list []auth.Authenticator
		who  string
		want error
	}{
		{"none", nil, "", auth.ErrMissing},
		{"nobody", []auth.Authenticator{says("", auth.ErrMissing), says("", auth.ErrMissing)}, "", auth.ErrMissing},
		{"second", []auth.Authenticator{says("", auth.ErrMissing), says("ann", nil), says("bob", nil)}, "ann", nil},
		{"bad for one, good for another", []auth.Authenticator{says("", bad), says("ann", nil)}, "ann", nil},
		{"bad", []auth.Authenticator{says("", bad), says("", auth.ErrMissing)}, "", auth.ErrInvalid},
		{"undecided before bad", []auth.Authenticator{says("", bad), says("", away)}, "", away},
	} {
		id, err := auth.AnyOf(tt.list...).Authenticate(context.Background(), auth.Request{})
		if id.Subject != tt.who || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %q, %v", tt.name, id.Subject, err)
		}
	}
}

type constant struct {
	subject string
	err     error
}

func (c constant) Authenticate(context.Context, auth.Request) (auth.Identity, error) {
	return auth.Identity{Principal: flow.Principal{Subject: c.subject}}, c.err
}

// health is a service with a unary method and a stream that tells who calls.
type health struct {
	healthpb.UnimplementedHealthServer
	who func(context.Context)
}

func (h health) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.who(ctx)
	return &healthpb.HealthCheckResponse{}, nil
}

func (h health) Watch(_ *healthpb.HealthCheckRequest, s grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	h.who(s.Context())
	return nil
}

const checkMethod, watchMethod = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"

func serveGRPC(t *testing.T, who func(context.Context), opts ...grpc.ServerOption) healthpb.HealthClient {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s, health{who: who})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	cc := must(grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })))
	t.Cleanup(func() { _ = cc.Close() })
	return healthpb.NewHealthClient(cc)
}

// gullible believes what strangers say of themselves, as a server behind an edge does.
func gullible(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return handler(flow.Extract(ctx, flow.GRPCMetadata(md)), request)
}

func TestGuardOverGRPC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		public []string
		check  auth.Check
		md     []string
		code   codes.Code
		who    string
	}{
		{"known", nil, auth.Require("read"), []string{"authorization", "Bearer ann"}, codes.OK, "ann"},
		{"nobody", nil, auth.Require(), nil, codes.Unauthenticated, ""},
		{"bad", nil, auth.Require(), []string{"authorization", "Bearer bad"}, codes.Unauthenticated, ""},
		{"undecided", nil, auth.Require(), []string{"authorization", "Bearer unknown"}, codes.Unavailable, ""},
		{"forbidden", nil, auth.Require("write"), []string{"authorization", "Bearer ann"}, codes.PermissionDenied, ""},
		{"by method", nil, auth.ByMethod(map[string]auth.Check{checkMethod: auth.Require("read"), watchMethod: auth.Require("read")}, auth.Require("write")), []string{"authorization", "Bearer ann"}, codes.OK, "ann"},
		{"by method, otherwise", nil, auth.ByMethod(map[string]auth.Check{"/x/Y": auth.Require("read")}, auth.Require("write")), []string{"authorization", "Bearer ann"}, codes.PermissionDenied, ""},
		{"public methods", []string{checkMethod, watchMethod}, auth.All(), nil, codes.OK, ""},
		{"public service", []string{"/grpc.health.v1.Health/*"}, auth.All(), []string{"x-principal-subject", "root"}, codes.OK, ""},
		{"another public service", []string{"/grpc.health.v1.Healthy/*", "/grpc.health.v1.Health/Check2"}, auth.All(), nil, codes.Unauthenticated, ""},
		{"a stranger's word", nil, auth.Require(), []string{"authorization", "Bearer ann", "x-principal-subject", "root", "x-principal-roles", "admin"}, codes.OK, "ann"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGuard(t, func(c *auth.Config) { c.PublicMethods = tt.public })
			var seen []string
			client := serveGRPC(t, func(ctx context.Context) {
				p, _ := flow.PrincipalFrom(ctx)
				md, _ := metadata.FromIncomingContext(ctx)
				seen = append(seen, p.Subject)
				if len(md["x-principal-subject"])+len(md["x-principal-roles"]) > 0 {
					t.Error("the handler sees a stranger's identity")
				}
			}, grpc.ChainUnaryInterceptor(gullible, g.Unary, tt.check.Unary), grpc.ChainStreamInterceptor(g.Stream, tt.check.Stream))
			ctx := metadata.AppendToOutgoingContext(t.Context(), tt.md...)
			_, unary := client.Check(ctx, &healthpb.HealthCheckRequest{})
			stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, streamed := stream.Recv()
			if streamed == io.EOF {
				streamed = nil
			}
			if status.Code(unary) != tt.code || status.Code(streamed) != tt.code {
				t.Errorf("got %v and %v, want %v", unary, streamed, tt.code)
			}
			want := []string{tt.who, tt.who}
			if tt.code != codes.OK {
				want = nil
			}
			if !slices.Equal(seen, want) {
				t.Errorf("the handlers saw %q, want %q", seen, want)
			}
		})
	}
}

func TestRefusalCrossesGRPCWhole(t *testing.T) {
	t.Parallel()
	g := newGuard(t, nil)
	s := must(grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:0", Edge: true, Middleware: []endpoint.Middleware{g.Endpoint}}))
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	go s.Serve()
	defer s.Shutdown(context.Background())
	cc := must(grpcx.NewClient(grpcx.ClientConfig{Target: s.Addr()}))
	defer cc.Close()
	_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if e := transport.AsError(err); e.Code != transport.Unauthenticated || e.Domain != "auth.armature" || e.Reason != "CREDENTIALS_MISSING" || !e.NotExecuted() {
		t.Errorf("got %v", err)
	}
}

func TestIdentityIsInTheContext(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	g := must(auth.New(auth.Config{Authenticator: v, Optional: true}))
	h := g.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := auth.IdentityFrom(r.Context())
		fmt.Fprint(w, ok, id.Subject, id.Claims != nil)
	}))
	if got := get(h, "Authorization", "bearer  "+good(auth.ES256)).Body.String(); got != "trueanntrue" {
		t.Errorf("got %s", got)
	}
	if got := get(h).Body.String(); got != "falsefalse" {
		t.Errorf("got %s", got)
	}
	if got := get(h, "Authorization", "Basic YTpi"); got.Code != 200 {
		t.Errorf("another scheme: got %d, want it to be nobody's", got.Code)
	}
	twice := get(h, "Authorization", "Bearer "+good(auth.ES256), "Authorization", "Bearer "+good(auth.ES256))
	if twice.Code != 401 {
		t.Errorf("two tokens: got %d, want 401", twice.Code)
	}
}

func TestGuardConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := auth.New(auth.Config{}); err == nil || !strings.Contains(err.Error(), "Authenticator") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"", "Check", "/x", "/x/", "x/y", "//y", "*"} {
		if _, err := auth.New(auth.Config{Authenticator: authenticator{}, PublicMethods: []string{name}}); err == nil || !strings.Contains(err.Error(), "PublicMethods") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestChallengeQuotes(t *testing.T) {
	t.Parallel()
	g := newGuard(t, func(c *auth.Config) { c.Realm, c.Scheme = "a \"b\" \\ \r\nX: y", "ApiKey" })
	if got := get(g.HTTP(nil)).Header().Get("WWW-Authenticate"); got != `ApiKey realm="a \"b\" \\ X: y"` {
		t.Errorf("got %s", got)
	}
}
