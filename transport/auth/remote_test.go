package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
)

// idp is an issuer without a network, so that it works in virtual time.
type idp struct {
	mu     sync.Mutex
	keys   string // the key set
	header http.Header
	status int
	err    error
	wait   time.Duration
	asked  []string
}

func newIDP(ids ...string) *idp {
	p := &idp{header: http.Header{}, status: 200}
	p.publish(ids...)
	return p
}

// publish makes ES256 keys of those ids the key set; it is always the same key.
func (p *idp) publish(ids ...string) {
	var keys []auth.Key
	for _, id := range ids {
		keys = append(keys, must(auth.NewKey(id, auth.ES256, public(auth.ES256))))
	}
	p.set(func() { p.keys = string(must(auth.JWKS(keys...))) })
}

func (p *idp) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *idp) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

func (p *idp) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	wait := p.wait
	p.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.URL.String())
	if p.err != nil {
		return nil, p.err
	}
	return &http.Response{StatusCode: p.status, Header: p.header.Clone(), Body: io.NopCloser(strings.NewReader(p.keys)), Request: r}, nil
}

func remote(t *testing.T, p *idp, change func(*auth.RemoteKeysConfig)) *auth.RemoteKeys {
	t.Helper()
	cfg := auth.RemoteKeysConfig{URL: "https://id.example.com/keys", Client: &http.Client{Transport: p}, Rand: func() float64 { return 1 }}
	if change != nil {
		change(&cfg)
	}
	k, err := auth.NewRemoteKeys(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// has reports whether the set finds the key, and fails the test on an error.
func has(t *testing.T, k *auth.RemoteKeys, kid string) bool {
	t.Helper()
	keys, err := k.Find(t.Context(), kid)
	if err != nil {
		t.Fatalf("find %q: %v", kid, err)
	}
	return len(keys) > 0
}

func TestKeysAreFetchedOnFirstUseAndOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		p.wait = time.Second
		k := remote(t, p, nil)
		time.Sleep(time.Hour)
		if p.requests() != 0 {
			t.Error("fetched before the first use")
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if !has(t, k, "a") {
					t.Error("not found")
				}
			})
		}
		wg.Wait()
		if p.requests() != 1 {
			t.Errorf("%d requests, want 1", p.requests())
		}
		if st := k.Stats(); st.Keys != 1 || st.Fetches != 1 || st.Failures != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestRotationIsNoticedAtOnceAndAtMostSoOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		k := remote(t, p, nil)
		has(t, k, "a")
		time.Sleep(10 * time.Second)
		p.publish("a", "b")
		if !has(t, k, "b") {
			t.Error("the new key was not found at its first use")
		}
		for i := range 1000 { // a stranger's key ids
			if has(t, k, fmt.Sprint("x", i)) {
				t.Error("found what is not there")
			}
			time.Sleep(10 * time.Millisecond)
		}
		// One at the start, one for b, one after ten seconds.
		if got := p.requests(); got > 3 {
			t.Errorf("%d requests, want 3 at most", got)
		}
	})
}

func TestKeysAreRenewedInTheBackground(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		cache string
		age   string
		after time.Duration
	}{
		{"no header", "", "", 15 * time.Minute},
		{"max-age", "public, max-age=600", "", 10 * time.Minute},
		{"age", "max-age=600", "120", 8 * time.Minute},
		{"too short", "max-age=1", "", time.Minute},
		{"too long", "max-age=31536000", "", time.Hour},
		{"no-store", "no-store, max-age=600", "", time.Minute},
		{"unreadable", "max-age=-1", "", time.Minute},
		{"beyond all bounds", "max-age=99999999999999999999", "", time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newIDP("a")
				p.header.Set("Cache-Control", tt.cache)
				p.header.Set("Age", tt.age)
				k := remote(t, p, nil)
				has(t, k, "a")
				time.Sleep(tt.after - time.Nanosecond)
				has(t, k, "a")
				synctest.Wait()
				if p.requests() != 1 {
					t.Fatalf("renewed too early")
				}
				p.publish("b")
				p.set(func() { p.wait = time.Second })
				time.Sleep(time.Nanosecond)
				start := time.Now()
				if !has(t, k, "a") || time.Since(start) != 0 {
					t.Error("a caller had to wait for the renewal")
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if has(t, k, "a") || !has(t, k, "b") {
					t.Error("the withdrawn key is still there, or the new one is not")
				}
			})
		})
	}
}

func TestOldKeysOutliveAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		var logged bytes.Buffer
		k := remote(t, p, func(c *auth.RemoteKeysConfig) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		has(t, k, "a")
		p.set(func() { p.err = errors.New("connection refused") })
		time.Sleep(15 * time.Minute)
		before := p.requests()
		for range 600 { // ten minutes of use
			if !has(t, k, "a") {
				t.Fatal("lost")
			}
			time.Sleep(time.Second)
		}
		// 1, 2, 4, 8, 16 and 32 seconds apart, then a minute.
		if got := p.requests() - before; got < 10 || got > 16 {
			t.Errorf("%d attempts in ten minutes, want back-off", got)
		}
		if !strings.Contains(logged.String(), "connection refused") {
			t.Error("the outage was not logged")
		}
		time.Sleep(24 * time.Hour)
		if _, err := k.Find(t.Context(), "a"); err == nil {
			t.Error("the keys are used longer than MaxStale")
		}
		p.set(func() { p.err = nil })
		time.Sleep(time.Minute)
		if !has(t, k, "a") {
			t.Error("not found after the outage")
		}
	})
}

func TestUnknownKeyDuringAnOutageIsUndecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		k := remote(t, p, nil)
		has(t, k, "a")
		time.Sleep(time.Minute)
		p.set(func() { p.err = errors.New("connection refused") })
		v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = k })
		token := sign(auth.ES256, header(auth.ES256, object{"kid": "b"}), claims(nil))
		for i := range 2 {
			_, err := v.Verify(t.Context(), token)
			e := transport.AsError(err)
			if e.Code != transport.Unavailable || strings.Contains(e.Message, "refused") {
				t.Errorf("got %v, want UNAVAILABLE", err)
			}
			if d, ok := e.RetryAfter(); i == 1 && (!ok || d <= 0) {
				t.Errorf("retry after %v, %v", d, ok)
			}
		}
	})
}

