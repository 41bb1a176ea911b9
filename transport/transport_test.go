package transport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errSecret = errors.New("password=hunter2")

// full has something in every field.
func full() *transport.Error {
	e := transport.Errorf(transport.FailedPrecondition, "OUT_OF_STOCK", "only %d left: %w", 3, errSecret).
		WithDomain("inventory.example.com").
		WithViolations(transport.Violation{Pointer: "/items/0/quantity", Detail: "3 at most"}, transport.Violation{Pointer: "/a~1b", Detail: "ä"}).
		WithRetryAfter(1500*time.Millisecond).
		WithResource("sku", "blue")
	e.Details.Help = []transport.Link{{Description: "why", URL: "https://example.com/stock"}}
	e.Details.NotExecuted = true
	return e
}

var ignoreHidden = cmpopts.IgnoreUnexported(transport.Error{})

func viaStatus(t *testing.T, e *transport.Error) *transport.Error {
	t.Helper()
	return transport.FromStatus(e.GRPCStatus())
}

func viaProblem(t *testing.T, e *transport.Error) *transport.Error {
	t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return transport.FromProblem(e.StatusCode(), body)
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	wires := map[string]func(*testing.T, *transport.Error) *transport.Error{
		"grpc status":  viaStatus,
		"problem+json": viaProblem,
		"both": func(t *testing.T, e *transport.Error) *transport.Error {
			return viaStatus(t, viaProblem(t, viaStatus(t, e)))
		},
	}
	errs := map[string]*transport.Error{
		"full":          full(),
		"reason alone":  transport.Errorf(transport.NotFound, "NO_ORDER", "no such order"),
		"code alone":    transport.Errorf(transport.Aborted, "", "try again"),
		"not executed":  {Code: transport.Unavailable, Message: "busy", Details: transport.Details{NotExecuted: true}},
		"invalid utf-8": transport.Errorf(transport.InvalidArgument, "BAD_TEXT", "caf\xe9"),
	}
	for c := transport.Canceled; c <= transport.Unauthenticated; c++ {
		errs["every code/"+c.String()] = transport.Errorf(c, "R", "m")
	}
	for wire, trip := range wires {
		for name, sent := range errs {
			t.Run(wire+"/"+name, func(t *testing.T) {
				t.Parallel()
				got := trip(t, sent)
				want := *sent
				want.Message = strings.ToValidUTF8(want.Message, "\uFFFD")
				if diff := cmp.Diff(&want, got, ignoreHidden); diff != "" {
					t.Errorf("after the round trip (-want +got):\n%s", diff)
				}
				if !errors.Is(fmt.Errorf("call: %w", got), sent) {
					t.Errorf("errors.Is(%v, %v) = false", got, sent)
				}
				if got.StatusCode() != sent.StatusCode() {
					t.Errorf("status %d, want %d", got.StatusCode(), sent.StatusCode())
				}
			})
		}
	}
}

func TestCauseStaysInTheProcess(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"of Errorf":       full(),
		"of WithCause":    transport.Errorf(transport.Internal, "", "x").WithCause(errSecret),
		"unknown error":   errSecret,
		"around an Error": fmt.Errorf("%w: %w", errSecret, full()),
		"of a context":    fmt.Errorf("%w: %w", errSecret, context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := transport.AsError(err)
			body, marshalErr := json.Marshal(e)
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			wire := string(body) + e.Message + e.GRPCStatus().String() + fmt.Sprint(e.Headers())
			if strings.Contains(wire, "hunter2") {
				t.Errorf("the wire sees the cause: %s", wire)
			}
		})
	}
	if !errors.Is(full(), errSecret) || !strings.Contains(full().Error(), "hunter2") {
		t.Error("the log does not see the cause")
	}
}

func TestErrorf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, want string
		err        *transport.Error
	}{
		{"plain", "no 5%", transport.Errorf(transport.NotFound, "", "no %d%%", 5)},
		{"cause at the end", "load order 7", transport.Errorf(transport.Internal, "", "load order %d: %w", 7, errSecret)},
		{"cause at the start", "while loading", transport.Errorf(transport.Internal, "", "%w: while loading", errSecret)},
		{"cause in the middle", "load: order", transport.Errorf(transport.Internal, "", "load: %w: order", errSecret)},
		{"indexed", "order 7", transport.Errorf(transport.Internal, "", "order %[2]d: %[1]w", errSecret, 7)},
		{"two causes", "both", transport.Errorf(transport.Internal, "", "both: %w: %w", errSecret, io.EOF)},
		{"shown on purpose", `bad number "EOF"`, transport.Errorf(transport.Internal, "", "bad number %q: %w", io.EOF, errSecret)},
		{"nil operand", "user <nil>", transport.Errorf(transport.Internal, "", "user %v: %w", nil, errSecret)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.err.Message != tc.want {
				t.Errorf("Message = %q, want %q", tc.err.Message, tc.want)
			}
		})
	}
}

