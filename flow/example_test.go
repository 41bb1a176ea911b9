package flow_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/armature-go/armature/flow"
)

func Example() {
	ctx := flow.WithCorrelationID(context.Background(), "c-1")
	ctx = flow.WithSaga(ctx, "order-42", 1)
	ctx = flow.WithOutgoingIdempotencyKey(ctx, "order-42/charge")

	h := http.Header{}
	flow.Inject(ctx, flow.HTTPHeader(h))

	served := flow.Extract(context.Background(), flow.HTTPHeader(h))
	fmt.Println(flow.CorrelationID(served), flow.IdempotencyKey(served), flow.OutgoingIdempotencyKey(served) == "")
	// Output: c-1 order-42/charge true
}
