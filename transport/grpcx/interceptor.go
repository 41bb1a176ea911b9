package grpcx

import (
	"context"
	"errors"
	"sync"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc"
)

// errDetached is for a middleware that calls its next with a context of its own.
var errDetached = errors.New("grpcx: call handler: the middleware did not pass on its context")

type handlerKey struct{}

// Interceptor makes any go-kit middleware an interceptor for every unary method.
// The middleware is applied once per method, like to an endpoint of its own, so
// one that keeps state between calls keeps it per method. It must derive the
// context it passes on from the one it was given.
func Interceptor(mw endpoint.Middleware) grpc.UnaryServerInterceptor {
	next := func(ctx context.Context, req any) (any, error) {
		handler, ok := ctx.Value(handlerKey{}).(grpc.UnaryHandler)
		if !ok {
			return nil, errDetached
		}
		return handler(ctx, req)
	}
	var endpoints sync.Map // full method name -> endpoint.Endpoint
	var mu sync.Mutex
	lookup := func(name string) endpoint.Endpoint {
		if e, ok := endpoints.Load(name); ok {
			return e.(endpoint.Endpoint)
		}
		mu.Lock()
		defer mu.Unlock()
		if e, ok := endpoints.Load(name); ok {
			return e.(endpoint.Endpoint)
		}
		e := mw(next)
		endpoints.Store(name, e)
		return e
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return lookup(info.FullMethod)(context.WithValue(ctx, handlerKey{}, handler), req)
	}
}
