package flow

import (
	"context"
	"strconv"
	"strings"
)

// Field names one value that travels with a request.
type Field uint8

// The fields, in the order of the table below.
const (
	Correlation Field = iota
	Causation
	Idempotency
	SagaID
	SagaEpoch
	Subject
	Scopes
	Roles
	fieldCount
)

// names is the one table of what each field is called on each wire. CloudEvents
// extension names may hold lower-case letters and digits only.
var names = [fieldCount]struct{ http, grpc, event string }{
	Correlation: {"X-Correlation-Id", "x-correlation-id", "correlationid"},
	Causation:   {"X-Causation-Id", "x-causation-id", "causationid"},
	Idempotency: {"Idempotency-Key", "idempotency-key", "idempotencykey"},
	SagaID:      {"Saga-Id", "saga-id", "sagaid"},
	SagaEpoch:   {"Saga-Epoch", "saga-epoch", "sagaepoch"},
	Subject:     {"X-Principal-Subject", "x-principal-subject", "principalsubject"},
	Scopes:      {"X-Principal-Scopes", "x-principal-scopes", "principalscopes"},
	Roles:       {"X-Principal-Roles", "x-principal-roles", "principalroles"},
}

// HTTP returns the field's HTTP header in the canonical form of net/http.
func (f Field) HTTP() string { return names[f].http }

// GRPC returns the field's gRPC metadata key.
func (f Field) GRPC() string { return names[f].grpc }

// Event returns the field's CloudEvents extension attribute.
func (f Field) Event() string { return names[f].event }

// Fields returns every field, for code that strips or lists them.
func Fields() []Field {
	all := make([]Field, fieldCount)
	for i := range all {
		all[i] = Field(i)
	}
	return all
}

// Carrier reads and writes fields on one kind of wire. Get returns "" for an
// absent field.
type Carrier interface {
	Get(f Field) string
	Set(f Field, value string)
}

// HTTPHeader is a [Carrier] over an http.Header: flow.HTTPHeader(r.Header).
type HTTPHeader map[string][]string

// Get returns the first value of the field's header.
func (h HTTPHeader) Get(f Field) string { return first(h[f.HTTP()]) }

// Set replaces the field's header.
func (h HTTPHeader) Set(f Field, value string) { h[f.HTTP()] = []string{value} }

// GRPCMetadata is a [Carrier] over a metadata.MD: flow.GRPCMetadata(md).
type GRPCMetadata map[string][]string

// Get returns the first value of the field's key.
func (m GRPCMetadata) Get(f Field) string { return first(m[f.GRPC()]) }

// Set replaces the field's key.
func (m GRPCMetadata) Set(f Field, value string) { m[f.GRPC()] = []string{value} }

// EventHeader is a [Carrier] over the extension attributes of a message.
type EventHeader map[string]string

// Get returns the field's attribute.
func (h EventHeader) Get(f Field) string { return h[f.Event()] }

// Set replaces the field's attribute.
func (h EventHeader) Set(f Field, value string) { h[f.Event()] = value }

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Inject writes what ctx carries. The outgoing idempotency key becomes the
// callee's incoming one; absent values write nothing.
func Inject(ctx context.Context, c Carrier) {
	v := from(ctx)
	set := func(f Field, value string) {
		if value != "" {
			c.Set(f, value)
		}
	}
	set(Correlation, v.correlation)
	set(Causation, v.causation)
	set(Idempotency, v.outgoingKey)
	if v.sagaID != "" {
		set(SagaID, v.sagaID)
		set(SagaEpoch, strconv.FormatInt(v.sagaEpoch, 10))
	}
	if v.principal.Subject != "" {
		set(Subject, v.principal.Subject)
		set(Scopes, strings.Join(v.principal.Scopes, " "))
		set(Roles, strings.Join(v.principal.Roles, " "))
	}
}

// Extract returns ctx with everything the carrier holds. Use it only where the
// sender is trusted: it believes the principal and the saga. The outgoing
// idempotency key of ctx is cleared, because it belonged to another call.
func Extract(ctx context.Context, c Carrier) context.Context {
	v := public(ctx, c)
	v.causation = clean(c.Get(Causation))
	v.sagaID, v.sagaEpoch = "", 0
	if id := clean(c.Get(SagaID)); id != "" {
		if epoch, err := strconv.ParseInt(c.Get(SagaEpoch), 10, 64); err == nil && epoch >= 0 {
			v.sagaID, v.sagaEpoch = id, epoch
		}
	}
	v.principal = Principal{}
	if subject := clean(c.Get(Subject)); subject != "" {
		v.principal = Principal{
			Subject: subject,
			Scopes:  strings.Fields(clean(c.Get(Scopes))),
			Roles:   strings.Fields(clean(c.Get(Roles))),
		}
	}
	return with(ctx, v)
}

// ExtractPublic returns ctx with the correlation id and the idempotency key of
// a request that comes from outside. Whatever it says of sagas, causes and
// identity is ignored.
func ExtractPublic(ctx context.Context, c Carrier) context.Context {
	return with(ctx, public(ctx, c))
}

func public(ctx context.Context, c Carrier) values {
	v := from(ctx)
	v.correlation = clean(c.Get(Correlation))
	v.incomingKey = clean(c.Get(Idempotency))
	v.outgoingKey = ""
	return v
}

// maxValue bounds what a stranger can make every later hop carry and log.
const maxValue = 256

func clean(value string) string {
	if len(value) > maxValue {
		return ""
	}
	for i := range len(value) {
		if value[i] < 0x20 || value[i] > 0x7e {
			return ""
		}
	}
	return value
}