type rejected struct{ error }

func (rejected) NotExecuted() bool                 { return true }
func (rejected) RetryAfter() (time.Duration, bool) { return 2 * time.Second, true }

type away struct{ error }

func (away) Unavailable() bool { return true }

func TestAsError(t *testing.T) {
	t.Parallel()
	sentinel := transport.Errorf(transport.NotFound, "NO_ORDER", "no such order")
	for _, tc := range []struct {
		name string
		err  error
		want *transport.Error
	}{
		{"nil", nil, nil},
		{"itself", sentinel, sentinel},
		{"in the chain", fmt.Errorf("handle: %w", sentinel), sentinel},
		{"joined", errors.Join(io.EOF, sentinel), sentinel},
		{"canceled", fmt.Errorf("query: %w", context.Canceled), &transport.Error{Code: transport.Canceled, Message: "the request was canceled"}},
		{"deadline", context.DeadlineExceeded, &transport.Error{Code: transport.DeadlineExceeded, Message: "the deadline has passed"}},
		{"not executed", fmt.Errorf("call: %w", rejected{errSecret}), &transport.Error{Code: transport.Unavailable, Message: "the service is unavailable",
			Details: transport.Details{NotExecuted: true, RetryAfter: 2 * time.Second}}},
		{"queueing until the deadline", errors.Join(rejected{io.EOF}, context.DeadlineExceeded), &transport.Error{Code: transport.DeadlineExceeded, Message: "the deadline has passed",
			Details: transport.Details{NotExecuted: true, RetryAfter: 2 * time.Second}}},
		{"away", fmt.Errorf("store: %w", away{errSecret}), &transport.Error{Code: transport.Unavailable, Message: "the service cannot read or write its data now"}},
		{"grpc", fmt.Errorf("call: %w", status.Error(codes.NotFound, "nope")), &transport.Error{Code: transport.NotFound, Message: "nope"}},
		{"grpc of the future", status.Error(codes.Code(99), "?"), &transport.Error{Code: transport.Unknown, Message: "?"}},
		{"unknown", io.EOF, &transport.Error{Code: transport.Internal, Message: "internal error"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := transport.AsError(tc.err)
			if diff := cmp.Diff(tc.want, got, ignoreHidden); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tc.err != nil && !errors.Is(got, errors.Unwrap(tc.err)) && errors.Unwrap(tc.err) != nil && got != sentinel {
				t.Errorf("the cause %v is lost", tc.err)
			}
			if want := tc.want; want != nil && transport.CodeOf(tc.err) != want.Code {
				t.Errorf("CodeOf = %v", transport.CodeOf(tc.err))
			}
		})
	}
}

func TestIs(t *testing.T) {
	t.Parallel()
	a := transport.Errorf(transport.NotFound, "NO_ORDER", "a").WithDomain("orders")
	for _, tc := range []struct {
		name   string
		target error
		want   bool
	}{
		{"same domain and reason, other code", transport.Errorf(transport.Internal, "NO_ORDER", "").WithDomain("orders"), true},
		{"other domain", transport.Errorf(transport.NotFound, "NO_ORDER", "").WithDomain("billing"), false},
		{"other reason", transport.Errorf(transport.NotFound, "NO_SKU", "").WithDomain("orders"), false},
		{"code", &transport.Error{Code: transport.NotFound}, true},
		{"other code", &transport.Error{Code: transport.Internal}, false},
		{"another type", io.EOF, false},
		{"nil pointer", (*transport.Error)(nil), false},
	} {
		if got := errors.Is(a, tc.target); got != tc.want {
			t.Errorf("%s: Is = %v", tc.name, got)
		}
	}
}

func TestCopiesDoNotShare(t *testing.T) {
	t.Parallel()
	sentinel := transport.Invalid(transport.Violation{Pointer: "/a"})
	one := sentinel.WithViolations(transport.Violation{Pointer: "/b"})
	two := sentinel.WithViolations(transport.Violation{Pointer: "/c"}).WithRetryAfter(time.Second).WithStatus(422)
	if len(sentinel.Details.Violations) != 1 || sentinel.Details.RetryAfter != 0 || sentinel.StatusCode() != 400 {
		t.Errorf("the sentinel changed: %+v", sentinel)
	}
	if one.Details.Violations[1].Pointer != "/b" || two.Details.Violations[1].Pointer != "/c" || two.StatusCode() != 422 {
		t.Errorf("copies share memory: %+v %+v", one, two)
	}
}

