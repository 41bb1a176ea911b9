package resilience_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

// transportFunc is a RoundTripper without a network.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// tracked tells whether it was closed and read to the end.
type tracked struct {
	io.Reader
	closed atomic.Int32
	ended  atomic.Bool
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err == io.EOF {
		t.ended.Store(true)
	}
	return n, err
}

func (t *tracked) Close() error {
	t.closed.Add(1)
	return nil
}

func thrice() *resilience.Retry {
	return must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)}))
}

// sideBySide runs n attempts at the same time, each on a fork. The one with the
// lowest number that succeeds wins; the losers are discarded.
type sideBySide int

func (n sideBySide) Describe() resilience.Description {
	return resilience.Description{Kind: "side-by-side"}
}

func (n sideBySide) Run(ctx context.Context, next resilience.Next) error {
	forks, errs := make([]resilience.Next, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range forks {
		forks[i] = next.Fork()
		wg.Go(func() { errs[i] = forks[i].Run(ctx) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		if err == nil && won < 0 {
			won = i
			next.Adopt(forks[i])
		} else {
			forks[i].Discard()
		}
	}
	if won < 0 {
		return errors.Join(errs...)
	}
	return nil
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	return must(http.NewRequestWithContext(t.Context(), method, url, body))
}

// streamed hides what body is, so that there is no GetBody.
func streamed(body string) io.Reader {
	return struct{ io.Reader }{iotest.OneByteReader(strings.NewReader(body))}
}

func TestRoundTripperRepeatsWhatIsSafe(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	keyed := http.Header{"Idempotency-Key": {"k"}}
	long := strings.Repeat("x", 100)
	for _, tt := range []struct {
		name     string
		method   string
		header   http.Header
		body     io.Reader
		options  resilience.HTTPOptions
		err      error // of each attempt, else status
		status   int
		attempts int
	}{
		{name: "GET 503", method: "GET", status: 503, attempts: 3},
		{name: "no method means GET", status: 503, attempts: 3},
		{name: "HEAD 500", method: "HEAD", status: 500, attempts: 3},
		{name: "OPTIONS 502", method: "OPTIONS", status: 502, attempts: 3},
		{name: "TRACE 504", method: "TRACE", status: 504, attempts: 3},
		{name: "PUT 408 with a buffer", method: "PUT", body: bytes.NewReader([]byte(long)), status: 408, attempts: 3},
		{name: "DELETE 429", method: "DELETE", status: 429, attempts: 3},
		{name: "POST 503", method: "POST", body: strings.NewReader(long), status: 503, attempts: 1},
		{name: "PATCH 503", method: "PATCH", body: strings.NewReader(long), status: 503, attempts: 1},
		{name: "POST with a key", method: "POST", header: keyed, body: strings.NewReader(long), status: 503, attempts: 3},
		{name: "POST that broke off", method: "POST", body: strings.NewReader(long), err: io.ErrUnexpectedEOF, attempts: 1},
		{name: "POST that reached nobody", method: "POST", body: strings.NewReader(long), err: dial, attempts: 3},
		{name: "POST with a stream that reached nobody", method: "POST", body: streamed(long), err: dial, attempts: 3},
		{name: "POST by option", method: "POST", body: strings.NewReader(long), status: 503, attempts: 3,
			options: resilience.HTTPOptions{Repeatable: func(*http.Request) bool { return true }}},
		{name: "PUT with a short stream", method: "PUT", body: streamed(long), status: 503, attempts: 3},
		{name: "PUT with a stream as long as is kept", method: "PUT", body: streamed(long), status: 503, attempts: 3,
			options: resilience.HTTPOptions{MaxReplayBytes: 100}},
		{name: "PUT with a stream that is too long", method: "PUT", body: streamed(long), status: 503, attempts: 1,
			options: resilience.HTTPOptions{MaxReplayBytes: 99}},
		{name: "PUT with a stream and nothing kept", method: "PUT", body: streamed("x"), status: 503, attempts: 1,
			options: resilience.HTTPOptions{MaxReplayBytes: -1}},
		{name: "404 is an answer", method: "GET", status: 404, attempts: 1},
		{name: "501 is an answer", method: "GET", status: 501, attempts: 1},
		{name: "505 is an answer", method: "GET", status: 505, attempts: 1},
		{name: "404 by option", method: "GET", status: 404, attempts: 3,
			options: resilience.HTTPOptions{FailIf: func(r *http.Response) error {
				if r.StatusCode == 404 {
					return errDown
				}
				return nil
			}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var source *tracked
			req := request(t, tt.method, "http://payment/", nil)
			req.Method = tt.method
			want := ""
			if tt.body != nil {
				req = request(t, tt.method, "http://payment/", tt.body)
				want = long
				if tt.options.MaxReplayBytes < 0 {
					want = "x"
				}
				source = &tracked{Reader: req.Body}
				req.Body = source
			}
			for k, v := range tt.header {
				req.Header[k] = v
			}
			length := req.ContentLength
			var attempts int
			var bodies []*tracked
			base := transportFunc(func(r *http.Request) (*http.Response, error) {
				attempts++
				if r == req || r.ContentLength != length {
					t.Errorf("attempt %d: same request %v, ContentLength %d, want a clone with %d", attempts, r == req, r.ContentLength, length)
				}
				r.Header.Set("Attempt", fmt.Sprint(attempts))
				if r.Body != nil {
					defer func() { _ = r.Body.Close() }()
				}
				if tt.err != nil {
					return nil, tt.err
				}
				if r.Body != nil {
					got, err := io.ReadAll(r.Body)
					if string(got) != want || err != nil {
						t.Errorf("attempt %d read %q, %v; want %q", attempts, got, err, want)
					}
				}
				resp := answer(tt.status, fmt.Sprint("answer ", attempts))
				b := &tracked{Reader: resp.Body}
				resp.Body, bodies = b, append(bodies, b)
				return resp, nil
			})
			resp, err := resilience.RoundTripper(base, thrice(), tt.options).RoundTrip(req)
			if attempts != tt.attempts {
				t.Errorf("%d attempts, want %d", attempts, tt.attempts)
			}
			if source != nil && source.closed.Load() != 1 {
				t.Errorf("the request body was closed %d times, want once", source.closed.Load())
			}
			if req.Header.Get("Attempt") != "" {
				t.Error("the caller's request was changed")
			}
			if tt.err != nil {
				if resp != nil || !errors.Is(err, tt.err) {
					t.Errorf("got %v, %v; want %v", resp, err, tt.err)
				}
				return
			}
			if err != nil || resp.StatusCode != tt.status || resp.Request != req {
				t.Fatalf("got %v, %v; want the last response, of the caller's request", resp, err)
			}
			for i, b := range bodies {
				last := i == len(bodies)-1
				if closed := b.closed.Load() == 1; closed == last || b.ended.Load() == last {
					t.Errorf("response %d of %d: closed %v, drained %v", i+1, len(bodies), closed, b.ended.Load())
				}
			}
			if got := string(must(io.ReadAll(resp.Body))); got != fmt.Sprint("answer ", attempts) {
				t.Errorf("body %q, want the last one unread", got)
			}
			_ = resp.Body.Close()
		})
	}
}

// stubborn asks for another attempt whatever the error says.
func stubborn() *resilience.Retry {
	return must(resilience.NewRetry(resilience.RetryConfig{
		Backoff:   resilience.Exponential(0, 0, resilience.NoJitter),
		Retryable: func(context.Context, error) bool { return true },
	}))
}

func TestRoundTripperNeverRepeatsAgainstTheRule(t *testing.T) {
	t.Parallel()
	for _, p := range []resilience.Policy{stubborn(), sideBySide(3)} {
		var attempts atomic.Int32
		rt := resilience.RoundTripper(transportFunc(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			return answer([]int{0, 503, 200}[min(2, attempts.Add(1))], "once"), nil
		}), p, resilience.HTTPOptions{})
		resp, err := rt.RoundTrip(request(t, "POST", "http://payment/", strings.NewReader("pay")))
		if attempts.Load() != 1 {
			t.Errorf("%s: %d attempts of a POST", p.Describe().Kind, attempts.Load())
		}
		if err == nil {
			if got := string(must(io.ReadAll(resp.Body))); got != "once" || resp.StatusCode != 503 {
				t.Errorf("%s: got %d %q", p.Describe().Kind, resp.StatusCode, got)
			}
		}
	}
}

func TestRoundTripperClosesTheBodyWhenRejected(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Name: "payment"}))
	b.Trip(time.Minute)
	for _, getBody := range []bool{true, false} {
		source := &tracked{Reader: strings.NewReader("pay")}
		req := request(t, "POST", "http://payment/", source)
		if getBody {
			req.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
		}
		resp, err := resilience.RoundTripper(transportFunc(func(*http.Request) (*http.Response, error) {
			t.Error("sent")
			return nil, errDown
		}), b, resilience.HTTPOptions{}).RoundTrip(req)
		if resp != nil || !errors.Is(err, resilience.ErrOpen) || source.closed.Load() != 1 {
			t.Errorf("got %v, %v, body closed %d times; want ErrOpen and once", resp, err, source.closed.Load())
		}
	}
}

