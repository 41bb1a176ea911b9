package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// FilesConfig describes [Files].
type FilesConfig struct {
	// Cert and Key are PEM files with the certificate, its intermediates included, and
	// its private key. Both or neither; a server needs them.
	Cert string
	Key  string

	// CA is a PEM file with the certificates that peers must descend from. Empty means
	// that a server asks for no client certificate and a client trusts the system.
	CA string

	// Peers are the SPIFFE ids that the other side must have one of. Then a client
	// does not compare host names, which such certificates do not hold. Empty means
	// anybody whom CA vouches for. Needs CA.
	Peers []string

	// Interval is how often the files are looked at, at most, and only when a
	// connection is made. 0 means 10 s.
	Interval time.Duration

	// Logger is told of new files and of such that cannot be used. nil is silent.
	Logger *slog.Logger
}

// FilesStats is a moment's view of [Files].
type FilesStats struct {
	Reloads  uint64    // times that new content came into use
	Failures uint64    // times that new content could not be used
	NotAfter time.Time // end of the certificate in use, zero without one
}

// Files is TLS configuration from files that may be replaced at any time, as by
// cert-manager or a SPIFFE helper. Connections made from then on use the new content,
// Interval later at most; the others stay. Content that cannot be used, such as a
// certificate whose key has not been written yet, leaves the old in use. There is no
// goroutine and nothing to close.
type Files struct {
	cfg  FilesConfig
	base time.Time

	pair              atomic.Pointer[material]
	reloads, failures atomic.Uint64

	mu     sync.Mutex // held while reading
	looked atomic.Int64
}

// material is immutable.
type material struct {
	content [3][]byte // of the files it was made from
	cert    *tls.Certificate
	roots   *x509.CertPool
}

// NewFiles reads the files and fails if they cannot be used.
func NewFiles(cfg FilesConfig) (*Files, error) {
	const kind = "files"
	switch {
	case (cfg.Cert == "") != (cfg.Key == ""):
		return nil, configError(kind, "Cert, Key", fmt.Sprintf("%q, %q", cfg.Cert, cfg.Key), "must be set together", "set both")
	case cfg.Cert == "" && cfg.CA == "":
		return nil, configError(kind, "Cert, CA", `"", ""`, "nothing to read", "set Cert and Key, or CA")
	case cfg.Interval < 0:
		return nil, configError(kind, "Interval", cfg.Interval, "must not be negative", "leave it 0 for 10s")
	case len(cfg.Peers) > 0 && cfg.CA == "":
		return nil, configError(kind, "Peers", cfg.Peers, "needs CA", "name the file of the trust domain's bundle")
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Peers = slices.Clone(cfg.Peers)
	f := &Files{cfg: cfg, base: time.Now()}
	content, err := f.read()
	if err != nil {
		return nil, err
	}
	m, err := load(content)
	if err != nil {
		return nil, err
	}
	f.pair.Store(m)
	return f, nil
}

// current looks at the files when it is time to. Content is compared, not times of
// change: those are coarse, and links may be switched between old files.
func (f *Files) current() *material {
	now := int64(max(0, time.Since(f.base)))
	if now-f.looked.Load() < int64(f.cfg.Interval) || !f.mu.TryLock() {
		return f.pair.Load() // another connection is reading
	}
	defer f.mu.Unlock()
	f.looked.Store(now)
	content, err := f.read()
	if err == nil {
		if old := f.pair.Load(); same(content, old.content) {
			return old
		}
		var m *material
		if m, err = load(content); err == nil {
			f.pair.Store(m)
			f.reloads.Add(1)
			f.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "certificates reloaded", slog.Time("not_after", f.Stats().NotAfter))
			return m
		}
	}
	f.failures.Add(1)
	f.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn, "certificates cannot be reloaded; the old stay in use", slog.Any("error", err))
	return f.pair.Load()
}

func same(a, b [3][]byte) bool {
	return bytes.Equal(a[0], b[0]) && bytes.Equal(a[1], b[1]) && bytes.Equal(a[2], b[2])
}

func (f *Files) read() (content [3][]byte, err error) {
	for i, name := range []string{f.cfg.Cert, f.cfg.Key, f.cfg.CA} {
		if name == "" {
			continue
		}
		if content[i], err = os.ReadFile(name); err != nil {
			return content, fmt.Errorf("auth: read files: %w", err)
		}
	}
	return content, nil
}

