package flow

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"
)

// Principal is who a request acts for.
type Principal struct {
	// Subject identifies the person or service; empty means nobody.
	Subject string
	// Scopes are the OAuth 2 scopes that were granted.
	Scopes []string
	// Roles are the application's own groups.
	Roles []string
}

// HasScope reports whether scope was granted.
func (p Principal) HasScope(scope string) bool { return slices.Contains(p.Scopes, scope) }

// HasRole reports whether the principal is in role.
func (p Principal) HasRole(role string) bool { return slices.Contains(p.Roles, role) }

// values is everything this package keeps, under one context key, so that a
// lookup walks the context chain once.
type values struct {
	correlation string
	causation   string
	incomingKey string
	outgoingKey string
	sagaID      string
	sagaEpoch   int64
	principal   Principal
}

type contextKey struct{}

func from(ctx context.Context) values {
	v, _ := ctx.Value(contextKey{}).(values)
	return v
}

func with(ctx context.Context, v values) context.Context {
	return context.WithValue(ctx, contextKey{}, v)
}

// CorrelationID returns the id that all work caused by one outside request
// shares, or "".
func CorrelationID(ctx context.Context) string { return from(ctx).correlation }

// WithCorrelationID returns a context whose correlation id is id.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	v := from(ctx)
	v.correlation = id
	return with(ctx, v)
}

// CausationID returns the id of the message or command that directly caused
// this work, or "".
func CausationID(ctx context.Context) string { return from(ctx).causation }

// WithCausationID returns a context whose causation id is id.
func WithCausationID(ctx context.Context, id string) context.Context {
	v := from(ctx)
	v.causation = id
	return with(ctx, v)
}

// PrincipalFrom returns who the request acts for; ok is false for nobody.
func PrincipalFrom(ctx context.Context) (p Principal, ok bool) {
	p = from(ctx).principal
	return p, p.Subject != ""
}

// WithPrincipal returns a context that acts for p. The slices of p must not
// be changed afterwards.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	v := from(ctx)
	v.principal = p
	return with(ctx, v)
}

// IdempotencyKey returns the key this request came in with, or "".
func IdempotencyKey(ctx context.Context) string { return from(ctx).incomingKey }

// WithIdempotencyKey returns a context whose incoming key is key.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	v := from(ctx)
	v.incomingKey = key
	return with(ctx, v)
}

// OutgoingIdempotencyKey returns the key the next call sends, or "".
func OutgoingIdempotencyKey(ctx context.Context) string { return from(ctx).outgoingKey }

// WithOutgoingIdempotencyKey returns a context whose next call sends key.
// Every call made with that context sends the same key, so derive one context
// per call.
func WithOutgoingIdempotencyKey(ctx context.Context, key string) context.Context {
	v := from(ctx)
	v.outgoingKey = key
	return with(ctx, v)
}

// Saga returns the saga this request is a step of. The epoch grows each time
// another coordinator takes the saga over.
func Saga(ctx context.Context) (id string, epoch int64, ok bool) {
	v := from(ctx)
	return v.sagaID, v.sagaEpoch, v.sagaID != ""
}

// WithSaga returns a context that belongs to the saga id at epoch.
func WithSaga(ctx context.Context, id string, epoch int64) context.Context {
	v := from(ctx)
	v.sagaID, v.sagaEpoch = id, epoch
	return with(ctx, v)
}

// NewID returns a new UUIDv7 (RFC 9562) in its text form. Ids made later sort
// later, to the millisecond. It never fails: crypto/rand aborts the program
// when the system has no randomness.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[6:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(b[:6], ms[2:])
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80

	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], b[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], b[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], b[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], b[10:16])
	return string(text[:])
}
