// Package otlphttp exports spans with OTLP over HTTP.
//
//	provider, err := tracing.Setup(ctx, tracing.Config{
//		Service:  "order",
//		Exporter: otlphttp.FromEnv,
//	})
//
// Nothing is sent before the first span; exports that fail are repeated for a
// while, then dropped.
package otlphttp

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// FromEnv opens an exporter set up by the OTEL_EXPORTER_OTLP_* variables
// (ENDPOINT, HEADERS, TIMEOUT, COMPRESSION, CERTIFICATE and their TRACES forms).
// The default endpoint is https://localhost:4318. It is a tracing.ExporterFunc.
func FromEnv(ctx context.Context) (sdktrace.SpanExporter, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("otlphttp: open exporter: %w", err)
	}
	return exporter, nil
}