func TestBadAnswersAreNotTaken(t *testing.T) {
	t.Parallel()
	big := `{"keys":[` + strings.Repeat(" ", 1<<20) + `]}`
	many := `{"keys":[` + strings.TrimSuffix(strings.Repeat(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},`, 129), ",") + `]}`
	for name, change := range map[string]func(p *idp){
		"500":          func(p *idp) { p.status = 500 },
		"204":          func(p *idp) { p.status = 204 },
		"redirect":     func(p *idp) { p.status, p.header = 302, http.Header{"Location": {"http://evil.example/keys"}} },
		"empty":        func(p *idp) { p.keys = "" },
		"HTML":         func(p *idp) { p.keys = "<html>" },
		"no keys":      func(p *idp) { p.keys = `{"keys":[]}` },
		"secrets only": func(p *idp) { p.keys = `{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"` + encode(secret) + `"}]}` },
		"huge":         func(p *idp) { p.keys = big },
		"many":         func(p *idp) { p.keys = many },
		"slow":         func(p *idp) { p.wait = time.Minute },
		"broken":       func(p *idp) { p.err = io.ErrUnexpectedEOF },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newIDP("a")
				change(p)
				k := remote(t, p, func(c *auth.RemoteKeysConfig) { c.MaxBytes = 1 << 20 })
				start := time.Now()
				_, err := k.Find(t.Context(), "a")
				if e, ok := errors.AsType[*auth.KeysError](err); !ok || !e.Retryable() {
					t.Errorf("got %v, want a KeysError", err)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("took %v, want 5s at most", took)
				}
				if name == "huge" && !strings.Contains(fmt.Sprint(err), "longer than 1048576 bytes") {
					t.Errorf("got %v, want the size refused", err)
				}
				if strings.Contains(fmt.Sprint(err), encode(secret)) {
					t.Error("a secret is in the error")
				}
			})
		})
	}
}

func TestImpatientCallersLeaveTheFetchToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		p.wait = 3 * time.Second
		k := remote(t, p, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.Find(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if !has(t, k, "a") || p.requests() != 1 {
			t.Errorf("%d requests, want the first to have gone on", p.requests())
		}
	})
}

func TestClosedKeysFetchNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newIDP("a")
		p.wait = time.Minute
		k := remote(t, p, nil)
		failed := make(chan error)
		go func() {
			_, err := k.Find(t.Context(), "a")
			failed <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := k.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("close: %v after %v", err, time.Since(start))
		}
		if err := <-failed; err == nil {
			t.Error("the fetch was not canceled")
		}
		if _, err := k.Find(t.Context(), "a"); err == nil {
			t.Error("found after Close")
		}
		_ = k.Close()
	})
}

// discovery answers by path.
type discovery map[string]string

func (d discovery) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := d[r.URL.String()]
	if to, moved := strings.CutPrefix(body, "moved to "); moved {
		return &http.Response{StatusCode: 302, Header: http.Header{"Location": {to}}, Body: http.NoBody, Request: r}, nil
	}
	if strings.HasPrefix(body, "asked? ") {
		panic("asked in the clear")
	}
	if !ok {
		return nil, fmt.Errorf("nothing at %s", r.URL)
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	keys := newIDP("a").keys
	const doc = "https://id.example.com/.well-known/openid-configuration"
	const tenant = "https://id.example.com/t1/"
	for _, tt := range []struct {
		name, issuer string
		pages        discovery
		ok           bool
	}{
		{"found", issuer, discovery{doc: `{"issuer":"https://id.example.com","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": keys}, true},
		{"issuer with a path and a slash", tenant, discovery{tenant + ".well-known/openid-configuration": `{"issuer":"` + tenant + `","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": keys}, true},
		{"another issuer", issuer, discovery{doc: `{"issuer":"https://evil.example","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": keys}, false},
		{"nearly the same issuer", issuer, discovery{doc: `{"issuer":"https://id.example.com/","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": keys}, false},
		{"no issuer", issuer, discovery{doc: `{"jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": keys}, false},
		{"keys over http", issuer, discovery{doc: `{"issuer":"https://id.example.com","jwks_uri":"http://cdn.example.com/k"}`, "http://cdn.example.com/k": "asked? " + keys}, false},
		{"keys moved", issuer, discovery{doc: `{"issuer":"https://id.example.com","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": "moved to https://cdn.example.com/l", "https://cdn.example.com/l": keys}, true},
		{"keys moved to http", issuer, discovery{doc: `{"issuer":"https://id.example.com","jwks_uri":"https://cdn.example.com/k"}`, "https://cdn.example.com/k": "moved to http://cdn.example.com/l", "http://cdn.example.com/l": keys}, false},
		{"keys in a file", issuer, discovery{doc: `{"issuer":"https://id.example.com","jwks_uri":"file:///etc/passwd"}`}, false},
		{"no keys", issuer, discovery{doc: `{"issuer":"https://id.example.com"}`}, false},
		{"not JSON", issuer, discovery{doc: `<html>`}, false},
		{"nothing", issuer, discovery{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, err := auth.NewRemoteKeys(auth.RemoteKeysConfig{Issuer: tt.issuer, Client: &http.Client{Transport: tt.pages}})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			found, err := k.Find(context.Background(), "a")
			if (len(found) == 1) != tt.ok || (err == nil) != tt.ok {
				t.Errorf("got %v, %v", found, err)
			}
		})
	}
}

func TestRemoteKeysOverARealServer(t *testing.T) {
	t.Parallel()
	keys := newIDP("ES256").keys
	var moved atomic.Bool
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if moved.Load() && r.URL.Path == "/" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, keys)
	}))
	defer srv.Close()
	k := must(auth.NewRemoteKeys(auth.RemoteKeysConfig{URL: srv.URL, Client: srv.Client()}))
	defer k.Close()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = k })
	if _, err := v.Verify(t.Context(), good(auth.ES256)); err != nil {
		t.Error(err)
	}
	// Our own client trusts no test certificate; over http it follows no redirect.
	plain := httptest.NewServer(srv.Config.Handler)
	defer plain.Close()
	own := must(auth.NewRemoteKeys(auth.RemoteKeysConfig{URL: plain.URL, AllowHTTP: true, MissInterval: time.Nanosecond}))
	defer own.Close()
	if found, err := own.Find(t.Context(), "ES256"); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v", found, err)
	}
	moved.Store(true)
	if _, err := own.Find(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("got %v, want the redirect refused", err)
	}
}

func TestRemoteKeysConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]auth.RemoteKeysConfig{
		"URL, Issuer":  {},
		"URL, Issuer ": {URL: "https://a/b", Issuer: "https://a"},
		"https":        {URL: "http://a/b"},
		"absolute":     {URL: "/keys"},
		"absolute ":    {URL: "https://a/b#c"},
		"user":         {URL: "https://u:hunter2@a/b"},
		"https ":       {URL: "file:///keys"},
		"Timeout":      {URL: "https://a/b", Timeout: -1},
		"MinRefresh":   {URL: "https://a/b", MinRefresh: -1},
		"MaxRefresh":   {URL: "https://a/b", MinRefresh: time.Hour, MaxRefresh: time.Minute},
		"MissInterval": {URL: "https://a/b", MissInterval: -1},
		"MaxBytes":     {URL: "https://a/b", MaxBytes: -1},
		"RSAAlgorithm": {URL: "https://a/b", RSAAlgorithm: auth.HS256},
	} {
		_, err := auth.NewRemoteKeys(cfg)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
