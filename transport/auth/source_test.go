package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
)

func signer(t testing.TB, alg auth.Algorithm, change func(*auth.SignerConfig)) *auth.Signer {
	t.Helper()
	cfg := auth.SignerConfig{Key: must(auth.NewKey(string(alg), alg, material()[alg])), Issuer: issuer, Subject: "billing", Audience: []string{audience}, Scopes: []string{"read", "write"}}
	if change != nil {
		change(&cfg)
	}
	s, err := auth.NewSigner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignedTokensAreVerified(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	for alg := range material() {
		s := signer(t, alg, func(c *auth.SignerConfig) { c.Claims = map[string]any{"tenant": "acme"} })
		c, err := v.Verify(context.Background(), must(s.Token(context.Background())))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		var tenant string
		if err := c.Decode("tenant", &tenant); err != nil || tenant != "acme" || c.Subject != "billing" || !c.Principal.HasScope("write") || c.ID == "" || c.IssuedAt.IsZero() {
			t.Errorf("%s: got %v, tenant %q, %v", alg, c, tenant, err)
		}
	}
}

func TestSignedTokenIsUsedUntilShortlyBeforeItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := signer(t, auth.HS256, nil)
		v := newVerifier(t, func(c *auth.VerifierConfig) { c.Leeway = -1 })
		first := must(s.Token(t.Context()))
		time.Sleep(4*time.Minute - time.Nanosecond)
		if must(s.Token(t.Context())) != first {
			t.Error("renewed too early")
		}
		time.Sleep(time.Nanosecond)
		second := must(s.Token(t.Context()))
		if second == first {
			t.Error("not renewed a minute before its end")
		}
		for range 100 { // whatever is handed out is good for ten seconds at least
			token := must(s.Token(t.Context()))
			c, err := v.Verify(t.Context(), token)
			if err != nil || time.Until(c.ExpiresAt) < 10*time.Second {
				t.Fatalf("got %v with %v left", err, time.Until(c.ExpiresAt))
			}
			time.Sleep(17 * time.Second)
		}
		token := must(s.Token(t.Context()))
		s.Forget("another")
		if must(s.Token(t.Context())) != token {
			t.Error("forgot the wrong token")
		}
		s.Forget(token)
		if must(s.Token(t.Context())) == token {
			t.Error("a forgotten token was handed out")
		}
	})
}

func TestSignerConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, change := range map[string]func(*auth.SignerConfig){
		"Key":      func(c *auth.SignerConfig) { c.Key = must(auth.NewKey("k", auth.ES256, public(auth.ES256))) },
		"Key ":     func(c *auth.SignerConfig) { c.Key = auth.Key{} },
		"Issuer":   func(c *auth.SignerConfig) { c.Issuer = "" },
		"Subject":  func(c *auth.SignerConfig) { c.Subject = "bö" },
		"Audience": func(c *auth.SignerConfig) { c.Audience = nil },
		"Life":     func(c *auth.SignerConfig) { c.Life = time.Second },
		"Life ":    func(c *auth.SignerConfig) { c.Life = 1 << 62 },
		"Claims":   func(c *auth.SignerConfig) { c.Claims = map[string]any{"sub": "root"} },
		"Claims ":  func(c *auth.SignerConfig) { c.Claims = map[string]any{"f": func() {}} },
	} {
		cfg := auth.SignerConfig{Key: must(auth.NewKey("k", auth.HS256, []byte(secret))), Issuer: issuer, Subject: "s", Audience: []string{"a"}}
		change(&cfg)
		if _, err := auth.NewSigner(cfg); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(field)) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// endpoint is a token endpoint without a network.
type tokenEndpoint struct {
	mu     sync.Mutex
	n      int
	life   string
	status int
	body   string
	err    error
	wait   time.Duration
	forms  []url.Values
	basic  []string
}

