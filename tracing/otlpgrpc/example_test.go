package otlpgrpc_test

import (
	"context"
	"fmt"

	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/tracing/otlpgrpc"
)

func ExampleFromEnv() {
	ctx := context.Background()
	provider, err := tracing.Setup(ctx, tracing.Config{Service: "order", Exporter: otlpgrpc.FromEnv})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(provider.Shutdown(ctx)) // nothing to export, so no collector is needed
	// Output: <nil>
}
