// Package outside calls the companies the shop depends on: over HTTP, with an idempotency key, and with patience.
//
//	client, err := outside.For(svc, "carrier", "http://127.0.0.1:9002")
//	book, err := outside.Post[Request, Booking](client, "/shipments")
//	got, err := book(outside.WithKey(ctx, "place-1/ship"), Request{…})
//	if outside.Refused(err, http.StatusUnprocessableEntity) {
//		return ErrUnshippable // they did nothing, and asking again cannot help
//	}
//
// Any other error leaves the outcome unknown: the effect may have happened, and the same call with the same key finds
// out. Within one call that is tried three times; a circuit breaker spares a company that is down.
package outside

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/failpoint"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/resilience/otelresilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

// Limits of one call.
const (
	total    = 5 * time.Second // over all attempts and the waits between them; below the time a saga gives a step
	attempt  = 2 * time.Second
	attempts = 3
	inFlight = 64
)

// Config describes a company.
type Config struct {
	// Name is what errors call it.
	Name string
	// URL is its base URL.
	URL            string
	TracerProvider trace.TracerProvider
}

// Client is one company with its own breaker and connections. It is safe for concurrent use.
type Client struct {
	cfg    Config
	http   *http.Client
	policy resilience.Policy
}

// New returns a client. It connects with the first call.
func New(cfg Config) (*Client, error) {
	if cfg.URL == "" {
		return nil, fmt.Errorf("outside: client of the %s: URL is empty: give its base URL", cfg.Name)
	}
	policy, err := newPolicy(cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("outside: client of the %s: %w", cfg.Name, err)
	}
	connections := http.DefaultTransport.(*http.Transport).Clone()
	connections.MaxIdleConnsPerHost = inFlight
	return &Client{cfg: cfg, http: &http.Client{Transport: connections}, policy: policy}, nil
}

// For returns the client of a service: it is traced like the service, its policies are on the service's /metrics, and it
// is closed when the service stops.
func For(svc *armature.Service, name, url string) (*Client, error) {
	c, err := New(Config{Name: name, URL: url, TracerProvider: svc.TracerProvider})
	if err != nil {
		return nil, err
	}
	if err := svc.ShowPolicies(c.policy); err != nil {
		return nil, err
	}
	svc.OnStop(name, func(context.Context) error { c.Close(); return nil })
	return c, nil
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func newPolicy(name string) (resilience.Policy, error) {
	observer := otelresilience.SpanEvents()
	whole, err := resilience.NewTimeout(total)
	if err != nil {
		return nil, err
	}
	// Everything but an answer that the company chose to give is worth another try: the key makes that harmless.
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Name: name, MaxAttempts: attempts, Observer: observer,
		Backoff:   resilience.Exponential(50*time.Millisecond, 500*time.Millisecond, resilience.FullJitter),
		Retryable: func(_ context.Context, err error) bool { return !answered(err) },
	})
	if err != nil {
		return nil, err
	}
	// Strangers fail more often than neighbours and are back sooner than they say: opened late, asked again early.
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
		Name: name, Classify: classify, FailureRate: 0.8, Probes: 1, Observer: observer,
		OpenFor: resilience.OpenBackoff(500*time.Millisecond, 5*time.Second),
	})
	if err != nil {
		return nil, err
	}
	bulkhead, err := resilience.NewBulkhead(resilience.BulkheadConfig{
		Name: name, Max: inFlight, Queue: 4 * inFlight, MaxWait: attempt, Observer: observer,
	})
	if err != nil {
		return nil, err
	}
	each, err := resilience.NewTimeout(attempt)
	if err != nil {
		return nil, err
	}
	return resilience.Chain(whole.With(name, observer), retry, breaker, bulkhead, each.With(name+" attempt", observer)), nil
}

func classify(ctx context.Context, err error) resilience.Outcome {
	if answered(err) {
		return resilience.Success
	}
	return resilience.Classify(ctx, err)
}

// answered reports whether the company looked at the request and said no.
func answered(err error) bool {
	var e *transport.Error
	if !errors.As(err, &e) {
		return false
	}
	status := e.StatusCode()
	return status >= 400 && status < 500 &&
		status != http.StatusRequestTimeout && status != http.StatusTooManyRequests && status != transport.StatusClientClosedRequest
}

// Refused reports whether err is the company's definitive no, which it says with status.
func Refused(err error, status int) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.StatusCode() == status
}

// WithKey makes key the idempotency key of the calls made with the context it returns.
func WithKey(ctx context.Context, key string) context.Context {
	return flow.WithOutgoingIdempotencyKey(ctx, key)
}

// Post returns a function that posts a Req as JSON to path and reads a Resp. It refuses to call without WithKey.
func Post[Req, Resp any](c *Client, path string) (transport.Func[Req, Resp], error) {
	post, err := httpx.NewClient[Req, Resp](httpx.ClientConfig{
		BaseURL: c.cfg.URL, Client: c.http, Policy: c.policy, TracerProvider: c.cfg.TracerProvider, Timeout: total,
	}, "POST "+path)
	if err != nil {
		return nil, fmt.Errorf("outside: client of the %s: %w", c.cfg.Name, err)
	}
	return func(ctx context.Context, req Req) (Resp, error) {
		if flow.OutgoingIdempotencyKey(ctx) == "" {
			var none Resp
			return none, fmt.Errorf("outside: call the %s: no idempotency key: use WithKey", c.cfg.Name)
		}
		resp, err := post(ctx, req)
		failpoint.Hit("outside: the " + c.cfg.Name + " answered")
		return resp, err
	}, nil
}