func TestRoundTripperClosesTheBodyAfterAPanic(t *testing.T) {
	t.Parallel()
	for _, getBody := range []bool{true, false} {
		source := &tracked{Reader: strings.NewReader("pay")}
		req := request(t, "POST", "http://payment/", source)
		if getBody {
			req.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
		}
		var ctx context.Context
		rt := resilience.RoundTripper(transportFunc(func(r *http.Request) (*http.Response, error) {
			ctx = r.Context()
			panic("boom")
		}), thrice(), resilience.HTTPOptions{})
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not pass")
				}
			}()
			_, _ = rt.RoundTrip(req)
		}()
		if source.closed.Load() != 1 || ctx.Err() == nil {
			t.Errorf("body closed %d times, context %v; want once and ended", source.closed.Load(), ctx.Err())
		}
	}
}

func TestRoundTripperReusesConnections(t *testing.T) {
	t.Parallel()
	var served atomic.Int32
	var conns sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		if served.Add(1) < 3 {
			w.WriteHeader(503)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 20_000))
	}))
	defer srv.Close()
	base := &http.Transport{MaxConnsPerHost: 2}
	client := http.Client{Transport: resilience.RoundTripper(base, thrice(), resilience.HTTPOptions{})}
	defer client.CloseIdleConnections() // goleak tells when it does not reach base
	resp := must(client.Get(srv.URL))
	body := must(io.ReadAll(resp.Body))
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || len(body) != 20_000 || served.Load() != 3 {
		t.Errorf("status %d, %d bytes after %d attempts", resp.StatusCode, len(body), served.Load())
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestRoundTripperDoesNotWaitForASlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		rt := resilience.RoundTripper(transportFunc(func(r *http.Request) (*http.Response, error) {
			if attempts++; attempts == 2 {
				return answer(200, "good"), nil
			}
			resp := answer(503, "")
			resp.ContentLength = -1
			resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}))
			return resp, nil
		}), thrice(), resilience.HTTPOptions{})
		start := time.Now()
		resp := must(rt.RoundTrip(request(t, "GET", "http://payment/", nil)))
		defer func() { _ = resp.Body.Close() }()
		if took := time.Since(start); resp.StatusCode != 200 || took != 250*time.Millisecond {
			t.Errorf("status %d after %v, want 200 after 250ms", resp.StatusCode, took)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRoundTripperKeepsTheContextOfAResponse(t *testing.T) {
	t.Parallel()
	timeout := must(resilience.NewTimeout(time.Minute))
	for _, tt := range []struct {
		name string
		p    resilience.Policy
	}{
		{"timeout", timeout},
		{"timeouts around and in a retry", resilience.Chain(timeout, thrice(), must(resilience.NewTimeout(30*time.Second)))},
		{"hedges", resilience.Chain(timeout, sideBySide(2))},
	} {
		for _, end := range []string{"close", "end", "deadline"} {
			t.Run(tt.name+"/"+end, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					var contexts []context.Context
					rt := resilience.RoundTripper(transportFunc(func(r *http.Request) (*http.Response, error) {
						mu.Lock()
						defer mu.Unlock()
						contexts = append(contexts, r.Context())
						resp := answer(200, "")
						resp.Body = &tracked{Reader: io.MultiReader(strings.NewReader("all"), readerFunc(func([]byte) (int, error) {
							if r.Context().Err() != nil {
								return 0, r.Context().Err()
							}
							return 0, io.EOF
						}))}
						return resp, nil
					}), tt.p, resilience.HTTPOptions{})
					resp := must(rt.RoundTrip(request(t, "GET", "http://payment/", nil)))
					time.Sleep(time.Second)
					alive := 0
					for _, ctx := range contexts {
						if ctx.Err() == nil {
							alive++
						}
					}
					if alive != 1 {
						t.Errorf("%d contexts are alive before the body was read, want that of the response", alive)
					}
					switch end {
					case "close":
						_ = resp.Body.Close()
					case "end":
						if got, err := io.ReadAll(resp.Body); string(got) != "all" || err != nil {
							t.Errorf("body %q, %v", got, err)
						}
					case "deadline":
						time.Sleep(time.Minute)
						if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("read after the deadline: %v", err)
						}
					}
					for _, ctx := range contexts {
						if ctx.Err() == nil {
							t.Error("a context outlives the response")
						}
					}
				})
			})
		}
	}
}

func TestRoundTripperHedgesHaveBodiesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, body := range []io.Reader{strings.NewReader("hedged"), streamed("hedged")} {
		var bodies sync.Map
		rt := resilience.RoundTripper(transportFunc(func(r *http.Request) (*http.Response, error) {
			got, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			resp := answer(200, string(got))
			b := &tracked{Reader: resp.Body}
			resp.Body = b
			bodies.Store(b, true)
			return resp, err
		}), sideBySide(4), resilience.HTTPOptions{})
		req := request(t, "PUT", "http://payment/", body)
		source := &tracked{Reader: req.Body}
		req.Body = source
		resp := must(rt.RoundTrip(req))
		if got := string(must(io.ReadAll(resp.Body))); got != "hedged" {
			t.Errorf("got %q", got)
		}
		_ = resp.Body.Close()
		n := 0
		bodies.Range(func(b, _ any) bool {
			n += int(b.(*tracked).closed.Load())
			return true
		})
		if n != 4 || source.closed.Load() != 1 {
			t.Errorf("%d of 4 responses closed, the request body %d times", n, source.closed.Load())
		}
	}
}

func TestRoundTripperStreamsBothWays(t *testing.T) {
	t.Parallel()
	// The server answers before the request body is there: reading ahead would hang.
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Sum", r.Trailer.Get("Count"))
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	pr, pw := io.Pipe()
	req := request(t, "PUT", srv.URL, pr)
	req.Trailer = http.Header{"Count": nil}
	timeout := must(resilience.NewTimeout(time.Minute))
	resp := must(resilience.RoundTripper(srv.Client().Transport, resilience.Chain(timeout, thrice()), resilience.HTTPOptions{}).RoundTrip(req))
	_, _ = io.WriteString(pw, "late")
	req.Trailer.Set("Count", "4")
	_ = pw.Close()
	if got := string(must(io.ReadAll(resp.Body))); got != "late" || resp.Trailer.Get("Sum") != "4" {
		t.Errorf("got %q, trailer %v", got, resp.Trailer)
	}
	_ = resp.Body.Close()
}

