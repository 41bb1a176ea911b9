package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is the one error that crosses process borders. Untouched go-kit HTTP
// servers and grpc-go servers render it right, because it has the methods they
// look for. Treat an Error as immutable once it is returned or stored in a
// variable: the With methods work on copies, and reading is safe for concurrent
// use.
type Error struct {
	Code    Code
	Domain  string // who defines Reason, as in "orders.example.com"; may be empty
	Reason  string // what happened, for programs: UPPER_SNAKE_CASE; may be empty
	Message string // what happened, for people; shown to strangers
	Details Details

	cause  error
	status int         // HTTP status when it is not the one of Code
	wire   *spb.Status // what FromStatus read, for details that have no field here
}

// Details is what an [Error] may say beyond its message. Everything in it is
// shown to the caller.
type Details struct {
	Violations  []Violation
	RetryAfter  time.Duration // 0 = unknown
	Resource    *Resource
	Help        []Link
	NotExecuted bool // the operation certainly had no effect
}

// Violation is one thing that is wrong with a request.
type Violation struct {
	Pointer string // JSON pointer (RFC 6901) into the request, as in "/items/0/quantity"
	Detail  string
}

// Resource names what an error is about.
type Resource struct {
	Type string
	Name string
}

// Link points at help.
type Link struct {
	Description string
	URL         string
}

// Errorf returns an Error. Reason may be empty. A %w in format adds its operand
// as a cause: errors.Is and Error() see it, Message and the wire do not, so
// Errorf(Internal, "", "load order: %w", err) has the message "load order". An
// error formatted with any other verb does become part of the message.
func Errorf(code Code, reason, format string, args ...any) *Error {
	e := &Error{Code: code, Reason: reason}
	err := fmt.Errorf(format, args...)
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		e.cause = wrapper.Unwrap()
	case interface{ Unwrap() []error }:
		e.cause = errors.Join(wrapper.Unwrap()...)
	default:
		e.Message = err.Error()
		return e
	}
	e.Message = withoutCauses(format, args)
	return e
}

// Invalid returns an INVALID_ARGUMENT error that lists what is wrong.
func Invalid(violations ...Violation) *Error {
	return Errorf(InvalidArgument, "", "the request is invalid").WithViolations(violations...)
}

// internal is for mistakes in the program: the text is a cause, so that only
// logs see it.
func internal(format string, args ...any) *Error {
	return Errorf(Internal, "", "internal error").WithCause(fmt.Errorf(format, args...))
}

// WithCause returns a copy with err as its hidden cause.
func (e *Error) WithCause(err error) *Error {
	c := e.clone()
	c.cause = err
	return c
}

// WithViolations returns a copy with the violations added.
func (e *Error) WithViolations(violations ...Violation) *Error {
	c := e.clone()
	c.Details.Violations = append(c.Details.Violations, violations...)
	return c
}

// WithRetryAfter returns a copy that tells the caller when to try again.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := e.clone()
	c.Details.RetryAfter = d
	return c
}

// WithDomain returns a copy whose reason belongs to domain.
func (e *Error) WithDomain(domain string) *Error {
	c := e.clone()
	c.Domain = domain
	return c
}

// WithResource returns a copy that names what it is about.
func (e *Error) WithResource(typ, name string) *Error {
	c := e.clone()
	c.Details.Resource = &Resource{Type: typ, Name: name}
	return c
}

// WithStatus returns a copy that answers over HTTP with a status more precise
// than the one of its code, as 413 for an INVALID_ARGUMENT. A status that is not
// between 400 and 599 restores the one of the code. gRPC does not carry it.
func (e *Error) WithStatus(status int) *Error {
	c := e.clone()
	c.status = 0
	if status >= 400 && status <= 599 {
		c.status = status
	}
	return c
}

func (e *Error) clone() *Error {
	c := *e
	c.Details.Violations = slices.Clone(e.Details.Violations)
	return &c
}

