package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/flow"
)

// Defaults of Config.
const (
	DefaultAddr        = "http://127.0.0.1:8080"
	DefaultConcurrency = 8
	DefaultSettle      = 30 * time.Second
)

// Config of a run.
type Config struct {
	// Addr is the edge's base URL; "host:port" will do. DefaultAddr when empty.
	Addr   string
	Orders []Order
	// Concurrency is how many orders are under way at once; DefaultConcurrency when 0.
	Concurrency int
	// Settle is how long the audit waits for the shop to come to rest; DefaultSettle when 0.
	Settle time.Duration
	// Out takes progress, summary and audit; nothing is written when nil.
	Out io.Writer
	// Terminal says that Out is one, and gets a bar that moves.
	Terminal bool
	// Audit replaces the audit of the data folder that the shop names; for shops whose books are elsewhere.
	Audit func(context.Context) (*audit.Report, error)
}

// Result of a run.
type Result struct {
	// Outcomes counts the orders by the status they ended in; "failed" are those that came to no rest.
	Outcomes map[string]int
	// Broken is what did not come as expected, a sentence each.
	Broken []string
	// Audit is the report on the shop's books.
	Audit *audit.Report
	// P50 and P99 are of the time from sending an order to seeing it confirmed or cancelled.
	P50, P99, Took time.Duration
	// Retries is how often a request was sent again.
	Retries int
}

// OK reports whether every expectation held and the audit is green.
func (r *Result) OK() bool { return len(r.Broken) == 0 && r.Audit != nil && r.Audit.Green() }

