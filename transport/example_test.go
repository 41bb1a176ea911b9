package transport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-kit/kit/endpoint"

	"github.com/armature-go/armature/transport"
)

func ExampleErrorf() {
	errOutOfStock := transport.Errorf(transport.FailedPrecondition, "OUT_OF_STOCK", "not enough stock")

	// One process answers, another one reads the answer.
	body, _ := json.Marshal(errOutOfStock.WithViolations(transport.Violation{Pointer: "/quantity", Detail: "3 at most"}))
	received := transport.FromProblem(409, body)

	fmt.Println(errors.Is(received, errOutOfStock), received.Details.Violations[0].Pointer)
	// Output: true /quantity
}

func ExampleFunc_With() {
	greet := transport.Func[string, string](func(_ context.Context, name string) (string, error) { return "hello " + name, nil })
	shout := func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, req any) (any, error) {
			resp, err := next(ctx, req)
			return resp.(string) + "!", err
		}
	}
	fmt.Println(greet.With(shout)(context.Background(), "gopher"))
	// Output: hello gopher! <nil>
}