func TestGRPCStatusKeepsForeignDetails(t *testing.T) {
	t.Parallel()
	st, err := status.New(codes.ResourceExhausted, "quota").WithDetails(
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: "project:1"}}},
		&errdetails.ErrorInfo{Reason: "QUOTA", Domain: "d", Metadata: map[string]string{"limit": "10"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	e := transport.FromStatus(st)
	if got := e.GRPCStatus(); got.String() != st.String() {
		t.Errorf("unchanged error: %v, want %v", got, st)
	}
	var quota bool
	for _, d := range e.WithRetryAfter(time.Second).GRPCStatus().Details() {
		_, ok := d.(*errdetails.QuotaFailure)
		quota = quota || ok
	}
	if !quota {
		t.Error("a changed error lost the detail it has no field for")
	}
	if transport.FromStatus(nil) != nil || transport.FromStatus(status.New(codes.OK, "")) != nil {
		t.Error("OK is not an error")
	}
}

func TestRetryable(t *testing.T) {
	t.Parallel()
	for c := transport.OK; c <= transport.Unauthenticated+1; c++ {
		want := map[transport.Code]bool{transport.Unavailable: true, transport.ResourceExhausted: true, transport.Aborted: true, transport.DeadlineExceeded: true}[c]
		if got := (&transport.Error{Code: c}).Retryable(); got != want {
			t.Errorf("%v: Retryable = %v", c, got)
		}
	}
	if e := (&transport.Error{Code: transport.InvalidArgument, Details: transport.Details{NotExecuted: true}}); e.Retryable() || !e.NotExecuted() {
		t.Error("a request that was refused for what it says is refused again")
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for c := transport.OK; c <= transport.Unauthenticated; c++ {
		// The names of grpc-go are readable from JSON only.
		var g codes.Code
		if err := g.UnmarshalJSON([]byte(`"` + strings.Replace(c.String(), "CANCELED", "CANCELLED", 1) + `"`)); err != nil || uint32(g) != uint32(c) {
			t.Errorf("%d is %q, grpc: %v %v", c, c, g, err)
		}
		if back := transport.CodeFromHTTP(c.HTTPStatus()); back.HTTPStatus() != c.HTTPStatus() {
			t.Errorf("%v -> %d -> %v", c, c.HTTPStatus(), back)
		}
	}
	for status, want := range map[int]transport.Code{200: transport.OK, 302: transport.Unknown, 418: transport.InvalidArgument,
		502: transport.Unavailable, 599: transport.Internal, 0: transport.Unknown, 405: transport.Unimplemented} {
		if got := transport.CodeFromHTTP(status); got != want {
			t.Errorf("CodeFromHTTP(%d) = %v, want %v", status, got, want)
		}
	}
}

func TestFromProblemOfStrangers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, body string
		status     int
		code       transport.Code
		message    string
	}{
		{"html", "<html>secret</html>", 502, transport.Unavailable, "Bad Gateway"},
		{"empty", "", 404, transport.NotFound, "Not Found"},
		{"foreign json", `{"error":"secret"}`, 429, transport.ResourceExhausted, "Too Many Requests"},
		{"foreign problem", `{"type":"https://x/y","title":"Too heavy","status":422}`, 422, transport.InvalidArgument, "Too heavy"},
		{"code out of the list", `{"title":"t","code":"OK"}`, 409, transport.FailedPrecondition, "t"},
		{"wrong types", `{"title":1}`, 500, transport.Internal, "Internal Server Error"},
		{"no error at all", `{}`, 200, transport.Unknown, "OK"},
		{"absurd delay", `{"title":"t","retry_after":1e300}`, 503, transport.Unavailable, "t"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := transport.FromProblem(tc.status, []byte(tc.body))
			if e.Code != tc.code || e.Message != tc.message {
				t.Errorf("got %v %q, want %v %q", e.Code, e.Message, tc.code, tc.message)
			}
			if tc.status >= 400 && e.StatusCode() != tc.status {
				t.Errorf("status %d became %d", tc.status, e.StatusCode())
			}
			if strings.Contains(e.Error(), "secret") {
				t.Errorf("took over a stranger's text: %v", e)
			}
			if d, _ := e.RetryAfter(); d < 0 {
				t.Errorf("retry after %v", d)
			}
		})
	}
}

// An application that has a go-kit server already gets the right status,
// headers and body without any encoder of ours.
func TestUntouchedGoKitServer(t *testing.T) {
	t.Parallel()
	e := func(context.Context, any) (any, error) { return nil, full() }
	for _, tc := range []struct {
		name, contentType string
		options           []kithttp.ServerOption
	}{
		{"default encoder", "application/json; charset=utf-8", nil},
		{"our encoder", transport.ProblemType, []kithttp.ServerOption{kithttp.ServerErrorEncoder(transport.EncodeError)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(kithttp.NewServer(e, kithttp.NopRequestDecoder, kithttp.EncodeJSONResponse, tc.options...))
			defer srv.Close()
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusConflict || resp.Header.Get("Retry-After") != "2" {
				t.Errorf("status %d, header %v", resp.StatusCode, resp.Header)
			}
			if got := resp.Header.Values("Content-Type"); len(got) != 1 || got[0] != tc.contentType {
				t.Errorf("Content-Type %q", got)
			}
			if got := transport.FromProblem(resp.StatusCode, body); !errors.Is(got, full()) {
				t.Errorf("got %v from %s", got, body)
			}
		})
	}
}