func load(content [3][]byte) (*material, error) {
	m := material{content: content}
	if content[0] != nil {
		cert, err := tls.X509KeyPair(content[0], content[1])
		if err != nil {
			return nil, fmt.Errorf("auth: read files: Cert and Key: %w", err)
		}
		m.cert = &cert
	}
	if content[2] != nil {
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(content[2]) {
			return nil, errors.New("auth: read files: CA: no certificate in it")
		}
	}
	return &m, nil
}

// Stats returns the counts so far.
func (f *Files) Stats() FilesStats {
	st := FilesStats{Reloads: f.reloads.Load(), Failures: f.failures.Load()}
	if cert := f.pair.Load().cert; cert != nil && cert.Leaf != nil {
		st.NotAfter = cert.Leaf.NotAfter
	}
	return st
}

// Server returns the configuration of a server: TLS 1.3, and with CA set a client
// certificate is required and verified. Connections fail when Cert is not set.
func (f *Files) Server() *tls.Config {
	cfg := f.server(f.pair.Load())
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return f.server(f.current()), nil
	}
	return cfg
}

func (f *Files) server(m *material) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if m.cert == nil {
				return nil, errors.New("auth: serve TLS: no certificate: set Cert and Key")
			}
			return m.cert, nil
		},
		// A ticket would let a client resume that a new CA no longer vouches for.
		SessionTicketsDisabled: true,
	}
	if m.roots != nil {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, m.roots
	}
	if len(f.cfg.Peers) > 0 {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			return f.expected(state.VerifiedChains[0][0])
		}
	}
	return cfg
}

// client returns the configuration of one connection to serverName.
func (f *Files) client(m *material, serverName string) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		RootCAs:    m.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if m.cert == nil {
				return new(tls.Certificate), nil
			}
			return m.cert, nil
		},
	}
	if len(f.cfg.Peers) > 0 {
		// The usual verification insists on a host name. VerifyConnection, which every
		// handshake runs, does all the rest.
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			intermediates := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				intermediates.AddCert(c)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{
				Roots: m.roots, Intermediates: intermediates, CurrentTime: time.Now(),
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}); err != nil {
				return fmt.Errorf("auth: verify server: %w", err)
			}
			return f.expected(leaf)
		}
	}
	return cfg
}

func (f *Files) expected(cert *x509.Certificate) error {
	id, err := spiffeID(cert)
	if err != nil || !slices.Contains(f.cfg.Peers, id) {
		return errors.New("auth: verify peer: its certificate is none of Peers")
	}
	return nil
}

// Transport returns a copy of base whose https connections use the files, or of
// http.DefaultTransport if base is nil. Each connection is made with what the files
// hold then; connections that are idle stay open for base.IdleConnTimeout.
func (f *Files) Transport(base *http.Transport) *http.Transport {
	var t *http.Transport
	if base != nil {
		t = base.Clone()
	} else {
		t = http.DefaultTransport.(*http.Transport).Clone()
	}
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.ForceAttemptHTTP2 = true
	t.TLSClientConfig = f.client(f.pair.Load(), "") // behind a proxy net/http does not call DialTLSContext
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("auth: connect to %s: %w", addr, err)
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := f.client(f.current(), host)
		cfg.NextProtos = []string{"h2", "http/1.1"}
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("auth: connect to %s: %w", addr, err)
		}
		return secure, nil
	}
	return t
}

// Credentials returns transport credentials for grpc.Creds of a server and for
// grpc.WithTransportCredentials of a client.
func (f *Files) Credentials() credentials.TransportCredentials { return &fileCredentials{files: f} }

type fileCredentials struct {
	files *Files
	name  string // overrides the name of the server
}

// ClientHandshake secures one connection.
func (c *fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.files.client(c.files.current(), c.name)).ClientHandshake(ctx, authority, conn)
}

// ServerHandshake secures one connection.
func (c *fileCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.files.server(c.files.current())).ServerHandshake(conn)
}

// Info describes the protocol.
func (c *fileCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns a copy that shares the files.
func (c *fileCredentials) Clone() credentials.TransportCredentials {
	copied := *c
	return &copied
}

// OverrideServerName is deprecated by gRPC and still part of its interface.
func (c *fileCredentials) OverrideServerName(name string) error {
	c.name = name
	return nil
}