func (e *tokenEndpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	if e.wait > 0 {
		select {
		case <-time.After(e.wait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	body := must(io.ReadAll(r.Body))
	e.forms = append(e.forms, must(url.ParseQuery(string(body))))
	user, password, _ := r.BasicAuth()
	e.basic = append(e.basic, user+":"+password)
	if e.err != nil {
		return nil, e.err
	}
	status, answer := e.status, e.body
	if status == 0 {
		status = 200
	}
	if answer == "" {
		answer = fmt.Sprintf(`{"access_token":"token-%d","token_type":"bearer"%s}`, e.n, e.life)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func clientCredentials(t testing.TB, e *tokenEndpoint) *auth.ClientCredentials {
	t.Helper()
	return must(auth.NewClientCredentials(auth.ClientCredentialsConfig{
		TokenURL: "https://id.example.com/token", ClientID: "order:s", ClientSecret: "s3cr3t/&", Scopes: []string{"read", "write"}, Audience: audience,
		Client: &http.Client{Transport: e},
	}))
}

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &tokenEndpoint{life: `,"expires_in":600`, wait: time.Second}
		c := clientCredentials(t, e)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := c.Token(t.Context()); got != "token-1" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if e.n != 1 {
			t.Errorf("%d requests, want 1", e.n)
		}
		want := url.Values{"grant_type": {"client_credentials"}, "scope": {"read write"}, "audience": {audience}}
		if e.forms[0].Encode() != want.Encode() || e.basic[0] != "order%3As:s3cr3t%2F%26" {
			t.Errorf("sent %v as %s", e.forms[0], e.basic[0])
		}
		time.Sleep(9 * time.Minute)
		start := time.Now()
		if got, _ := c.Token(t.Context()); got != "token-2" || time.Since(start) != time.Second {
			t.Errorf("got %q", got)
		}
	})
}

func TestCallersGoOnWithTheOldTokenWhileOneRenews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &tokenEndpoint{life: `,"expires_in":600`}
		c := clientCredentials(t, e)
		must(c.Token(t.Context()))
		time.Sleep(9 * time.Minute)
		e.wait = 5 * time.Second
		go c.Token(t.Context())
		synctest.Wait()
		start := time.Now()
		if got, err := c.Token(t.Context()); got != "token-1" || err != nil || time.Since(start) != 0 {
			t.Errorf("got %q, %v after %v", got, err, time.Since(start))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got, _ := c.Token(t.Context()); got != "token-2" {
			t.Errorf("got %q", got)
		}
	})
}

func TestOldTokenOutlivesAnOutageOfTheEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &tokenEndpoint{life: `,"expires_in":600`}
		c := clientCredentials(t, e)
		must(c.Token(t.Context()))
		e.err = errors.New("connection refused")
		time.Sleep(9 * time.Minute)
		for range 290 {
			if got, err := c.Token(t.Context()); got != "token-1" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.n < 20 || e.n > 35 {
			t.Errorf("%d requests in 29 seconds, want one a second", e.n)
		}
		time.Sleep(2 * time.Second) // less than half a minute is left of it
		_, err := c.Token(t.Context())
		if e := transport.AsError(err); e.Code != transport.Unavailable || !e.NotExecuted() || strings.Contains(e.Message, "refused") {
			t.Errorf("got %v, want UNAVAILABLE", err)
		}
		e.err = nil
		if got, err := c.Token(t.Context()); err != nil || got == "token-1" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestCallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &tokenEndpoint{wait: 2 * time.Second}
		c := clientCredentials(t, e)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan error)
		go func() {
			_, err := c.Token(short)
			first <- err
		}()
		synctest.Wait()
		second := make(chan error)
		go func() {
			_, err := c.Token(t.Context())
			second <- err
		}()
		synctest.Wait()
		if _, err := c.Token(canceled()); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that does not wait: got %v", err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("first: got %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("second: got %v", err)
		}
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAnswersOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		e    *tokenEndpoint
		code transport.Code
	}{
		"refused":        {&tokenEndpoint{status: 401, body: `{"error":"invalid_client","error_description":"s3cr3t/&"}`}, transport.Internal},
		"bad request":    {&tokenEndpoint{status: 400}, transport.Internal},
		"failed":         {&tokenEndpoint{status: 500}, transport.Unavailable},
		"too many":       {&tokenEndpoint{status: 429}, transport.Unavailable},
		"not JSON":       {&tokenEndpoint{body: "<html>"}, transport.Unavailable},
		"no token":       {&tokenEndpoint{body: `{"token_type":"bearer"}`}, transport.Internal},
		"another type":   {&tokenEndpoint{body: `{"access_token":"x","token_type":"mac"}`}, transport.Internal},
		"unsendable":     {&tokenEndpoint{body: `{"access_token":"x\r\nX: y","token_type":"bearer"}`}, transport.Internal},
		"too large":      {&tokenEndpoint{body: strings.Repeat(" ", 64<<10) + "{}"}, transport.Unavailable},
		"slow":           {&tokenEndpoint{wait: time.Hour}, transport.Unavailable},
		"life forever":   {&tokenEndpoint{body: `{"access_token":"x","token_type":"Bearer","expires_in":1e300}`}, transport.OK},
		"life negative":  {&tokenEndpoint{body: `{"access_token":"x","token_type":"Bearer","expires_in":-5}`}, transport.OK},
		"no life at all": {&tokenEndpoint{body: `{"access_token":"x","token_type":"Bearer"}`}, transport.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, err := clientCredentials(t, tt.e).Token(t.Context())
				if transport.CodeOf(err) != tt.code || err != nil && strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("got %v, want %v", err, tt.code)
				}
			})
		})
	}
}

