package auth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport/auth"
)

func files(t testing.TB, s store, change func(*auth.FilesConfig)) *auth.Files {
	t.Helper()
	cfg := auth.FilesConfig{Cert: s.cert, Key: s.key, CA: s.ca, Interval: time.Nanosecond}
	if change != nil {
		change(&cfg)
	}
	f, err := auth.NewFiles(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shake runs a handshake over a pipe and returns the client's view and both errors.
func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("!"))
		}
		if err != nil {
			_ = a.Close()
		}
		served <- err
	}()
	c := tls.Client(b, client)
	err := c.Handshake()
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1)) // TLS 1.3 refuses client certificates after the client's handshake
	}
	state := c.ConnectionState()
	if err != nil {
		_ = b.Close()
	}
	return state, errors.Join(err, <-served)
}

func TestCertificatesAreReloadedWhenUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		s := newStore(t, ca, leafOptions{})
		var logged bytes.Buffer
		f := files(t, s, func(c *auth.FilesConfig) {
			c.CA, c.Interval, c.Logger = "", 0, slog.New(slog.NewTextHandler(&logged, nil))
		})
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		server := f.Server()
		serial := func() int64 {
			t.Helper()
			state, err := shake(server, &tls.Config{RootCAs: roots, ServerName: "localhost", Time: func() time.Time { return ca.cert.NotAfter.Add(-999 * time.Hour) }})
			if err != nil {
				t.Fatal(err)
			}
			return state.PeerCertificates[0].SerialNumber.Int64()
		}
		if got := serial(); got != 2 {
			t.Fatalf("serial %d", got)
		}
		s.put(t, ca, leafOptions{serial: 1})
		time.Sleep(10*time.Second - time.Nanosecond)
		if got := serial(); got != 2 {
			t.Errorf("serial %d before the interval, want 2", got)
		}
		time.Sleep(time.Nanosecond)
		if got := serial(); got != 3 {
			t.Errorf("serial %d after the interval, want 3", got)
		}
		// A certificate whose key has not been written yet, then nothing, then both.
		key, cert := ca.leaf(t, leafOptions{serial: 2})
		write(t, s.cert, cert)
		time.Sleep(10 * time.Second)
		if got := serial(); got != 3 {
			t.Errorf("serial %d with half a pair, want 3", got)
		}
		if err := os.Remove(s.cert); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := serial(); got != 3 {
			t.Errorf("serial %d without the file, want 3", got)
		}
		write(t, s.key, key)
		write(t, s.cert, cert)
		time.Sleep(10 * time.Second)
		if got := serial(); got != 4 {
			t.Errorf("serial %d, want 4", got)
		}
		if st := f.Stats(); st.Reloads != 2 || st.Failures != 2 || st.NotAfter.IsZero() {
			t.Errorf("stats %+v", st)
		}
		if text := logged.String(); strings.Count(text, "level=WARN") != 2 || strings.Count(text, "level=INFO") != 2 || strings.Contains(text, "PRIVATE") {
			t.Errorf("logged:\n%s", text)
		}
	})
}

func TestReplacedCAIsTrustedAndTheOldNoMore(t *testing.T) {
	t.Parallel()
	first, second := newCA(t), newCA(t)
	s := newStore(t, first, leafOptions{name: "server"})
	f := files(t, s, nil)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.VerifiedChains[0][0].Subject.CommonName, r.ProtoMajor)
	}))
	srv.TLS = f.Server()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	call := func(ca *authority, trusts []byte) (string, error) {
		cs := newStore(t, ca, leafOptions{name: "client"})
		write(t, cs.ca, trusts)
		tr := files(t, cs, nil).Transport(nil)
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get(srv.URL)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	if got, err := call(first, first.pem); got != "client2" && got != "client1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := call(second, first.pem); err == nil {
		t.Error("a client of another CA was let in")
	}
	if _, err := call(first, second.pem); err == nil {
		t.Error("a server of another CA was trusted")
	}
	write(t, s.ca, second.pem)
	if got, err := call(second, first.pem); !strings.HasPrefix(got, "client") || err != nil {
		t.Errorf("the new CA: got %q, %v", got, err)
	}
	if _, err := call(first, first.pem); err == nil {
		t.Error("a client of the old CA was let in")
	}
}