func TestRoundTripperHandsOutUpgradedConnections(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, line)
	}))
	defer srv.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	req := request(t, "GET", srv.URL, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp := must(resilience.RoundTripper(base, must(resilience.NewTimeout(time.Minute)), resilience.HTTPOptions{}).RoundTrip(req))
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body is a %T", resp.Body)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if got := string(must(io.ReadAll(conn))); got != "hello\n" {
		t.Errorf("got %q", got)
	}
	_ = conn.Close()
}

func TestRoundTripperTellsPoliciesOfRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, format := range []string{"7", http.TimeFormat} {
			value := time.Now().Add(7 * time.Second).UTC().Format(format)
			attempts := 0
			rt := resilience.RoundTripper(transportFunc(func(*http.Request) (*http.Response, error) {
				attempts++
				if attempts > 1 {
					return answer(200, ""), nil
				}
				resp := answer(429, "")
				resp.Header.Set("Retry-After", value)
				return resp, nil
			}), thrice(), resilience.HTTPOptions{})
			start := time.Now()
			resp := must(rt.RoundTrip(request(t, "GET", "http://payment/", nil)))
			_ = resp.Body.Close()
			if took := time.Since(start); took != 7*time.Second {
				t.Errorf("Retry-After %q: waited %v", value, took)
			}
		}
	})
}

