// Command resilience shows policies at work: a client calls a dependency over real
// HTTP while that is well, slow, down and well again. Once per second it prints
// what became of the calls, and each change of the breaker when it happens.
//
//	go run ./examples/resilience          # about 13 seconds
//	go run ./examples/resilience -fast    # the same, five times as fast
//
// While it runs, the metrics of the policies are on /metrics of the address it
// prints.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/armature-go/armature/resilience/promresilience"
)

func main() {
	fast := flag.Bool("fast", false, "five times as fast")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	second := time.Second
	if *fast {
		second /= 5
	}
	err := run(ctx, os.Stdout, loopback{new(net.Dialer)}, second)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// phase is how well the dependency is for a while.
type phase struct {
	name    string
	takes   time.Duration // of one answer
	fails   bool
	seconds int
}

var phases = []phase{
	{"healthy", 5 * time.Millisecond, false, 3},
	{"slow", 300 * time.Millisecond, false, 3},
	{"down", 0, true, 3},
	{"recovering", 5 * time.Millisecond, false, 4},
}

// network is where servers listen: the loopback, or memory in a test whose time is
// virtual.
type network interface {
	Listen() (net.Listener, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

type loopback struct{ *net.Dialer }

func (loopback) Listen() (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// run plays all phases; second is how long a second lasts.
func run(ctx context.Context, out io.Writer, network network, second time.Duration) error {
	var now atomic.Pointer[phase]
	now.Store(&phases[0])
	dependency, err := serve(network, flaky(&now, second))
	if err != nil {
		return err
	}
	defer dependency.Close()

	screen := &screen{out: out}
	transport := &http.Transport{DialContext: network.DialContext, MaxIdleConnsPerHost: 50}
	defer transport.CloseIdleConnections()
	client, err := newClient("http://"+dependency.Addr, &http.Client{Transport: transport}, second, screen)
	if err != nil {
		return err
	}
	metrics, err := promresilience.New(client.policy)
	if err != nil {
		return err
	}
	if err := metrics.AddBudget(client.budget); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	admin, err := serve(network, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	if err != nil {
		return err
	}
	defer admin.Close()
	screen.printf("metrics: http://%s/metrics\n\n%v\n\n", admin.Addr, client.policy.Describe())

	if err := play(ctx, client, screen, &now, second); err != nil {
		return err
	}
	return screen.metrics(ctx, client.http, "http://"+admin.Addr+"/metrics",
		"breaker_calls_total", "breaker_opened_total", "budget_refused_total", "hedge_hedges_total", "rejections_total")
}

// play sends 60 calls a second through all phases and prints a row per second.
func play(ctx context.Context, c *client, screen *screen, now *atomic.Pointer[phase], second time.Duration) error {
	load := startLoad(ctx, c, second/60)
	defer load.stop()
	screen.header()
	tick := time.NewTicker(second)
	defer tick.Stop()
	number := 0
	for i := range phases {
		now.Store(&phases[i])
		for range phases[i].seconds {
			select {
			case <-ctx.Done():
				return nil // interrupted: that is no failure
			case <-tick.C:
			}
			number++
			screen.row(number, phases[i].name, load.take(), c)
		}
	}
	return nil
}

// flaky answers as the phase says.
func flaky(now *atomic.Pointer[phase], second time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := now.Load()
		wait := time.NewTimer(time.Duration(float64(p.takes) * second.Seconds()))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
		if p.fails {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "450")
	})
}

// serve starts a server on a free port.
func serve(network network, h http.Handler) (*http.Server, error) {
	listener, err := network.Listen()
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Addr: listener.Addr().String(), Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// metrics prints the series of some metrics as Prometheus would read them.
func (s *screen) metrics(ctx context.Context, client *http.Client, url string, names ...string) error {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s.printf("\nfrom /metrics:\n")
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		for _, name := range names {
			if strings.HasPrefix(lines.Text(), "armature_resilience_"+name+"{") {
				s.printf("  %s\n", lines.Text())
			}
		}
	}
	return lines.Err()
}
