package armature

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminServer serves the operator's pages on an address of their own, so that
// none is reachable from where the requests come from.
type adminServer struct {
	addr string
	http *http.Server
	ln   net.Listener
}

func newAdminServer(addr string, h http.Handler) *adminServer {
	life, end := context.WithCancel(context.Background())
	a := &adminServer{addr: addr, http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // a profile extends it
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return life },
	}}
	a.http.RegisterOnShutdown(end) // a profile being taken ends early
	return a
}

func (a *adminServer) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", a.addr)
	if err != nil {
		return err
	}
	a.ln = ln
	return nil
}

func (a *adminServer) Addr() string {
	if a.ln == nil {
		return a.addr
	}
	return a.ln.Addr().String()
}

func (a *adminServer) Serve() error {
	if err := a.http.Serve(a.ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *adminServer) Drain() {}

// Shutdown also closes a listener that was never served.
func (a *adminServer) Shutdown(ctx context.Context) error {
	err := a.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.http.Close())
	}
	if a.ln != nil {
		_ = a.ln.Close() // closed already when it was served
	}
	return err
}

// pages are the three that every service has, in detail or for strangers to see.
func (s *Service) pages(detail bool) []page {
	return []page{
		{"GET /health", "the process lives, whatever its dependencies do", s.healthHandler(detail)},
		{"GET /ready", "requests are welcome: the checks and their results", s.readyHandler(detail)},
		{"GET /metrics", "Prometheus metrics", promhttp.InstrumentMetricHandler(s.Metrics, promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{
			Registry: s.Metrics, EnableOpenMetrics: true,
		}))},
	}
}
