// Package tracing sets up OpenTelemetry tracing for a service and puts spans
// around work in one line.
//
//	provider, err := tracing.Setup(ctx, tracing.Config{Service: "order", Exporter: otlpgrpc.FromEnv})
//	if err != nil {
//		return err
//	}
//	defer provider.Shutdown(context.WithoutCancel(ctx))
//	err = tracing.Do(tracing.WithProvider(ctx, provider), "reserve stock", reserve)
//
// Exporters are values: tracing/otlpgrpc and tracing/otlphttp hold one each, any
// other SpanExporter fits. Without an exporter spans are not kept, but trace ids
// are real, so that logs and answers can still be joined by them. OpenTelemetry's
// global provider is set only on request.
//
// Spans are exported in the background. When the collector does not answer, spans
// are dropped and the failure is logged; no caller waits for it and none fails.
// [Provider.Shutdown] exports what is left and is bounded in time.
//
// A span of a failed call holds err.Error() and nothing deeper; the value of a
// panic is not recorded. Never put personal data into attributes.
package tracing