func TestOneTransportFollowsTheFiles(t *testing.T) {
	t.Parallel()
	first, second := newCA(t), newCA(t)
	server := newStore(t, first, leafOptions{})
	f := files(t, server, func(c *auth.FilesConfig) { c.CA = "" })
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.TLS = f.Server()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	client := newStore(t, first, leafOptions{})
	tr := files(t, client, nil).Transport(&http.Transport{DisableKeepAlives: true})
	defer tr.CloseIdleConnections()
	get := func() error {
		res, err := (&http.Client{Transport: tr}).Get(srv.URL)
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	server.put(t, second, leafOptions{})
	if err := get(); err == nil {
		t.Error("a server of an unknown CA was trusted")
	}
	write(t, client.ca, append(bytes.Clone(first.pem), second.pem...))
	if err := get(); err != nil {
		t.Errorf("with both CAs: %v", err)
	}
	wrong := must(url.Parse(srv.URL))
	wrong.Host = "127.0.0.2:" + wrong.Port()
	if res, err := (&http.Client{Transport: tr}).Get(wrong.String()); err == nil {
		_ = res.Body.Close()
		t.Error("the certificate of another host was accepted")
	}
}

const spiffeA, spiffeB = "spiffe://example.com/orders", "spiffe://example.com/billing"

func TestPeersAreComparedByID(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t), newCA(t)
	with := func(a *authority, peers []string, o leafOptions) *auth.Files {
		s := newStore(t, a, o)
		write(t, s.ca, ca.pem)
		return files(t, s, func(c *auth.FilesConfig) { c.Peers = peers })
	}
	a, b := leafOptions{uris: []string{spiffeA}}, leafOptions{uris: []string{spiffeB}}
	for _, tt := range []struct {
		name           string
		server, client *auth.Files
		ok             bool
	}{
		{"both expected", with(ca, []string{spiffeB}, a), with(ca, []string{spiffeA}, b), true},
		{"one of several", with(ca, []string{spiffeA, spiffeB}, a), with(ca, []string{spiffeB, spiffeA}, b), true},
		{"server unexpected", with(ca, []string{spiffeB}, a), with(ca, []string{spiffeB}, b), false},
		{"client unexpected", with(ca, []string{spiffeA}, a), with(ca, []string{spiffeA}, b), false},
		{"server of another CA", with(other, []string{spiffeB}, a), with(ca, []string{spiffeA}, b), false},
		{"client of another CA", with(ca, []string{spiffeB}, a), with(other, []string{spiffeA}, b), false},
		{"server expired", with(ca, []string{spiffeB}, leafOptions{uris: a.uris, past: true}), with(ca, []string{spiffeA}, b), false},
		{"server with two ids", with(ca, []string{spiffeB}, leafOptions{uris: []string{spiffeA, spiffeB}}), with(ca, []string{spiffeA}, b), false},
		{"server without an id", with(ca, []string{spiffeB}, leafOptions{}), with(ca, []string{spiffeA}, b), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := must(net.Listen("tcp", "127.0.0.1:0"))
			s := grpc.NewServer(grpc.Creds(tt.server.Credentials()))
			healthpb.RegisterHealthServer(s, health{who: func(context.Context) {}})
			go s.Serve(l)
			defer s.Stop()
			cc := must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(tt.client.Credentials())))
			defer cc.Close()
			_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCertificatesOverGRPC(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	server := files(t, newStore(t, ca, leafOptions{}), nil)
	g := must(auth.New(auth.Config{Authenticator: must(auth.NewCertificates(auth.CertificatesConfig{TrustDomains: []string{"example.com"}}))}))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	s := grpc.NewServer(grpc.Creds(server.Credentials()), grpc.ChainUnaryInterceptor(g.Unary))
	var who string
	healthpb.RegisterHealthServer(s, health{who: func(ctx context.Context) {
		p, _ := flow.PrincipalFrom(ctx)
		who = p.Subject
	}})
	go s.Serve(l)
	defer s.Stop()
	call := func(o leafOptions) error {
		cc := must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(files(t, newStore(t, ca, o), nil).Credentials().Clone())))
		defer cc.Close()
		_, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err
	}
	if err := call(leafOptions{uris: []string{spiffeB}}); err != nil || who != spiffeB {
		t.Errorf("got %q, %v", who, err)
	}
	if err := call(leafOptions{uris: []string{"spiffe://evil.example/billing"}}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("another trust domain: got %v", err)
	}
}

