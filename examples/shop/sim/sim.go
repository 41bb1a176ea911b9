package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Config of a world.
type Config struct {
	// Dir holds the ledgers; made when missing.
	Dir string
	// Addr is where the card processor listens, "127.0.0.1:0" when empty. With a port the carrier takes the next one and
	// the mail server the one after.
	Addr string
	// Logger is silent when nil.
	Logger *slog.Logger
	// Faults are random, on top of what tokens and addresses ask for.
	Faults Faults
}

// Faults are random failures of every server, the same for the same Seed and order of requests.
type Faults struct {
	// FailBefore is the probability (0 to 1) that a request is answered 503 and has no effect.
	FailBefore float64
	// FailAfter is the probability (0 to 1) that a request has its effect and is answered 500.
	FailAfter float64
	// Delay is the longest random wait before a request is looked at.
	Delay time.Duration
	Seed  uint64
}

func (f Faults) validate() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"FailBefore", f.FailBefore}, {"FailAfter", f.FailAfter}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("sim: Faults.%s is %v: must be a probability from 0 to 1", p.name, p.value)
		}
	}
	if f.Delay < 0 {
		return fmt.Errorf("sim: Faults.Delay is %s: must not be negative", f.Delay)
	}
	return nil
}

// URLs are the base URLs of a world, without a trailing slash.
type URLs struct{ Card, Carrier, Mail string }

// Sim is a running world. It is safe for concurrent use.
type Sim struct {
	urls    URLs
	servers []*http.Server
	ledgers []*ledger
	serving sync.WaitGroup

	stop    sync.Once
	stopErr error
}

// New opens the ledgers, listens and serves until Shutdown.
func New(cfg Config) (_ *Sim, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("sim: Dir is empty: name the folder of the ledgers")
	}
	if err := cfg.Faults.validate(); err != nil {
		return nil, err
	}
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	host, portText, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("sim: Addr %q: want host:port: %w", cfg.Addr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("sim: Addr %q: want a port number: %w", cfg.Addr, err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("sim: make folder: %w", err)
	}

	s := new(Sim)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Shutdown(context.Background()))
		}
	}()
	for i, server := range []struct {
		name, ledger string
		routes       func(*books) map[string]http.HandlerFunc
		url          *string
	}{
		{"card", CardLedger, cardRoutes, &s.urls.Card},
		{"carrier", CarrierLedger, carrierRoutes, &s.urls.Carrier},
		{"mail", MailLedger, mailRoutes, &s.urls.Mail},
	} {
		l, entries, err := openLedger(filepath.Join(cfg.Dir, server.ledger))
		if err != nil {
			return nil, err
		}
		s.ledgers = append(s.ledgers, l)
		b := newBooks(l, entries, newDice(cfg.Faults, uint64(i)))
		mux := http.NewServeMux()
		for path, h := range server.routes(b) {
			mux.HandleFunc("POST "+path, h)
		}

		own := port
		if own != 0 {
			own += uint64(i)
		}
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.FormatUint(own, 10)))
		if err != nil {
			return nil, fmt.Errorf("sim: listen for the %s server: %w", server.name, err)
		}
		*server.url = "http://" + listener.Addr().String()
		hs := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute}
		s.servers = append(s.servers, hs)
		s.serving.Go(func() {
			if err := hs.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				cfg.Logger.Error("simulator stopped", "server", server.name, "error", err)
			}
		})
	}
	return s, nil
}

// URLs says where the servers listen.
func (s *Sim) URLs() URLs { return s.urls }

// Shutdown answers the requests under way, until ctx ends, and closes the ledgers. A second call waits for the first
// and returns its error.
func (s *Sim) Shutdown(ctx context.Context) error {
	s.stop.Do(func() {
		var errs []error
		for _, server := range s.servers {
			if err := server.Shutdown(ctx); err != nil {
				errs = append(errs, fmt.Errorf("sim: shut down: %w", err), server.Close())
			}
		}
		s.serving.Wait()
		for _, l := range s.ledgers {
			errs = append(errs, l.close())
		}
		s.stopErr = errors.Join(errs...)
	})
	return s.stopErr
}
