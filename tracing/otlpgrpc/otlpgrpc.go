// Package otlpgrpc exports spans with OTLP over gRPC.
//
//	provider, err := tracing.Setup(ctx, tracing.Config{
//		Service:  "order",
//		Exporter: otlpgrpc.FromEnv,
//	})
//
// A collector that is away does not hold up the start of the service: the
// connection is made in the background and exports are repeated for a while, then
// dropped.
package otlpgrpc

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// FromEnv opens an exporter set up by the OTEL_EXPORTER_OTLP_* variables
// (ENDPOINT, INSECURE, HEADERS, TIMEOUT, COMPRESSION, CERTIFICATE and their TRACES
// forms). The default endpoint is localhost:4317. It is a tracing.ExporterFunc.
func FromEnv(ctx context.Context) (sdktrace.SpanExporter, error) {
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("otlpgrpc: open exporter: %w", err)
	}
	return exporter, nil
}
