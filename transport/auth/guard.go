package auth

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// Config describes a [Guard].
type Config struct {
	// Authenticator finds out who the caller is. Required.
	Authenticator Authenticator

	// Optional lets callers without credentials through as nobody. Bad credentials
	// are refused all the same.
	Optional bool

	// PublicMethods are gRPC methods that nobody needs credentials for, in full or
	// with a whole service as in "/grpc.health.v1.Health/*". Credentials are not
	// looked at, and the call is nobody's.
	PublicMethods []string

	// Scheme is the authentication scheme of WWW-Authenticate. Default "Bearer".
	Scheme string

	// Realm names what is protected in WWW-Authenticate. Optional.
	Realm string
}

// Guard lets nobody through whom its Authenticator does not recognise, and puts the
// recognised into the context. Over HTTP it costs six allocations beside what the
// Authenticator does. Panics of the Authenticator pass through.
type Guard struct {
	cfg     Config
	methods map[string]bool
}

// New returns a guard.
func New(cfg Config) (*Guard, error) {
	if cfg.Authenticator == nil {
		return nil, configError("guard", "Authenticator", "nil", "is required", "use a Verifier, APIKeys, Certificates or AnyOf")
	}
	if cfg.Scheme == "" {
		cfg.Scheme = "Bearer"
	}
	g := &Guard{cfg: cfg, methods: make(map[string]bool, len(cfg.PublicMethods))}
	for _, name := range cfg.PublicMethods {
		if service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/"); !ok || name[0] != '/' || service == "" || method == "" {
			return nil, configError("guard", "PublicMethods", fmt.Sprintf("%q", name), "is not a method", `write "/package.Service/Method" or "/package.Service/*"`)
		}
		g.methods[name] = true
	}
	return g, nil
}

// admit returns ctx with the caller's identity, or with nobody's.
func (g *Guard) admit(ctx context.Context, r Request) (context.Context, error) {
	id, err := g.cfg.Authenticator.Authenticate(ctx, r)
	if err == nil && id.Subject == "" {
		err = fail(FaultClaim, "no subject")
	}
	if err != nil {
		if !g.cfg.Optional || !errors.Is(err, ErrMissing) {
			return nil, judged(ctx, err)
		}
		id = Identity{}
	}
	return g.acting(ctx, id), nil
}

// acting also erases what an earlier layer has believed.
func (g *Guard) acting(ctx context.Context, id Identity) context.Context {
	return flow.WithPrincipal(context.WithValue(ctx, knownKey{}, known{g, id}), id.Principal)
}

// judged makes sure that an error of somebody's own Authenticator refuses in one of
// the known ways.
func judged(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, ErrMissing):
		return failWith(FaultMissing, "", err)
	case errors.Is(err, ErrInvalid):
		return failWith(FaultMalformed, "", err)
	default:
		return undecided(ctx, err)
	}
}

// HTTP protects next, as in mux.Handle("/", guard.HTTP(handler)). Refusals are
// problem documents with WWW-Authenticate, and a 401 of next gets that header as
// well. Put it around a server or around a single handler.
func (g *Guard) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := g.admit(r.Context(), FromHTTP(r))
		if err != nil {
			refuse(w, r, err, g.cfg.Scheme, g.cfg.Realm)
			return
		}
		g.pass(w, r.WithContext(ctx), next)
	})
}

// Carry protects nothing: it keeps the request for an [Guard.Endpoint] further in.
// Use the two in place of HTTP where the refusals shall go through the server's own
// middleware, so that its metrics, traces and logs show them:
//
//	server, err := httpx.NewServer(httpx.Config{Middleware: []endpoint.Middleware{guard.Endpoint}})
//	http.Serve(listener, guard.Carry(server))
func (g *Guard) Carry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.pass(w, r.WithContext(HTTPToContext(r.Context(), r)), next)
	})
}

