package idempotency

import (
	"context"
	"fmt"
	"reflect"

	"github.com/go-kit/kit/endpoint"

	"github.com/armature-go/armature/transport"
)

// Once returns f so that each idempotency key runs it once. It is [Middleware] whose
// type argument is found out:
//
//	place := idempotency.Once(keys, "orders.Place", svc.Place)
func Once[Req, Resp any](keys *Keys, operation string, f transport.Func[Req, Resp]) transport.Func[Req, Resp] {
	return f.With(Middleware[Resp](keys, operation))
}

// Middleware returns go-kit middleware that runs the endpoint once for each
// idempotency key, the one of [flow.IdempotencyKey]. operation names the endpoint in
// the store and in logs: it is its own name, the same in all processes and after each
// release. Resp is the type of the response; a stored one is read into a new value of
// it. It belongs inside authentication, validation and admission, and outside of
// what retries: each thing inside happens once.
//
// It panics on mistakes of the program: no keys, no operation, or a Resp that is an
// interface and so cannot be read back.
func Middleware[Resp any](keys *Keys, operation string) endpoint.Middleware {
	t := reflect.TypeFor[Resp]()
	switch {
	case keys == nil:
		panic("idempotency: make middleware: keys are nil: use New")
	case operation == "":
		panic("idempotency: make middleware: operation is empty: name the endpoint, as in \"orders.Place\"")
	case t.Kind() == reflect.Interface:
		panic(fmt.Sprintf("idempotency: make middleware for %s: response type %s is an interface: use the type that is returned", operation, t))
	}
	decode := func(data []byte) (any, error) {
		var response Resp
		if data == nil {
			return response, nil
		}
		if t.Kind() != reflect.Pointer {
			err := keys.cfg.Codec.Decode(data, &response)
			return response, err
		}
		value := reflect.New(t.Elem())
		err := keys.cfg.Codec.Decode(data, value.Interface())
		return value.Convert(t).Interface(), err
	}
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, request any) (any, error) {
			return keys.do(ctx, operation, request, next, decode)
		}
	}
}

func isNil(response any) bool {
	v := reflect.ValueOf(response)
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice:
		return v.IsNil()
	default:
		return false
	}
}
