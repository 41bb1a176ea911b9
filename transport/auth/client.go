package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"google.golang.org/grpc/credentials"

	"github.com/armature-go/armature/transport"
)

// ClientOption changes what [NewTransport] and [NewCallCredentials] return.
type ClientOption func(*clientOptions)

type clientOptions struct{ plain bool }

// AllowPlaintext sends tokens over connections that are not encrypted: for tests,
// and where something else encrypts.
func AllowPlaintext() ClientOption { return func(o *clientOptions) { o.plain = true } }

// NewTransport returns a RoundTripper that adds "Authorization: Bearer <token>" to
// requests without an Authorization and sends them by base, or by
// http.DefaultTransport if that is nil. A redirect to another host, port or scheme does
// not get the token, and http is refused. A token that is answered with 401 is
// forgotten if the source has a Forget(token) method; the request is not repeated.
func NewTransport(source TokenSource, base http.RoundTripper, opts ...ClientOption) http.RoundTripper {
	t := &bearerTransport{source: source, base: base}
	for _, opt := range opts {
		opt(&t.clientOptions)
	}
	if base == nil {
		t.base = http.DefaultTransport
	}
	return t
}

type bearerTransport struct {
	clientOptions

	source TokenSource
	base   http.RoundTripper
}

// RoundTrip adds the token to a copy of the request.
func (t *bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(r.Header.Values(authorizationHeader)) > 0 || strayed(r) {
		return t.base.RoundTrip(r)
	}
	token, err := t.token(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as the interface demands
		}
		return nil, err
	}
	sent := r.Clone(r.Context())
	sent.Header.Set(authorizationHeader, "Bearer "+token)
	res, err := t.base.RoundTrip(sent)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		if s, ok := t.source.(interface{ Forget(token string) }); ok {
			s.Forget(token)
		}
	}
	return res, err
}

func (t *bearerTransport) token(r *http.Request) (string, error) {
	if r.URL.Scheme != "https" && !t.plain {
		return "", fmt.Errorf("auth: send token to %s: the connection is not encrypted; use https or AllowPlaintext", r.URL.Host)
	}
	token, err := t.source.Token(r.Context())
	if err != nil {
		return "", err
	}
	if !sendable(token) {
		return "", fmt.Errorf("auth: send token to %s: the token holds characters that a header cannot", r.URL.Host)
	}
	return token, nil
}

// strayed reports whether redirects have led r away from where it was sent first.
func strayed(r *http.Request) bool {
	first := r
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return !sameOrigin(first.URL, r.URL)
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// NewCallCredentials returns credentials for grpc.WithPerRPCCredentials or
// grpc.PerRPCCredentials. Connections that are not encrypted are refused.
func NewCallCredentials(source TokenSource, opts ...ClientOption) credentials.PerRPCCredentials {
	c := &callCredentials{source: source}
	for _, opt := range opts {
		opt(&c.clientOptions)
	}
	return c
}

type callCredentials struct {
	clientOptions

	source TokenSource
}

// GetRequestMetadata returns the token. Its errors are gRPC statuses.
func (c *callCredentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.source.Token(ctx)
	if err != nil {
		return nil, transport.AsError(err).GRPCStatus().Err()
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity reports true unless AllowPlaintext was asked for.
func (c *callCredentials) RequireTransportSecurity() bool { return !c.plain }
