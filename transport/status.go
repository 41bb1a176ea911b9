package transport

import (
	"reflect"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// notExecutedKey is the ErrorInfo metadata that carries Details.NotExecuted.
const notExecutedKey = "not_executed"

// GRPCStatus returns e as a gRPC status with the details ErrorInfo, BadRequest,
// RetryInfo, ResourceInfo and Help, each only when there is something to say.
// A violation's Pointer travels as the field of BadRequest. An Error that came
// from [FromStatus] and was not changed returns that very status, with details
// of other types and all.
func (e *Error) GRPCStatus() *status.Status {
	if e.wire != nil {
		if same(e, FromStatus(status.FromProto(e.wire))) {
			return status.FromProto(e.wire)
		}
	}
	s := &spb.Status{Code: int32(e.code()), Message: utf8(e.Message)}
	add := func(m proto.Message) {
		// Marshalling fails for invalid UTF-8 alone, which utf8 has removed.
		if detail, err := anypb.New(m); err == nil {
			s.Details = append(s.Details, detail)
		}
	}
	if e.Domain != "" || e.Reason != "" || e.Details.NotExecuted {
		info := &errdetails.ErrorInfo{Domain: utf8(e.Domain), Reason: utf8(e.Reason)}
		if e.Details.NotExecuted {
			info.Metadata = map[string]string{notExecutedKey: "true"}
		}
		add(info)
	}
	if len(e.Details.Violations) > 0 {
		bad := new(errdetails.BadRequest)
		for _, v := range e.Details.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: utf8(v.Pointer), Description: utf8(v.Detail),
			})
		}
		add(bad)
	}
	if e.Details.RetryAfter > 0 {
		add(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.Details.RetryAfter)})
	}
	if r := e.Details.Resource; r != nil {
		add(&errdetails.ResourceInfo{ResourceType: utf8(r.Type), ResourceName: utf8(r.Name)})
	}
	if len(e.Details.Help) > 0 {
		help := new(errdetails.Help)
		for _, l := range e.Details.Help {
			help.Links = append(help.Links, &errdetails.Help_Link{Description: utf8(l.Description), Url: utf8(l.URL)})
		}
		add(help)
	}
	for _, detail := range e.wire.GetDetails() {
		if !known(detail) {
			s.Details = append(s.Details, detail)
		}
	}
	return status.FromProto(s)
}

// FromStatus is the inverse of [Error.GRPCStatus]. It returns nil for a nil
// status and for OK. Details of types that [Details] has no field for are kept
// and sent on by GRPCStatus.
func FromStatus(s *status.Status) *Error {
	if s.Code() == 0 {
		return nil
	}
	wire := s.Proto()
	e := &Error{Code: Code(wire.GetCode()), Message: wire.GetMessage(), wire: wire}
	e.Code = e.code()
	for _, detail := range wire.GetDetails() {
		message, err := detail.UnmarshalNew()
		if err != nil {
			continue
		}
		switch m := message.(type) {
		case *errdetails.ErrorInfo:
			e.Domain, e.Reason = m.GetDomain(), m.GetReason()
			e.Details.NotExecuted = m.GetMetadata()[notExecutedKey] == "true"
		case *errdetails.BadRequest:
			for _, v := range m.GetFieldViolations() {
				e.Details.Violations = append(e.Details.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.Details.RetryAfter = max(m.GetRetryDelay().AsDuration(), 0)
		case *errdetails.ResourceInfo:
			e.Details.Resource = &Resource{Type: m.GetResourceType(), Name: m.GetResourceName()}
		case *errdetails.Help:
			for _, l := range m.GetLinks() {
				e.Details.Help = append(e.Details.Help, Link{l.GetDescription(), l.GetUrl()})
			}
		}
	}
	return e
}

func same(a, b *Error) bool {
	return a.Code == b.Code && a.Domain == b.Domain && a.Reason == b.Reason && a.Message == b.Message &&
		reflect.DeepEqual(a.Details, b.Details)
}

func known(detail *anypb.Any) bool {
	for _, m := range []proto.Message{
		(*errdetails.ErrorInfo)(nil), (*errdetails.BadRequest)(nil), (*errdetails.RetryInfo)(nil),
		(*errdetails.ResourceInfo)(nil), (*errdetails.Help)(nil),
	} {
		if detail.MessageIs(m) {
			return true
		}
	}
	return false
}

// utf8 exists because gRPC refuses to send a status that is not valid UTF-8 and
// answers something else instead.
func utf8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// maxRetryAfter bounds what a peer may ask for, and keeps sums of times from
// overflowing.
const maxRetryAfter = 365 * 24 * time.Hour
