package transport

import (
	"net/http"
	"strconv"
)

// Code classifies an error. Numbers and names are those of gRPC.
type Code uint32

// The canonical codes. OK is never the code of an [Error]: one that carries it,
// or a number out of range, counts as Unknown.
const (
	OK Code = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
)

// StatusClientClosedRequest is the HTTP status of Canceled. It is not
// registered; proxies and gRPC gateways agree on it.
const StatusClientClosedRequest = 499

var codes = [...]struct {
	name   string
	status int
}{
	OK:                 {"OK", http.StatusOK},
	Canceled:           {"CANCELED", StatusClientClosedRequest},
	Unknown:            {"UNKNOWN", http.StatusInternalServerError},
	InvalidArgument:    {"INVALID_ARGUMENT", http.StatusBadRequest},
	DeadlineExceeded:   {"DEADLINE_EXCEEDED", http.StatusGatewayTimeout},
	NotFound:           {"NOT_FOUND", http.StatusNotFound},
	AlreadyExists:      {"ALREADY_EXISTS", http.StatusConflict},
	PermissionDenied:   {"PERMISSION_DENIED", http.StatusForbidden},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", http.StatusTooManyRequests},
	FailedPrecondition: {"FAILED_PRECONDITION", http.StatusConflict},
	Aborted:            {"ABORTED", http.StatusConflict},
	OutOfRange:         {"OUT_OF_RANGE", http.StatusBadRequest},
	Unimplemented:      {"UNIMPLEMENTED", http.StatusNotImplemented},
	Internal:           {"INTERNAL", http.StatusInternalServerError},
	Unavailable:        {"UNAVAILABLE", http.StatusServiceUnavailable},
	DataLoss:           {"DATA_LOSS", http.StatusInternalServerError},
	Unauthenticated:    {"UNAUTHENTICATED", http.StatusUnauthorized},
}

// String returns the name of the code, as in "NOT_FOUND".
func (c Code) String() string {
	if int(c) < len(codes) {
		return codes[c].name
	}
	return "CODE(" + strconv.FormatUint(uint64(c), 10) + ")"
}

// HTTPStatus returns the HTTP status that stands for the code. The table is the
// one of google.rpc.Code except that FailedPrecondition is 409 Conflict: the
// request is well-formed, it is the state that refuses it.
func (c Code) HTTPStatus() int {
	if int(c) < len(codes) {
		return codes[c].status
	}
	return http.StatusInternalServerError
}

// CodeFromHTTP returns the code that stands for an HTTP status, for answers that
// name none themselves. Every 2xx is OK; 1xx and 3xx are Unknown, because a
// caller that gets to see them did not get what it asked for.
func CodeFromHTTP(status int) Code {
	switch status {
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return PermissionDenied
	case http.StatusNotFound, http.StatusGone:
		return NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return Unimplemented
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return DeadlineExceeded
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return FailedPrecondition
	case http.StatusRequestedRangeNotSatisfiable:
		return OutOfRange
	case http.StatusTooManyRequests:
		return ResourceExhausted
	case StatusClientClosedRequest:
		return Canceled
	case http.StatusInternalServerError:
		return Internal
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return Unavailable
	}
	switch {
	case status >= 200 && status < 300:
		return OK
	case status >= 400 && status < 500:
		return InvalidArgument
	case status >= 500 && status < 600:
		return Internal
	}
	return Unknown
}

// parseCode returns OK for names that are none.
func parseCode(name string) Code {
	for c, entry := range codes {
		if entry.name == name {
			return Code(c)
		}
	}
	return OK
}
