package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/armature-go/armature/flow"
)

// Request is what an [Authenticator] may look at, whichever transport it came by.
// The zero Request has no credentials.
type Request struct {
	http *http.Request
	md   metadata.MD
	tls  *tls.ConnectionState
}

// FromHTTP returns r as a Request.
func FromHTTP(r *http.Request) Request { return Request{http: r, tls: r.TLS} }

// FromGRPC returns the incoming metadata and the connection of a gRPC server's ctx.
func FromGRPC(ctx context.Context) Request {
	var r Request
	r.md, _ = metadata.FromIncomingContext(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			r.tls = &info.State
		}
	}
	return r
}

// Values returns the values of an HTTP header or gRPC metadata key; case does not
// matter. Do not change the slice.
func (r Request) Values(name string) []string {
	if r.http != nil {
		return r.http.Header.Values(name)
	}
	return r.md[strings.ToLower(name)]
}

// Query returns the values of a parameter of the URL's query; none over gRPC.
func (r Request) Query(name string) []string {
	if r.http == nil {
		return nil
	}
	return r.http.URL.Query()[name]
}

// TLS returns the connection's state, nil when it is not encrypted.
func (r Request) TLS() *tls.ConnectionState { return r.tls }

// Identity is who was recognised, and by what.
type Identity struct {
	flow.Principal

	Claims *Claims // of the token; nil for other credentials
}

// Authenticator finds out who sent a request. It returns an error that matches
// ErrMissing when the request has no credentials of its kind, one that matches
// ErrInvalid when they are bad, and any other error when nobody knows.
type Authenticator interface {
	Authenticate(ctx context.Context, r Request) (Identity, error)
}

// AnyOf returns an authenticator that asks each of list in turn until one
// recognises the caller. When none does, its error is UNAVAILABLE if one of them
// could not decide, else that of bad credentials, else ErrMissing.
func AnyOf(list ...Authenticator) Authenticator { return anyOf(slices.Clone(list)) }

type anyOf []Authenticator

// Authenticate asks each in turn.
func (list anyOf) Authenticate(ctx context.Context, r Request) (Identity, error) {
	var bad, unknown error
	for _, a := range list {
		id, err := a.Authenticate(ctx, r)
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, ErrMissing):
		case errors.Is(err, ErrInvalid):
			bad = cmpOr(bad, err)
		default:
			unknown = cmpOr(unknown, err)
		}
	}
	if err := cmpOr(unknown, bad); err != nil {
		return Identity{}, err
	}
	return Identity{}, fail(FaultMissing, "")
}

func cmpOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// IdentityFrom returns who a [Guard] has recognised; ok is false for nobody.
func IdentityFrom(ctx context.Context) (id Identity, ok bool) {
	k, _ := ctx.Value(knownKey{}).(known)
	return k.id, k.id.Subject != ""
}

// known is kept in the context with the guard that put it there: another guard
// does not take its word.
type known struct {
	guard *Guard
	id    Identity
}

type (
	knownKey   struct{}
	requestKey struct{}
)