// Error returns code, reason, message and cause, for logs. Never send it.
func (e *Error) Error() string {
	parts := []string{e.code().String()}
	for _, part := range []string{e.Reason, e.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if e.cause != nil {
		parts = append(parts, e.cause.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an [*Error] of the same Domain and Reason, or,
// when target has no Reason, of the same Code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	switch {
	case !ok || t == nil:
		return false
	case t.Reason == "":
		return e.code() == t.code()
	default:
		return e.Domain == t.Domain && e.Reason == t.Reason
	}
}

// Retryable reports whether the same call may succeed later: UNAVAILABLE,
// RESOURCE_EXHAUSTED, ABORTED and DEADLINE_EXCEEDED. It does not say that a
// repetition is harmless; that takes an idempotent operation or
// [Error.NotExecuted].
func (e *Error) Retryable() bool {
	switch e.code() {
	case Unavailable, ResourceExhausted, Aborted, DeadlineExceeded:
		return true
	}
	return false
}

// RetryAfter returns how long the callee asks to wait before the next attempt.
func (e *Error) RetryAfter() (time.Duration, bool) {
	return e.Details.RetryAfter, e.Details.RetryAfter > 0
}

// NotExecuted reports whether the operation certainly had no effect.
func (e *Error) NotExecuted() bool { return e.Details.NotExecuted }

func (e *Error) code() Code {
	if e.Code == OK || int(e.Code) >= len(codes) {
		return Unknown
	}
	return e.Code
}

// AsError returns err as an [*Error], looking in this order for: an *Error in
// the chain; context.Canceled and context.DeadlineExceeded; a gRPC status; an
// error that says NotExecuted() (an open breaker, a full bulkhead) or Unavailable()
// (a transaction without a database, or without room on its disk), which becomes
// UNAVAILABLE with its RetryAfter(). All else is INTERNAL with a generic message.
// What is not an *Error already becomes the cause of the new one, and what it says
// by NotExecuted() and RetryAfter() is kept. AsError(nil) is nil.
//
// NotExecuted speaks of the call that failed; see [Executed].
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok && e != nil {
		return e
	}
	e := classify(err).WithCause(err)
	var n interface{ NotExecuted() bool }
	if errors.As(err, &n) && n.NotExecuted() {
		e.Details.NotExecuted = true
	}
	var r interface{ RetryAfter() (time.Duration, bool) }
	if errors.As(err, &r) {
		if d, ok := r.RetryAfter(); ok {
			e.Details.RetryAfter = d
		}
	}
	return e
}

func classify(err error) *Error {
	var g interface{ GRPCStatus() *status.Status }
	var n interface{ NotExecuted() bool }
	var u interface{ Unavailable() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return Errorf(Canceled, "", "the request was canceled")
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(DeadlineExceeded, "", "the deadline has passed")
	case errors.As(err, &g) && g.GRPCStatus().Code() != grpccodes.OK:
		return FromStatus(g.GRPCStatus())
	case errors.As(err, &n) && n.NotExecuted():
		return Errorf(Unavailable, "", "the service is unavailable")
	case errors.As(err, &u) && u.Unavailable():
		return Errorf(Unavailable, "", "the service cannot read or write its data now")
	default:
		return Errorf(Internal, "", "internal error")
	}
}

// CodeOf returns the code of AsError(err), and OK for nil.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	return AsError(err).code()
}

// maskedVerb replaces %w: fmt hands a verb it does not know to the Formatter as
// it is, which tells an operand of %w from an operand of %v.
const maskedVerb = '\uE000'

type masked struct{ err error }

func (m masked) Format(f fmt.State, verb rune) {
	if verb != maskedVerb {
		fmt.Fprintf(f, fmt.FormatString(f, verb), m.err)
	}
}

// withoutCauses formats like fmt.Errorf with nothing in the place of each %w,
// and drops the punctuation that led to it.
func withoutCauses(format string, args []any) string {
	verb := false
	format = strings.Map(func(r rune) rune {
		switch {
		case !verb:
			verb = r == '%'
		case strings.ContainsRune("+-# 0123456789.*[]", r):
		default:
			verb = false
			if r == 'w' {
				return maskedVerb
			}
		}
		return r
	}, format)
	args = slices.Clone(args)
	for i, arg := range args {
		if err, ok := arg.(error); ok || arg == nil {
			args[i] = masked{err}
		}
	}
	message := fmt.Sprintf(format, args...)
	for strings.Contains(message, ": : ") {
		message = strings.ReplaceAll(message, ": : ", ": ")
	}
	return strings.Trim(message, ": ")
}
