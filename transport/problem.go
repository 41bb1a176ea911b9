package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// ProblemType is the media type of a [Problem].
const ProblemType = "application/problem+json"

// Problem is an error as a problem document (RFC 9457). Type is "about:blank":
// programs branch on Code, Domain and Reason.
type Problem struct {
	Type        string             `json:"type"`
	Title       string             `json:"title"`
	Status      int                `json:"status"`
	Detail      string             `json:"detail,omitempty"`
	Instance    string             `json:"instance,omitempty"`
	Code        string             `json:"code"`
	Domain      string             `json:"domain,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	Errors      []ProblemViolation `json:"errors,omitempty"`
	Resource    *ProblemResource   `json:"resource,omitempty"`
	Help        []ProblemLink      `json:"help,omitempty"`
	RetryAfter  float64            `json:"retry_after,omitempty"` // seconds
	NotExecuted bool               `json:"not_executed,omitempty"`
	TraceID     string             `json:"trace_id,omitempty"`
}

// ProblemViolation is a [Violation] in a [Problem].
type ProblemViolation struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// ProblemResource is a [Resource] in a [Problem].
type ProblemResource struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// ProblemLink is a [Link] in a [Problem].
type ProblemLink struct {
	Description string `json:"description"`
	URL         string `json:"url"`
}

// Problem returns e as a problem document without Instance and TraceID, which
// only the server knows. It shares no memory with e.
func (e *Error) Problem() Problem {
	p := Problem{
		Type:        "about:blank",
		Title:       title(e.StatusCode()),
		Status:      e.StatusCode(),
		Detail:      e.Message,
		Code:        e.code().String(),
		Domain:      e.Domain,
		Reason:      e.Reason,
		RetryAfter:  max(e.Details.RetryAfter, 0).Seconds(),
		NotExecuted: e.Details.NotExecuted,
	}
	for _, v := range e.Details.Violations {
		p.Errors = append(p.Errors, ProblemViolation(v))
	}
	if e.Details.Resource != nil {
		r := ProblemResource(*e.Details.Resource)
		p.Resource = &r
	}
	for _, l := range e.Details.Help {
		p.Help = append(p.Help, ProblemLink(l))
	}
	return p
}

// StatusCode returns the HTTP status of e. With [Error.Headers] and
// [Error.MarshalJSON] it is what go-kit HTTP servers look for.
func (e *Error) StatusCode() int {
	if e.status != 0 {
		return e.status
	}
	return e.code().HTTPStatus()
}

// Headers returns the HTTP headers of e: when Details has it, Retry-After in
// whole seconds, rounded up. Content-Type is not among them, because go-kit adds
// these headers to its own; see [EncodeError].
func (e *Error) Headers() http.Header {
	h := make(http.Header)
	if d := e.Details.RetryAfter; d > 0 {
		h.Set("Retry-After", strconv.FormatFloat(math.Ceil(d.Seconds()), 'f', 0, 64))
	}
	return h
}

// HeadersOf returns what an answer that is err carries beside its body: the headers
// of the outermost error in its chain that has a Headers() http.Header method, which
// an error that wraps an [*Error] may have too, before those of the *Error.
func HeadersOf(err error) http.Header {
	if err == nil {
		return http.Header{}
	}
	h := AsError(err).Headers()
	if own, ok := errors.AsType[interface {
		error
		Headers() http.Header
	}](err); ok {
		maps.Copy(h, own.Headers())
	}
	return h
}

// MarshalJSON returns [Error.Problem] as JSON. It never fails.
func (e *Error) MarshalJSON() ([]byte, error) { return json.Marshal(e.Problem()) }

// EncodeError answers err as a problem document. It is an ErrorEncoder for
// go-kit HTTP servers: their default one renders an [*Error] as well, though as
// application/json, and sends the text of every other error to the caller. Headers
// that w has already win against those of err.
func EncodeError(_ context.Context, err error, w http.ResponseWriter) {
	e := AsError(err)
	if e == nil {
		e = internal("transport: encode error: no error to encode")
	}
	own := HeadersOf(err)
	body, err := e.MarshalJSON()
	if err != nil { // cannot happen: a Problem holds nothing that JSON lacks
		http.Error(w, title(e.StatusCode()), e.StatusCode())
		return
	}
	header := w.Header()
	for name, values := range own {
		if _, chosen := header[name]; !chosen { // the caller knows better
			header[name] = values
		}
	}
	header.Set("Content-Type", ProblemType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(e.StatusCode())
	w.Write(body)
}

// FromProblem is the inverse of [Error.MarshalJSON] for an answer with the given
// HTTP status. It returns an Error for whatever body: what is not a problem
// document of ours is judged by its status alone, and its text is not
// taken over, because nobody promised that it may be shown to strangers.
func FromProblem(status int, body []byte) *Error {
	var p Problem
	if err := decodeProblem(body, &p); err != nil {
		e := &Error{Code: CodeFromHTTP(status), Message: title(status)}
		e.Code = e.code()
		return e.WithStatus(status).WithCause(fmt.Errorf("transport: decode problem: status %d with %d bytes: %w", status, len(body), err))
	}
	e := &Error{Domain: p.Domain, Reason: p.Reason, Message: p.Detail}
	if e.Code = parseCode(p.Code); e.Code == OK {
		e.Code = CodeFromHTTP(status)
		e.Code = e.code()
	}
	if e.Message == "" {
		e.Message = p.Title
	}
	e.Details.NotExecuted = p.NotExecuted
	if p.RetryAfter > 0 {
		e.Details.RetryAfter = time.Duration(math.Round(min(p.RetryAfter, maxRetryAfter.Seconds()) * float64(time.Second)))
	}
	for _, v := range p.Errors {
		e.Details.Violations = append(e.Details.Violations, Violation(v))
	}
	if p.Resource != nil {
		r := Resource(*p.Resource)
		e.Details.Resource = &r
	}
	for _, l := range p.Help {
		e.Details.Help = append(e.Details.Help, Link(l))
	}
	if status != e.StatusCode() {
		e = e.WithStatus(status)
	}
	return e
}

// decodeProblem also refuses JSON that is an object but no problem, such as the
// error documents of other systems.
func decodeProblem(body []byte, p *Problem) error {
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("not a JSON object")
	}
	if err := json.Unmarshal(body, p); err != nil {
		return fmt.Errorf("not a problem document")
	}
	if p.Code == "" && p.Title == "" && p.Type == "" {
		return fmt.Errorf("no type, title or code")
	}
	return nil
}

func title(status int) string {
	if status == StatusClientClosedRequest {
		return "Client Closed Request"
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "HTTP " + strconv.Itoa(status)
}
