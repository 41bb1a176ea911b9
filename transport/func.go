package transport

import (
	"context"
	"reflect"

	"github.com/go-kit/kit/endpoint"
)

// Func is a business operation: one request, one response, one error. It is
// safe for concurrent use when the function behind it is.
type Func[Req, Resp any] func(context.Context, Req) (Resp, error)

// Endpoint converts f to a go-kit endpoint. A request of another type than Req
// answers an INTERNAL [*Error] and does not call f. The conversion costs a few
// nanoseconds; a Req or Resp that is not a pointer also costs one allocation.
func (f Func[Req, Resp]) Endpoint() endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		req, err := assert[Req]("request", request)
		if err != nil {
			return nil, err
		}
		return f(ctx, req)
	}
}

// From converts a go-kit endpoint to a Func. A response that implements
// endpoint.Failer and has failed yields that error; a response of another type
// than Resp yields an INTERNAL [*Error]. A response that comes with an error is
// kept when its type is right.
func From[Req, Resp any](e endpoint.Endpoint) Func[Req, Resp] {
	return func(ctx context.Context, req Req) (Resp, error) {
		response, err := e(ctx, req)
		if err != nil {
			resp, _ := response.(Resp)
			return resp, err
		}
		resp, err := assert[Resp]("response", response)
		if err != nil {
			return resp, err
		}
		if failer, ok := response.(endpoint.Failer); ok {
			err = failer.Failed()
		}
		return resp, err
	}
}

// With returns f behind the middlewares; the first is outermost.
func (f Func[Req, Resp]) With(middlewares ...endpoint.Middleware) Func[Req, Resp] {
	if len(middlewares) == 0 {
		return f
	}
	e := f.Endpoint()
	for i := len(middlewares) - 1; i >= 0; i-- {
		e = middlewares[i](e)
	}
	return From[Req, Resp](e)
}

// Map adapts f to other request and response types, as between a generated
// message and a domain type. An error of in keeps f from being called; an error
// of f is returned as it is and keeps out from being called.
func Map[A, B, C, D any](f Func[B, C], in func(A) (B, error), out func(C) (D, error)) Func[A, D] {
	return func(ctx context.Context, a A) (D, error) {
		var zero D
		b, err := in(a)
		if err != nil {
			return zero, err
		}
		c, err := f(ctx, b)
		if err != nil {
			return zero, err
		}
		return out(c)
	}
}

// assert accepts an untyped nil for interface types, where it is a legal value
// that a type assertion nevertheless refuses.
func assert[T any](what string, value any) (T, error) {
	typed, ok := value.(T)
	if ok || (value == nil && reflect.TypeFor[T]().Kind() == reflect.Interface) {
		return typed, nil
	}
	return typed, internal("transport: assert %s: got %T, want %s", what, value, reflect.TypeFor[T]())
}
