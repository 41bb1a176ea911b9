package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/armature-go/armature/transport"
)

// Reasons for the end of a connection.
var (
	// ErrDraining is the cause of a function's context when the handler shuts down.
	ErrDraining = errors.New("ws: the handler is draining")
	// ErrSlow means that the peer does not read as fast as it is sent to.
	ErrSlow = errors.New("ws: the peer reads too slowly")
	// ErrGone means that the connection broke, or that the peer gave no sign of life.
	ErrGone = errors.New("ws: the peer is gone")
)

// Close codes (RFC 6455, 7.4.1).
const (
	codeNormal      = 1000
	codeGoingAway   = 1001
	codeProtocol    = 1002
	codeUnsupported = 1003
	codeNoStatus    = 1005
	codeBadPayload  = 1007
	codePolicy      = 1008
	codeTooBig      = 1009
	codeInternal    = 1011
	codeRestart     = 1012
	codeTryAgain    = 1013
)

// CloseError is the end of a connection by a close frame: one that the peer sent, or
// one that this side sends, for instance because a function returned it. A function
// may choose 1000, 1001, 1008, 1012, 1013 and 3000 to 4999; another code is sent as
// 1011. Of Reason at most 123 bytes are sent: it is for the peer's eyes.
type CloseError struct {
	Code   int
	Reason string

	remote bool
	cause  error
}

// Error says who closed the connection and why.
func (e *CloseError) Error() string {
	who := "closed"
	if e.remote {
		who = "closed by the peer"
	}
	text := fmt.Sprintf("ws: %s: %d", who, e.Code)
	if e.Reason != "" {
		text += fmt.Sprintf(" %q", e.Reason)
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns what made this side close, as [ErrSlow], if there is more to say.
func (e *CloseError) Unwrap() error { return e.cause }

// Retryable reports whether a new connection may do better: 1001, 1012 and 1013.
func (e *CloseError) Retryable() bool {
	return e.Code == codeGoingAway || e.Code == codeRestart || e.Code == codeTryAgain
}

// finished is the cause of a connection whose function has returned.
type finished struct{ err error }

func (f *finished) Error() string {
	if f.err == nil {
		return "ws: the connection is closed"
	}
	return "ws: the connection is closed: " + f.err.Error()
}

func (f *finished) Unwrap() error { return f.err }

func draining() *CloseError {
	return &CloseError{Code: codeGoingAway, Reason: "the server is going away", cause: ErrDraining}
}

// verdict says what to tell the peer of a connection that ended by cause; code 0 is
// nothing. With flush what is queued goes first.
func verdict(cause error) (code int, reason string, flush bool) {
	switch c := cause.(type) { // what ended the connection, not what that wraps
	case *finished:
		code, reason = answer(c.err)
		return code, reason, true
	case *CloseError:
		if c.remote {
			return 0, "", false
		}
		return c.Code, c.Reason, errors.Is(c, ErrDraining)
	}
	if errors.Is(cause, ErrGone) || errors.Is(cause, ErrSlow) {
		return 0, "", false
	}
	return codeGoingAway, "the server is going away", true // the context it was made with
}

// answer maps what a function returned.
func answer(err error) (code int, reason string) {
	if err == nil || errors.Is(err, io.EOF) {
		return codeNormal, ""
	}
	if c, ok := errors.AsType[*CloseError](err); ok && !c.remote {
		switch {
		case c.Code >= 3000 && c.Code <= 4999:
		case c.Code == codeNormal || c.Code == codePolicy || c.Retryable():
		default:
			return codeInternal, "internal error"
		}
		return c.Code, c.Reason
	}
	switch e := transport.AsError(err); e.Code {
	case transport.Internal, transport.Unknown, transport.DataLoss, transport.OK:
		return codeInternal, "internal error"
	case transport.Unavailable, transport.ResourceExhausted, transport.Aborted, transport.Canceled, transport.DeadlineExceeded:
		return codeTryAgain, e.Message
	default:
		return codePolicy, e.Message
	}
}

// clip makes s fit into a close frame.
func clip(s string) string {
	const most = 123
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// ended turns a cause into what Receive and Send return.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if c, ok := cause.(*CloseError); ok && c.remote && (c.Code == codeNormal || c.Code == codeNoStatus) {
		return io.EOF
	}
	return cause
}
