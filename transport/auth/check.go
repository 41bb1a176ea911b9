package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// Check decides whether a principal, which may be nobody, may go on. request is the
// *http.Request, the request of the endpoint or unary method, or the
// *grpc.StreamServerInfo. nil permits. A *transport.Error and the end of the
// context are answered as they are; any other error is hidden from the caller, who gets
// a 403 if it is somebody and a 401 if it is nobody.
type Check func(ctx context.Context, p flow.Principal, request any) error

// Require permits principals that have every one of scopes. Without scopes it
// permits everybody who is somebody.
func Require(scopes ...string) Check {
	scopes = slices.Clone(scopes)
	return func(_ context.Context, p flow.Principal, _ any) error {
		if p.Subject == "" {
			return fail(FaultMissing, "")
		}
		for _, scope := range scopes {
			if !p.HasScope(scope) {
				e := fail(FaultForbidden, "a scope is missing")
				e.Scopes = slices.Clone(scopes)
				return e
			}
		}
		return nil
	}
}

// RequireRole permits principals that have at least one of the roles.
func RequireRole(role string, more ...string) Check {
	roles := append([]string{role}, more...)
	return func(_ context.Context, p flow.Principal, _ any) error {
		switch {
		case p.Subject == "":
			return fail(FaultMissing, "")
		case !slices.ContainsFunc(roles, p.HasRole):
			return fail(FaultForbidden, "a role is missing")
		}
		return nil
	}
}

// All permits what every one of checks permits; the first that does not has the say.
func All(checks ...Check) Check {
	checks = slices.Clone(checks)
	return func(ctx context.Context, p flow.Principal, request any) error {
		for _, c := range checks {
			if err := c(ctx, p, request); err != nil {
				return err
			}
		}
		return nil
	}
}

// ByMethod has a check per full gRPC method, as in "/shop.v1.Orders/Place", and
// otherwise for all others. Outside a gRPC server everything is one of the others.
func ByMethod(methods map[string]Check, otherwise Check) Check {
	table := make(map[string]Check, len(methods))
	for name, c := range methods {
		table[name] = c
	}
	return func(ctx context.Context, p flow.Principal, request any) error {
		name, _ := grpc.Method(ctx)
		if c, ok := table[name]; ok {
			return c(ctx, p, request)
		}
		return otherwise(ctx, p, request)
	}
}

// run tells 401 from 403.
func (c Check) run(ctx context.Context, request any) error {
	p, somebody := flow.PrincipalFrom(ctx)
	err := c(ctx, p, request)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("auth: check permission: %w", context.Cause(ctx))
	case somebody:
		return failWith(FaultForbidden, "", err)
	default:
		return failWith(FaultMissing, "", err)
	}
}

// Endpoint is go-kit middleware.
func (c Check) Endpoint(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		if err := c.run(ctx, request); err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// HTTP protects next. Its challenges are those of the guard further out.
func (c Check) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.run(r.Context(), r); err != nil {
			scheme, realm := "Bearer", ""
			if k, _ := r.Context().Value(knownKey{}).(known); k.guard != nil {
				scheme, realm = k.guard.cfg.Scheme, k.guard.cfg.Realm
			}
			refuse(w, r, err, scheme, realm)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Unary is an interceptor for gRPC servers.
func (c Check) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := c.run(ctx, request); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is an interceptor for gRPC servers.
func (c Check) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := c.run(stream.Context(), info); err != nil {
		return err
	}
	return handler(srv, stream)
}
