// Package flow carries what travels with a request across HTTP, gRPC and
// messages: correlation and causation ids, the principal, idempotency keys,
// and the saga a call belongs to. Trace context is not here; it stays with
// OpenTelemetry's propagator.
//
//	ctx = flow.WithCorrelationID(ctx, flow.NewID())
//	ctx = flow.WithOutgoingIdempotencyKey(ctx, "order-42/charge")
//	flow.Inject(ctx, flow.HTTPHeader(req.Header))          // client
//	ctx = flow.Extract(ctx, flow.HTTPHeader(r.Header))     // server behind the edge
//	ctx = flow.ExtractPublic(ctx, flow.HTTPHeader(r.Header)) // the edge itself
//
// # Two idempotency keys
//
// The key a request came in with and the key the next call goes out with are
// different values. An incoming key is never forwarded by itself: two
// downstream calls would share it, and the second would be taken for a repeat
// of the first. A saga step, or the caller, sets the outgoing one.
//
// # Trust
//
// Saga and identity values from a stranger are ignored by [ExtractPublic].
// Both extractors drop values that are longer than 256 bytes or hold anything
// but printable ASCII, so that a header cannot forge a log line.
//
// All functions are safe for concurrent use. Values are immutable: each With
// returns a new context and costs one small allocation.
package flow