func TestEncodeErrorHidesUnknownErrors(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errSecret, nil} {
		w := httptest.NewRecorder()
		transport.EncodeError(t.Context(), err, w)
		if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") || !strings.Contains(w.Body.String(), `"code":"INTERNAL"`) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

type answer struct{ err error }

func (a answer) Failed() error { return a.err }

func TestFuncAndEndpoint(t *testing.T) {
	t.Parallel()
	double := transport.Func[int, int](func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	var order []string
	mark := func(name string) endpoint.Middleware {
		return func(next endpoint.Endpoint) endpoint.Endpoint {
			return func(ctx context.Context, req any) (any, error) {
				order = append(order, name)
				return next(ctx, req)
			}
		}
	}
	got, err := double.With(mark("outer"), mark("inner"))(t.Context(), 4)
	if got != 8 || err != nil || strings.Join(order, " ") != "outer inner" {
		t.Errorf("With: %d, %v, %v", got, err, order)
	}
	if got, err := double.With()(t.Context(), 1); got != 2 || err != nil {
		t.Errorf("With(): %d, %v", got, err)
	}
	if _, err := double.Endpoint()(t.Context(), "four"); transport.CodeOf(err) != transport.Internal || !strings.Contains(err.Error(), "got string, want int") {
		t.Errorf("wrong request: %v", err)
	}
	if _, err := transport.From[int, string](double.Endpoint())(t.Context(), 4); transport.CodeOf(err) != transport.Internal {
		t.Errorf("wrong response: %v", err)
	}
	failing := func(context.Context, any) (any, error) { return answer{io.EOF}, nil }
	if _, err := transport.From[int, answer](failing)(t.Context(), 1); !errors.Is(err, io.EOF) {
		t.Errorf("a failed response: %v", err)
	}
	partial := func(context.Context, any) (any, error) { return 3, io.EOF }
	if got, err := transport.From[int, int](partial)(t.Context(), 1); got != 3 || !errors.Is(err, io.EOF) {
		t.Errorf("a response with an error: %d %v", got, err)
	}
	null := func(context.Context, any) (any, error) { return nil, nil }
	if _, err := transport.From[int, error](null)(t.Context(), 1); err != nil {
		t.Errorf("nil for an interface: %v", err)
	}
	if _, err := transport.From[int, *int](null)(t.Context(), 1); err == nil {
		t.Error("an untyped nil passed for a pointer")
	}
}

func TestMap(t *testing.T) {
	t.Parallel()
	calls := 0
	upper := transport.Func[string, string](func(_ context.Context, s string) (string, error) {
		calls++
		if s == "fail" {
			return "", io.EOF
		}
		return strings.ToUpper(s), nil
	})
	in := func(b []byte) (string, error) {
		if b == nil {
			return "", io.ErrUnexpectedEOF
		}
		return string(b), nil
	}
	out := func(s string) (int, error) { return len(s), nil }
	f := transport.Map(upper, in, out)
	if n, err := f(t.Context(), []byte("abc")); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := f(t.Context(), []byte("fail")); !errors.Is(err, io.EOF) {
		t.Errorf("error of f: %v", err)
	}
	before := calls
	if _, err := f(t.Context(), nil); !errors.Is(err, io.ErrUnexpectedEOF) || calls != before {
		t.Errorf("error of in: %v, %d calls", err, calls-before)
	}
}

func FuzzFromProblem(f *testing.F) {
	body, err := json.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(409, body)
	f.Add(500, []byte("<html>"))
	f.Add(-1, []byte(`{"code":"OK","retry_after":-1e308}`))
	f.Add(200, []byte(`{"title":"\ud800","errors":[{"pointer":"/x"}]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := transport.FromProblem(status, body)
		if e == nil || e.Code == transport.OK || e.StatusCode() < 400 || e.StatusCode() > 599 {
			t.Fatalf("FromProblem = %+v with status %d", e, e.StatusCode())
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if back := transport.FromProblem(e.StatusCode(), again); !errors.Is(back, e) {
			t.Fatalf("%v became %v", e, back)
		}
		if back := transport.FromStatus(e.GRPCStatus()); back == nil || back.Code != e.Code {
			t.Fatalf("%v became %v", e, back)
		}
	})
}
