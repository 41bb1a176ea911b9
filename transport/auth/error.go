package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/transport"
)

// The states a program may branch on. An [*Error] matches one of the first two or
// ErrForbidden with errors.Is; an expired token matches ErrExpired as well.
var (
	ErrMissing   = errors.New("auth: no credentials")
	ErrInvalid   = errors.New("auth: invalid credentials")
	ErrExpired   = errors.New("auth: expired credentials")
	ErrForbidden = errors.New("auth: not permitted")
)

// domain and the reasons are what another process sees.
const (
	domain              = "auth.armature"
	reasonMissing       = "CREDENTIALS_MISSING"
	reasonInvalid       = "CREDENTIALS_INVALID"
	reasonForbidden     = "PERMISSION_MISSING"
	reasonUndecided     = "CREDENTIALS_UNDECIDED"
	challengeHeader     = "Www-Authenticate"
	authorizationHeader = "Authorization"
)

// Fault says why a request was refused. It is for logs and metrics of the service
// itself; callers are told no more than [Error.Challenge] does.
type Fault uint8

// The faults.
const (
	FaultMissing     Fault = iota + 1 // no credentials at all
	FaultMalformed                    // not a token, or more than one
	FaultOversized                    // longer than MaxSize
	FaultAlgorithm                    // an algorithm that no fitting key is pinned to
	FaultCritical                     // a header that must be understood and is not
	FaultType                         // a token for another purpose (header typ)
	FaultIssuer                       // made by somebody else
	FaultAudience                     // made for somebody else
	FaultExpired                      // too late
	FaultNotYet                       // too early, or issued in the future
	FaultClaim                        // a claim is missing or unusable
	FaultUnknownKey                   // no such key
	FaultSignature                    // signature does not fit
	FaultRevoked                      // withdrawn
	FaultCertificate                  // a client certificate that names nobody known
	FaultForbidden                    // known, and not permitted
)

var faults = [...]string{
	FaultMissing:     "missing",
	FaultMalformed:   "malformed",
	FaultOversized:   "too large",
	FaultAlgorithm:   "wrong algorithm",
	FaultCritical:    "unknown critical header",
	FaultType:        "wrong type",
	FaultIssuer:      "wrong issuer",
	FaultAudience:    "wrong audience",
	FaultExpired:     "expired",
	FaultNotYet:      "not valid yet",
	FaultClaim:       "unusable claim",
	FaultUnknownKey:  "unknown key",
	FaultSignature:   "wrong signature",
	FaultRevoked:     "revoked",
	FaultCertificate: "wrong certificate",
	FaultForbidden:   "not permitted",
}

// String returns a few lower-case words.
func (f Fault) String() string {
	if int(f) < len(faults) && faults[f] != "" {
		return faults[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// Error refuses a request. It unwraps to a *transport.Error, and has the methods
// that go-kit and grpc-go servers look for, so each of them renders it as a
// 401 or 403 (UNAUTHENTICATED or PERMISSION_DENIED) without help.
type Error struct {
	Fault  Fault
	Detail string   // more for logs; never a part of a credential
	Scopes []string // the scopes that would have been enough, for FaultForbidden

	wire *transport.Error
}

// fail returns an Error. detail is a constant of this package: nothing that a
// caller has written may get into it.
func fail(fault Fault, detail string) *Error { return failWith(fault, detail, nil) }

func failWith(fault Fault, detail string, cause error) *Error {
	e := &Error{Fault: fault, Detail: detail}
	switch fault {
	case FaultMissing:
		e.wire = transport.Errorf(transport.Unauthenticated, reasonMissing, "credentials are required")
	case FaultForbidden:
		e.wire = transport.Errorf(transport.PermissionDenied, reasonForbidden, "the caller may not do this")
	default:
		e.wire = transport.Errorf(transport.Unauthenticated, reasonInvalid, "the credentials are not valid")
	}
	e.wire.Domain = domain
	e.wire.Details.NotExecuted = true
	if cause == nil {
		cause = errors.New(e.Error())
	}
	e.wire = e.wire.WithCause(cause)
	return e
}

// Error names the fault, for logs.
func (e *Error) Error() string {
	s := "auth: refuse request: " + e.Fault.String()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns what callers see, a *transport.Error.
func (e *Error) Unwrap() error { return e.wire }

// Is matches the sentinels of this package.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrMissing:
		return e.Fault == FaultMissing
	case ErrForbidden:
		return e.Fault == FaultForbidden
	case ErrExpired:
		return e.Fault == FaultExpired
	case ErrInvalid:
		return e.Fault != FaultMissing && e.Fault != FaultForbidden
	}
	return false
}

// Retryable reports false: the same credentials get the same answer.
func (e *Error) Retryable() bool { return false }

// RetryAfter reports that no delay is known.
func (e *Error) RetryAfter() (time.Duration, bool) { return 0, false }

// NotExecuted reports true.
func (e *Error) NotExecuted() bool { return true }

// Challenge returns the value of WWW-Authenticate after RFC 6750, section 3: a bare
// challenge when there were no credentials, error="invalid_token" for every kind
// of bad ones, error="insufficient_scope" for a caller that is not permitted.
// scheme is usually "Bearer"; realm may be empty.
func (e *Error) Challenge(scheme, realm string) string {
	var params []string
	add := func(name, value string) {
		if value != "" {
			params = append(params, name+"="+quoted(value))
		}
	}
	add("realm", realm)
	switch e.Fault {
	case FaultMissing:
	case FaultForbidden:
		add("error", "insufficient_scope")
		add("scope", strings.Join(e.Scopes, " "))
	default:
		add("error", "invalid_token")
	}
	if len(params) == 0 {
		return scheme
	}
	return scheme + " " + strings.Join(params, ", ")
}

// quoted writes a quoted-string of RFC 9110 and drops what may not be in one.
func quoted(value string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(value) {
		switch c := value[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= 0x20 && c < 0x7f:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// StatusCode returns 401 or 403, for go-kit HTTP servers.
func (e *Error) StatusCode() int { return e.wire.StatusCode() }

// Headers returns WWW-Authenticate, for go-kit HTTP servers.
func (e *Error) Headers() http.Header {
	return http.Header{challengeHeader: {e.Challenge("Bearer", "")}}
}

// MarshalJSON returns the problem document that callers see.
func (e *Error) MarshalJSON() ([]byte, error) { return e.wire.MarshalJSON() }

// GRPCStatus returns the status that callers see.
func (e *Error) GRPCStatus() *status.Status { return e.wire.GRPCStatus() }

// undecided answers for credentials that could not be judged. The end of the
// caller's own context stays what it is.
func undecided(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("auth: check credentials: %w", context.Cause(ctx))
	}
	e := transport.Errorf(transport.Unavailable, reasonUndecided, "credentials cannot be checked now").WithDomain(domain).WithCause(err)
	e.Details.NotExecuted = true
	var r interface{ RetryAfter() (time.Duration, bool) }
	if errors.As(err, &r) {
		if d, ok := r.RetryAfter(); ok {
			e.Details.RetryAfter = d
		}
	}
	return e
}

func configError(kind, field string, value any, rule, fix string) error {
	return fmt.Errorf("auth: configure %s: %s = %v: %s; %s", kind, field, value, rule, fix)
}