// Run plays the orders, prints what came of them, and audits. The last line it prints is "audit: green" or "audit: red".
// The result may be of part of the orders when the error is not nil.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if len(cfg.Orders) == 0 {
		return nil, errors.New("play: Orders is empty: there is nothing to send")
	}
	if cfg.Concurrency < 0 || cfg.Settle < 0 {
		return nil, fmt.Errorf("play: Concurrency = %d, Settle = %s: must not be negative", cfg.Concurrency, cfg.Settle)
	}
	if cfg.Addr == "" {
		cfg.Addr = DefaultAddr
	}
	if !strings.Contains(cfg.Addr, "://") {
		cfg.Addr = "http://" + cfg.Addr
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.Settle == 0 {
		cfg.Settle = DefaultSettle
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	roads := &http.Transport{MaxIdleConnsPerHost: cfg.Concurrency, IdleConnTimeout: time.Minute}
	defer roads.CloseIdleConnections()
	shop := &edge{
		http: &http.Client{Transport: roads, Timeout: 30 * time.Second},
		base: strings.TrimSuffix(cfg.Addr, "/"),
	}
	// Asked first, so that a shop that is not there is one clear error and not one for each order.
	if cfg.Audit == nil {
		books, err := shop.books(ctx, cfg.Settle)
		if err != nil {
			return nil, err
		}
		cfg.Audit = func(ctx context.Context) (*audit.Report, error) { return audit.Run(ctx, books) }
	}

	result := send(ctx, shop, cfg)
	result.print(cfg.Out)
	var err error
	if result.Audit, err = cfg.Audit(ctx); err != nil {
		_, printErr := fmt.Fprintf(cfg.Out, "FAIL  the audit could not be done: %v\naudit: red\n", err)
		return result, errors.Join(fmt.Errorf("play: audit: %w", err), printErr)
	}
	return result, result.Audit.Print(cfg.Out)
}

// books asks the shop where its data is and reads what lies there.
func (c *edge) books(ctx context.Context, settle time.Duration) (audit.Config, error) {
	var where struct {
		Data string `json:"data"`
	}
	_, err := c.persist(ctx, fewTries, func() error { return c.do(ctx, http.MethodGet, "/-/shop", "", nil, &where) })
	if err != nil {
		return audit.Config{}, fmt.Errorf("play: ask the shop at %s for its data folder: %w", c.base, err)
	}
	if where.Data == "" {
		return audit.Config{}, fmt.Errorf("play: the shop at %s does not say where its data is", c.base)
	}
	cfg, err := audit.ReadConfig(filepath.Join(where.Data, audit.FileName))
	cfg.Settle = settle
	return cfg, err
}

// outcome is what came of one order.
type outcome struct {
	status, broken string
	took           time.Duration
	retries        int
}

func send(ctx context.Context, shop *edge, cfg Config) *Result {
	run := flow.NewID()
	outcomes := make([]outcome, len(cfg.Orders))
	bar := newProgress(cfg.Out, cfg.Terminal, len(cfg.Orders))
	next := make(chan int)
	var workers sync.WaitGroup
	start := time.Now()
	for range min(cfg.Concurrency, len(cfg.Orders)) {
		workers.Go(func() {
			for i := range next {
				outcomes[i] = shop.play(ctx, fmt.Sprintf("%s-%d", run, i+1), cfg.Orders[i])
				bar.add(outcomes[i].broken != "")
			}
		})
	}
	for i := range cfg.Orders {
		next <- i
	}
	close(next)
	workers.Wait()
	bar.done()

	r := &Result{Outcomes: map[string]int{}, Took: time.Since(start)}
	var took []time.Duration
	for i, o := range outcomes {
		r.Outcomes[o.status]++
		r.Retries += o.retries
		if o.broken != "" {
			r.Broken = append(r.Broken, fmt.Sprintf("order %d: %s", i+1, o.broken))
		}
		if o.took > 0 {
			took = append(took, o.took)
		}
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		r.P50, r.P99 = took[(n-1)*50/100], took[(n-1)*99/100]
	}
	return r
}

// play sends one order, and sends it back when it asks for that.
func (c *edge) play(ctx context.Context, key string, o Order) outcome {
	const failed = "failed"
	if ctx.Err() != nil {
		return outcome{status: failed, broken: "was not sent"}
	}
	start := time.Now()
	got, retries, err := c.place(ctx, key, o)
	if err != nil {
		return outcome{status: failed, broken: err.Error(), retries: retries}
	}
	out := outcome{status: got.Status, took: time.Since(start), retries: retries}
	if got.Status != o.Expect || got.Reason != o.Reason {
		out.broken = fmt.Sprintf("%s is %s, expected %s", got.ID, word(got.Status, got.Reason), word(o.Expect, o.Reason))
		return out
	}
	if !o.Refund {
		return out
	}
	got, retries, err = c.refund(ctx, key+"-refund", got.ID)
	out.retries += retries
	if err != nil {
		out.broken = "refund: " + err.Error()
		return out
	}
	if out.status = got.Status; got.Status != o.wants() {
		out.broken = fmt.Sprintf("%s is %s, expected %s", got.ID, word(got.Status, got.Reason), o.wants())
	}
	return out
}

func word(status, reason string) string {
	if reason == "" {
		return status
	}
	return status + " (" + reason + ")"
}

func (r *Result) print(w io.Writer) {
	all := 0
	var parts []string
	for _, status := range []string{Confirmed, Cancelled, refunded, "failed"} {
		if n := r.Outcomes[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	for _, n := range r.Outcomes {
		all += n
	}
	mark := "ok  "
	if len(r.Broken) > 0 {
		mark = "FAIL"
	}
	fmt.Fprintf(w, "%d orders in %.1f s (%.0f/s), p50 %d ms, p99 %d ms, %d requests sent again\n",
		all, r.Took.Seconds(), float64(all)/r.Took.Seconds(), r.P50.Milliseconds(), r.P99.Milliseconds(), r.Retries)
	fmt.Fprintf(w, "%s  %-34s %s, %d not as expected\n", mark, "every order ends as expected", strings.Join(parts, ", "), len(r.Broken))
	for i, broken := range r.Broken {
		if i == 10 {
			fmt.Fprintf(w, "        and %d more\n", len(r.Broken)-i)
			break
		}
		fmt.Fprintf(w, "        %s\n", broken)
	}
}