func TestClientCredentialsConfigIsChecked(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]auth.ClientCredentialsConfig{
		"TokenURL":     {TokenURL: "http://a/b", ClientID: "a", ClientSecret: "hunter2"},
		"TokenURL ":    {ClientID: "a", ClientSecret: "hunter2"},
		"ClientID":     {TokenURL: "https://a/b", ClientSecret: "hunter2"},
		"ClientSecret": {TokenURL: "https://a/b", ClientID: "a"},
		"Timeout":      {TokenURL: "https://a/b", ClientID: "a", ClientSecret: "hunter2", Timeout: -1},
	} {
		if _, err := auth.NewClientCredentials(cfg); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(field)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// source hands out words and takes note of the ones it shall forget.
type source struct {
	err    error
	forgot atomic.Value
}

func (s *source) Token(context.Context) (string, error) { return "word", s.err }
func (s *source) Forget(token string)                   { s.forgot.Store(token) }

func TestTransportAddsTheTokenWhereItBelongs(t *testing.T) {
	t.Parallel()
	var other *httptest.Server
	seen := make(map[string]string)
	var mu sync.Mutex
	handler := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Host+r.URL.Path] = r.Header.Get("Authorization")
		mu.Unlock()
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/away":
			http.Redirect(w, r, other.URL+"/back", http.StatusFound)
		case "/401":
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	home := httptest.NewServer(http.HandlerFunc(handler))
	defer home.Close()
	other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(w, r)
		if r.URL.Path == "/back" {
			http.Redirect(w, r, other.URL+"/there", http.StatusFound)
		}
	}))
	defer other.Close()
	src := &source{}
	client := &http.Client{Transport: auth.NewTransport(src, home.Client().Transport, auth.AllowPlaintext())}
	fetch := func(path string, headers ...string) {
		t.Helper()
		req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, home.URL+path, nil))
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if len(headers) == 0 && req.Header.Get("Authorization") != "" {
			t.Error("the caller's request was changed")
		}
	}
	expect := func(srv *httptest.Server, path, want string) {
		t.Helper()
		if got := seen[strings.TrimPrefix(srv.URL, "http://")+path]; got != want {
			t.Errorf("%s: sent %q, want %q", path, got, want)
		}
	}
	fetch("/same")
	expect(home, "/same", "Bearer word")
	expect(home, "/end", "Bearer word")
	fetch("/away")
	expect(home, "/away", "Bearer word")
	expect(other, "/back", "")
	expect(other, "/there", "")
	fetch("/own", "Authorization", "Basic x")
	expect(home, "/own", "Basic x")
	if src.forgot.Load() != nil {
		t.Error("a good token was forgotten")
	}
	fetch("/401")
	if src.forgot.Load() != "word" {
		t.Error("a refused token was not forgotten")
	}
}

// body notes that it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

func TestTransportSendsNoTokenInTheClear(t *testing.T) {
	t.Parallel()
	sent := false
	base := roundTrip(func(*http.Request) (*http.Response, error) {
		sent = true
		return nil, io.EOF
	})
	away := errors.New("away")
	for name, tt := range map[string]struct {
		src auth.TokenSource
		url string
	}{
		"http":      {&source{}, "http://orders/x"},
		"no source": {&source{err: away}, "https://orders/x"},
		"bad word":  {tokenFunc(func() string { return "a\r\nb" }), "https://orders/x"},
		"no word":   {tokenFunc(func() string { return "" }), "https://orders/x"},
	} {
		b := &body{Reader: strings.NewReader("x")}
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, tt.url, b))
		if res, err := auth.NewTransport(tt.src, base).RoundTrip(req); err == nil || sent || !b.closed {
			if res != nil {
				_ = res.Body.Close()
			}
			t.Errorf("%s: got %v, sent %v, closed %v", name, err, sent, b.closed)
		}
	}
}

type tokenFunc func() string

func (f tokenFunc) Token(context.Context) (string, error) { return f(), nil }

func TestCallCredentials(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	g := must(auth.New(auth.Config{Authenticator: v}))
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(grpc.ChainUnaryInterceptor(g.Unary))
	var who string
	healthpb.RegisterHealthServer(s, health{who: func(ctx context.Context) {
		p, _ := flow.PrincipalFrom(ctx)
		who = p.Subject
	}})
	go s.Serve(l)
	defer s.Stop()
	dial := func(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///x", append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	}
	cc := must(dial(grpc.WithPerRPCCredentials(auth.NewCallCredentials(signer(t, auth.ES256, nil), auth.AllowPlaintext()))))
	defer cc.Close()
	if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || who != "billing" {
		t.Errorf("got %q, %v", who, err)
	}
	if cc, err := dial(grpc.WithPerRPCCredentials(auth.NewCallCredentials(&source{}))); err == nil {
		defer cc.Close()
		if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
			t.Error("a token was sent in the clear")
		}
	}
	failing := must(dial(grpc.WithPerRPCCredentials(auth.NewCallCredentials(&source{err: transport.Errorf(transport.Unavailable, "", "away")}, auth.AllowPlaintext()))))
	defer failing.Close()
	if _, err := healthpb.NewHealthClient(failing).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}