// pass hands a copy of the request on.
func (g *Guard) pass(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r.Header = withoutPrincipal(r.Header, flow.Field.HTTP)
	next.ServeHTTP(&challenger{ResponseWriter: w, guard: g}, r)
}

// HTTPToContext keeps r for [Guard.Endpoint]. It is a RequestFunc of go-kit, for
// ServerBefore.
func HTTPToContext(ctx context.Context, r *http.Request) context.Context {
	return context.WithValue(ctx, requestKey{}, FromHTTP(r))
}

// Endpoint is go-kit middleware. It finds the request that [Guard.Carry] or
// [HTTPToContext] has kept, or that of a gRPC server, and refuses where there is none.
// A caller that this guard has recognised already is not asked again. In a grpcx.Server
// it belongs to Middleware, beside [Guard.Stream] among the Options.
func (g *Guard) Endpoint(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		if k, _ := ctx.Value(knownKey{}).(known); k.guard == g {
			return next(ctx, request)
		}
		r, ok := ctx.Value(requestKey{}).(Request)
		if !ok {
			r = FromGRPC(ctx)
		}
		ctx, err := g.admit(ctx, r)
		if err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// Unary is an interceptor for gRPC servers. Refusals have the status
// UNAUTHENTICATED.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := g.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is an interceptor for gRPC servers. The caller is recognised once, when the
// stream opens: a stream may outlive the token.
func (g *Guard) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := g.enter(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, &guardedStream{stream, ctx})
}

type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context with the identity.
func (s *guardedStream) Context() context.Context { return s.ctx }

func (g *Guard) enter(ctx context.Context, method string) (context.Context, error) {
	r := FromGRPC(ctx)
	if g.public(method) {
		ctx = g.acting(ctx, Identity{})
	} else {
		var err error
		if ctx, err = g.admit(ctx, r); err != nil {
			return nil, err
		}
	}
	if clean := withoutPrincipal(r.md, flow.Field.GRPC); len(clean) != len(r.md) {
		ctx = metadata.NewIncomingContext(ctx, clean)
	}
	return ctx, nil
}

func (g *Guard) public(method string) bool {
	return len(g.methods) > 0 && (g.methods[method] || g.methods[method[:strings.LastIndexByte(method, '/')+1]+"*"])
}

// withoutPrincipal returns header itself when there is nothing to remove, else a
// copy: it belongs to somebody else.
func withoutPrincipal[H ~map[string][]string](header H, name func(flow.Field) string) H {
	fields := [...]flow.Field{flow.Subject, flow.Scopes, flow.Roles}
	var copied H
	for _, f := range fields {
		if _, there := header[name(f)]; !there {
			continue
		}
		if copied == nil {
			copied = make(H, len(header))
			for k, v := range header {
				copied[k] = v
			}
		}
		delete(copied, name(f))
	}
	if copied == nil {
		return header
	}
	return copied
}

// refuse answers with the challenge that fits.
func refuse(w http.ResponseWriter, r *http.Request, err error, scheme, realm string) {
	if e, ok := errors.AsType[*Error](err); ok {
		w.Header().Set(challengeHeader, e.Challenge(scheme, realm))
	}
	transport.EncodeError(r.Context(), err, w)
}

// challenger adds WWW-Authenticate to a 401 without one, which RFC 9110, section
// 15.5.2, forbids.
type challenger struct {
	http.ResponseWriter
	guard *Guard
}

// WriteHeader adds the challenge.
func (c *challenger) WriteHeader(status int) {
	if status == http.StatusUnauthorized {
		if h := c.Header(); len(h[challengeHeader]) == 0 {
			h.Set(challengeHeader, fail(FaultMissing, "").Challenge(c.guard.cfg.Scheme, c.guard.cfg.Realm))
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (c *challenger) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Flush is for handlers that look for an http.Flusher.
func (c *challenger) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }

// Hijack is for handlers that look for an http.Hijacker.
func (c *challenger) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(c.ResponseWriter).Hijack()
}