func TestWhoACertificateNames(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for _, tt := range []struct {
		name  string
		cn    bool
		leaf  leafOptions
		who   string
		fault auth.Fault
	}{
		{"id", false, leafOptions{uris: []string{spiffeA}}, spiffeA, 0},
		{"id before name", true, leafOptions{name: "bob", uris: []string{spiffeA}}, spiffeA, 0},
		{"trust domain itself", false, leafOptions{uris: []string{"spiffe://example.com"}}, "spiffe://example.com", 0},
		{"name", true, leafOptions{name: "bob"}, "bob", 0},
		{"name that does not count", false, leafOptions{name: "bob"}, "", auth.FaultCertificate},
		{"no name", true, leafOptions{}, "", auth.FaultCertificate},
		{"name like an id", true, leafOptions{name: spiffeA}, "", auth.FaultCertificate},
		{"name with a line break", true, leafOptions{name: "bob\nX: y"}, "", auth.FaultCertificate},
		{"another domain", true, leafOptions{uris: []string{"spiffe://evil.example/orders"}}, "", auth.FaultCertificate},
		{"domain that begins alike", true, leafOptions{uris: []string{"spiffe://example.com.evil.example/orders"}}, "", auth.FaultCertificate},
		{"two ids", true, leafOptions{uris: []string{spiffeA, spiffeB}}, "", auth.FaultCertificate},
		{"another URI", true, leafOptions{uris: []string{"https://example.com/orders"}}, "", auth.FaultCertificate},
		{"port", true, leafOptions{uris: []string{"spiffe://example.com:1/orders"}}, "", auth.FaultCertificate},
		{"user", true, leafOptions{uris: []string{"spiffe://example.com@evil.example/orders"}}, "", auth.FaultCertificate},
		{"query", true, leafOptions{uris: []string{spiffeA + "?x"}}, "", auth.FaultCertificate},
		{"fragment", true, leafOptions{uris: []string{spiffeA + "#x"}}, "", auth.FaultCertificate},
		{"dots", true, leafOptions{uris: []string{"spiffe://example.com/../orders"}}, "", auth.FaultCertificate},
		{"slash at the end", true, leafOptions{uris: []string{spiffeA + "/"}}, "", auth.FaultCertificate},
		{"escaped", true, leafOptions{uris: []string{"spiffe://example.com/or%64ers"}}, "", auth.FaultCertificate},
		{"upper case domain", true, leafOptions{uris: []string{"spiffe://Example.com/orders"}}, "", auth.FaultCertificate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := must(auth.NewCertificates(auth.CertificatesConfig{TrustDomains: []string{"example.com"}, CommonName: tt.cn}))
			_, cert := ca.leaf(t, tt.leaf)
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			leaf := parse(t, cert)
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
			if _, err := a.Authenticate(t.Context(), auth.FromHTTP(r)); faultOf(err) != auth.FaultMissing {
				t.Errorf("not verified: got %v, want it to count for nothing", err)
			}
			r.TLS.VerifiedChains = [][]*x509.Certificate{{leaf, ca.cert}}
			id, err := a.Authenticate(t.Context(), auth.FromHTTP(r))
			if id.Subject != tt.who || faultOf(err) != tt.fault {
				t.Errorf("got %q, %v", id.Subject, err)
			}
		})
	}
}

func parse(t testing.TB, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	return must(x509.ParseCertificate(block.Bytes))
}

func TestGrantsOfCertificates(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	_, cert := ca.leaf(t, leafOptions{uris: []string{spiffeA}})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{parse(t, cert), ca.cert}}}
	var deny error
	a := must(auth.NewCertificates(auth.CertificatesConfig{TrustDomains: []string{"example.com"}, Grant: func(c *x509.Certificate, p flow.Principal) (flow.Principal, error) {
		p.Roles = []string{c.URIs[0].Path}
		return p, deny
	}}))
	if id, err := a.Authenticate(t.Context(), auth.FromHTTP(r)); err != nil || !id.HasRole("/orders") {
		t.Errorf("got %+v, %v", id, err)
	}
	deny = errors.New("not on the list")
	if _, err := a.Authenticate(t.Context(), auth.FromHTTP(r)); !errors.Is(err, auth.ErrInvalid) || !errors.Is(err, deny) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAndCertificatesConfigIsChecked(t *testing.T) {
	t.Parallel()
	s := newStore(t, newCA(t), leafOptions{})
	for name, cfg := range map[string]auth.FilesConfig{
		"Cert, Key":      {Cert: s.cert},
		"Cert, CA":       {},
		"Interval":       {CA: s.ca, Interval: -1},
		"Peers":          {Cert: s.cert, Key: s.key, Peers: []string{spiffeA}},
		"no such file":   {CA: s.ca + "x"},
		"Cert and Key":   {Cert: s.cert, Key: s.cert},
		"no certificate": {CA: s.key},
	} {
		if _, err := auth.NewFiles(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, cfg := range []auth.CertificatesConfig{{}, {TrustDomains: []string{""}}, {TrustDomains: []string{"spiffe://example.com"}}, {TrustDomains: []string{"EXAMPLE.com"}}} {
		if _, err := auth.NewCertificates(cfg); err == nil || !strings.Contains(err.Error(), "TrustDomains") {
			t.Errorf("%+v: got %v", cfg, err)
		}
	}
	// A server without a certificate fails handshakes, not the process.
	f := must(auth.NewFiles(auth.FilesConfig{CA: s.ca}))
	if _, err := shake(f.Server(), &tls.Config{InsecureSkipVerify: true}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("got %v", err)
	}
}
