// Command quickstart is one service in one file: a typed endpoint over HTTP,
// called through a client with a retry and a circuit breaker, traced from the
// caller to the innermost function. It talks to itself, says what happened and
// exits.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/tracing"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

// GetPrice is the request: its tags say where each field travels.
type GetPrice struct {
	SKU      string `path:"sku"`
	Quantity int    `query:"quantity"`
}

// Validate is asked before the handler is.
func (r GetPrice) Validate() error {
	if r.Quantity < 1 {
		return transport.Errorf(transport.InvalidArgument, "QUANTITY", "the request is not valid").
			WithViolations(transport.Violation{Pointer: "/quantity", Detail: "must be at least 1"})
	}
	return nil
}

// Price is the answer, in minor units as money should be.
type Price struct {
	SKU   string `json:"sku"`
	Cents int64  `json:"cents"`
}

// catalogue is the business: it knows nothing about HTTP, and it is not well.
type catalogue struct {
	failures atomic.Int32 // the next so many calls fail
	calls    atomic.Int32
}

func (c *catalogue) price(ctx context.Context, req GetPrice) (*Price, error) {
	c.calls.Add(1)
	if c.failures.Add(-1) >= 0 {
		return nil, transport.Errorf(transport.Unavailable, "DATABASE_DOWN", "the catalogue is not available")
	}
	var cents int64
	err := tracing.Do(ctx, "look up "+req.SKU, func(context.Context) error {
		if req.SKU != "sku-tea" {
			return transport.Errorf(transport.NotFound, "NO_SUCH_PRODUCT", "there is no product %s", req.SKU)
		}
		cents = 450
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Price{SKU: req.SKU, Cents: cents * int64(req.Quantity)}, nil
}

func main() {
	armature.Main(func(ctx context.Context) error { return run(ctx, os.Stdout) })
}

func run(ctx context.Context, out io.Writer) error {
	spans := tracetest.NewInMemoryExporter()
	svc, err := armature.New(armature.Config{
		Name:      "pricing",
		HTTPAddr:  "127.0.0.1:0",
		LogWriter: io.Discard, // leave it out to see one JSON line per request
		Exporter:  func(context.Context) (sdktrace.SpanExporter, error) { return spans, nil },
	})
	if err != nil {
		return err
	}
	var shop catalogue
	httpx.Handle(svc.HTTP, "GET /prices/{sku}", shop.price)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
	case err := <-done:
		return err
	}
	err = visit(ctx, out, svc, &shop)
	if err == nil {
		err = printTrace(ctx, out, svc, spans)
	}
	stop()
	return errors.Join(err, <-done)
}

// visit is the caller's side.
func visit(ctx context.Context, out io.Writer, svc *armature.Service, shop *catalogue) error {
	breaker, err := resilience.NewBreaker(resilience.BreakerConfig{
		Name: "pricing", Window: resilience.Consecutive(), Failures: 3,
		OpenFor: resilience.OpenFixed(time.Second), Probes: 1,
	})
	if err != nil {
		return err
	}
	retry, err := resilience.NewRetry(resilience.RetryConfig{
		Observer: resilience.ObserverFunc(func(_ context.Context, e resilience.Event) {
			if e.Kind == resilience.EventRetry {
				fmt.Fprintf(out, "   attempt %d: %s\n", e.Attempt, explain(e.Err))
			}
		}),
	})
	if err != nil {
		return err
	}
	price, err := httpx.NewClient[GetPrice, *Price](httpx.ClientConfig{
		BaseURL:        "http://" + svc.HTTPAddr(),
		Policy:         resilience.Chain(retry, breaker),
		TracerProvider: svc.TracerProvider,
	}, "GET /prices/{sku}")
	if err != nil {
		return err
	}
	ctx = tracing.WithProvider(ctx, svc.TracerProvider)
	ask := func(sku string, quantity int) {
		var p *Price
		err := tracing.Do(ctx, "ask for "+sku, func(ctx context.Context) (err error) {
			p, err = price(ctx, GetPrice{SKU: sku, Quantity: quantity})
			return err
		})
		if err != nil {
			fmt.Fprintf(out, "   %s\n", explain(err))
			return
		}
		fmt.Fprintf(out, "   %d x %s costs %d.%02d\n", quantity, p.SKU, p.Cents/100, p.Cents%100)
	}

	fmt.Fprintln(out, "1. Two failures, and a retry that gets through:")
	shop.failures.Store(2)
	ask("sku-tea", 2)

	fmt.Fprintln(out, "2. An outage opens the breaker:")
	shop.failures.Store(3)
	ask("sku-tea", 1)
	fmt.Fprintf(out, "   breaker is %v\n", breaker.State())

	fmt.Fprintln(out, "3. While it is open nobody is called; then one probe closes it:")
	before := shop.calls.Load()
	ask("sku-tea", 1)
	fmt.Fprintf(out, "   breaker is %v after %d call\n", breaker.State(), shop.calls.Load()-before)

	fmt.Fprintln(out, "4. Mistakes are errors with a code, a reason and a place:")
	ask("sku-gold", 1)
	ask("sku-tea", 0)
	return nil
}

// explain tells an error by what it is, on whichever side of the wire it arose.
func explain(err error) string {
	if errors.Is(err, resilience.ErrOpen) {
		return "not sent, the breaker is open"
	}
	e := transport.AsError(err)
	var places strings.Builder
	for _, v := range e.Details.Violations {
		fmt.Fprintf(&places, " (%s %s)", v.Pointer, v.Detail)
	}
	return fmt.Sprintf("%v %s: %s%s", e.Code, e.Reason, e.Message, places.String())
}

// printTrace prints the spans of the first call, each below its parent.
func printTrace(ctx context.Context, out io.Writer, svc *armature.Service, exported *tracetest.InMemoryExporter) error {
	if err := svc.Tracing.ForceFlush(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "5. The first call as a trace:")
	spans := exported.GetSpans()
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	var below func(parent trace.SpanID, depth int)
	below = func(parent trace.SpanID, depth int) {
		for _, s := range spans {
			if s.SpanContext.TraceID() == spans[0].SpanContext.TraceID() && s.Parent.SpanID() == parent {
				fmt.Fprintf(out, "   %s%v %s\n", strings.Repeat("  ", depth), s.SpanKind, s.Name)
				below(s.SpanContext.SpanID(), depth+1)
			}
		}
	}
	below(trace.SpanID{}, 0)
	return nil
}