func TestStatusErrorSpeaks(t *testing.T) {
	t.Parallel()
	var seen error
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Classify: func(ctx context.Context, err error) resilience.Outcome {
		seen = err
		return resilience.Classify(ctx, err)
	}}))
	resp := must(resilience.RoundTripper(transportFunc(func(*http.Request) (*http.Response, error) {
		return answer(503, ""), nil
	}), b, resilience.HTTPOptions{}).RoundTrip(request(t, "POST", "http://payment/charge?card=4111", nil)))
	_ = resp.Body.Close()
	var status *resilience.StatusError
	if !errors.As(seen, &status) || status.StatusCode() != 503 || status.Retryable() {
		t.Fatalf("policies saw %#v", seen)
	}
	const want = `resilience: send POST "payment": status 503 Service Unavailable: not sent again: neither an idempotent method nor an Idempotency-Key`
	if status.Error() != want {
		t.Errorf("got  %s\nwant %s", status, want)
	}
}

func TestRoundTripperWithADeadResponse(t *testing.T) {
	t.Parallel()
	// The total timeout ends the wait after a 503: its body can no longer be read.
	synctest.Test(t, func(t *testing.T) {
		slow := must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(time.Minute, time.Minute, resilience.NoJitter)}))
		var body *tracked
		rt := resilience.RoundTripper(transportFunc(func(*http.Request) (*http.Response, error) {
			resp := answer(503, "x")
			body = &tracked{Reader: resp.Body}
			resp.Body = body
			return resp, nil
		}), cancelling{resilience.Chain(slow)}, resilience.HTTPOptions{})
		resp, err := rt.RoundTrip(request(t, "GET", "http://payment/", nil))
		if resp != nil || err == nil || body.closed.Load() != 1 {
			t.Errorf("got %v, %v, closed %d times; want an error and a closed body", resp, err, body.closed.Load())
		}
	})
}

// cancelling ends the context it made as soon as the call returns.
type cancelling struct{ resilience.Policy }

func (c cancelling) Run(ctx context.Context, next resilience.Next) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.Policy.Run(ctx, next)
}

func TestRoundTripperDefaults(t *testing.T) {
	t.Parallel()
	if resilience.RoundTripper(nil, nil, resilience.HTTPOptions{}) != http.DefaultTransport {
		t.Error("without base and policy it is not http.DefaultTransport")
	}
	resp, err := resilience.RoundTripper(nil, nothing{}, resilience.HTTPOptions{}).RoundTrip(request(t, "GET", "http://payment/", nil))
	if resp != nil || err == nil {
		t.Errorf("a policy that runs nothing: %v, %v; want an error", resp, err)
	}
}

// nothing succeeds without running anything.
type nothing struct{}

func (nothing) Run(context.Context, resilience.Next) error { return nil }
func (nothing) Describe() resilience.Description           { return resilience.Description{} }
