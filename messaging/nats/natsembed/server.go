package natsembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats"
)

// Config configures an embedded server. StoreDir is required.
type Config struct {
	// StoreDir is the folder of the message files; it is created when missing.
	StoreDir string
	// SyncInterval is how often files are synced to the disk. 0 syncs every write before it is acknowledged. With an
	// interval, writes are many times faster, a crash of the process still loses nothing, but a power loss or a crash
	// of the machine loses what was acknowledged since the last sync, up to one interval.
	SyncInterval time.Duration
	// Listen is a host:port on a loopback address for clients in other processes, such as the nats command line tool.
	// Port 0 takes a free one. Empty opens no port. There is no authentication, hence the loopback rule.
	//
	// Such a client may outlive this server with messages in its hands. A server that listens therefore leaves their leases
	// alone when it starts again: what was held is delivered again when its lease lapses, possibly after newer messages of
	// the same key. A server that does not listen knows that nobody holds anything, and delivers it at once and in order.
	Listen string
	// MaxPayload bounds a message with its headers, in bytes; 8 MiB.
	MaxPayload int32
	// MaxStore bounds the folder, in bytes; 0 leaves it to the server: three quarters of the free space.
	MaxStore int64

	// MaxAge, Duplicates, Window: see nats.Config. Lease is 5 s here, since with the process its handlers die too.
	MaxAge     time.Duration
	Duplicates time.Duration
	Lease      time.Duration
	Window     int

	Source         string                 // see messaging.Config
	Logger         *slog.Logger           // nil is silent
	TracerProvider trace.TracerProvider   // nil makes no spans
	Middleware     []messaging.Middleware // around every handler
}

// Server is a running server with a broker on it. It is safe for concurrent use.
type Server struct {
	ns     *natsserver.Server
	broker *messaging.Broker
	unlock func() error

	close    sync.Once
	closeErr error
}

// ParseURL returns the folder of a URL of the form "nats+embedded:DIR".
func ParseURL(url string) (dir string, err error) {
	dir, ok := strings.CutPrefix(url, "nats+embedded:")
	if !ok || dir == "" {
		return "", fmt.Errorf("natsembed: URL %q must have the form nats+embedded:DIR", url)
	}
	return dir, nil
}

// Open starts a server and returns when its broker is ready, after milliseconds unless there is much to recover. ctx is
// for the start only.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("natsembed: field StoreDir is empty, name the folder for the message files")
	}
	if cfg.SyncInterval < 0 {
		return nil, fmt.Errorf("natsembed: field SyncInterval is %s, must be positive, or 0 to sync every write", cfg.SyncInterval)
	}
	if cfg.MaxPayload == 0 {
		cfg.MaxPayload = 8 << 20
	}
	if cfg.MaxPayload < 0 || cfg.MaxPayload > 64<<20 {
		return nil, fmt.Errorf("natsembed: field MaxPayload is %d, must be 1 to %d bytes", cfg.MaxPayload, 64<<20)
	}
	if cfg.MaxStore < 0 {
		return nil, fmt.Errorf("natsembed: field MaxStore is %d, must be positive, or 0 for three quarters of the free space", cfg.MaxStore)
	}
	if cfg.Lease == 0 {
		cfg.Lease = 5 * time.Second
	}
	host, port, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("natsembed: open: %w", err)
	}
	unlock, err := lock(cfg.StoreDir)
	if err != nil {
		return nil, fmt.Errorf("natsembed: open: folder %q is in use by another server: %w", cfg.StoreDir, err)
	}
	options := &natsserver.Options{
		ServerName:             "armature",
		DontListen:             cfg.Listen == "",
		Host:                   host,
		Port:                   port,
		JetStream:              true,
		StoreDir:               cfg.StoreDir,
		JetStreamMaxStore:      cfg.MaxStore,
		SyncAlways:             cfg.SyncInterval == 0,
		SyncInterval:           cfg.SyncInterval,
		MaxPayload:             cfg.MaxPayload,
		MaxPending:             max(64<<20, 2*int64(cfg.MaxPayload)),
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
	}
	s := &Server{unlock: unlock}
	if err := s.start(ctx, options, cfg); err != nil {
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
		}
		return nil, errors.Join(err, unlock())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, options *natsserver.Options, cfg Config) error {
	ns, err := natsserver.NewServer(options)
	if err != nil {
		return fmt.Errorf("natsembed: open: %w", err)
	}
	s.ns = ns
	if cfg.Logger != nil {
		ns.SetLoggerV2(logger{cfg.Logger.With("component", "nats-server")}, false, false, false)
	}
	ns.Start()
	timeout := 30 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	if !ns.ReadyForConnections(timeout) || !ns.JetStreamEnabled() {
		return fmt.Errorf("natsembed: open: server with folder %q did not get ready; is the folder writable and the port free? Config.Logger tells more", cfg.StoreDir)
	}
	nc, err := natsgo.Connect("", natsgo.InProcessServer(ns), natsgo.Name("armature"), natsgo.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("natsembed: open: %w", err)
	}
	s.broker, err = nats.New(ctx, nc, nats.Config{
		MaxAge: cfg.MaxAge, Duplicates: cfg.Duplicates, Lease: cfg.Lease, Window: cfg.Window,
		Source: cfg.Source, Logger: cfg.Logger, TracerProvider: cfg.TracerProvider, Middleware: cfg.Middleware,
	})
	if err == nil && cfg.Listen == "" {
		err = expireLeases(ctx, nc)
	}
	if err != nil {
		nc.Close()
	}
	return err
}

// expireLeases makes every unacknowledged message due at once. Whoever held them ended with the server before this one;
// without this they would come when their leases lapse, after newer messages of the same keys.
func expireLeases(ctx context.Context, nc *natsgo.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("natsembed: open: %w", err)
	}
	type held struct {
		stream string
		cfg    jetstream.ConsumerConfig
	}
	var all []held
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		stream, err := js.Stream(ctx, info.Config.Name)
		if err != nil {
			return fmt.Errorf("natsembed: open: stream %q: %w", info.Config.Name, err)
		}
		consumers := stream.ListConsumers(ctx)
		for c := range consumers.Info() {
			if c.NumAckPending > 0 {
				all = append(all, held{info.Config.Name, c.Config})
			}
		}
		if err := consumers.Err(); err != nil {
			return fmt.Errorf("natsembed: open: consumers of %q: %w", info.Config.Name, err)
		}
	}
	if err := streams.Err(); err != nil {
		return fmt.Errorf("natsembed: open: list streams: %w", err)
	}
	if len(all) == 0 {
		return nil
	}
	// A shorter lease makes the server look at them after 100 ms.
	setLease := func(short time.Duration) error {
		for _, h := range all {
			if short > 0 {
				h.cfg.AckWait = short
			}
			if _, err := js.UpdateConsumer(ctx, h.stream, h.cfg); err != nil {
				return fmt.Errorf("natsembed: open: consumer %q of %q: %w", h.cfg.Durable, h.stream, err)
			}
		}
		return nil
	}
	if err := setLease(10 * time.Millisecond); err != nil {
		return err
	}
	select {
	case <-time.After(300 * time.Millisecond):
	case <-ctx.Done():
		return fmt.Errorf("natsembed: open: %w", ctx.Err())
	}
	return setLease(0)
}

func listen(addr string) (host string, port int, err error) {
	if addr == "" {
		return "", 0, nil
	}
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("natsembed: field Listen is %q, must be host:port", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("natsembed: field Listen is %q, must be a loopback address such as 127.0.0.1:4222, because clients are not authenticated", addr)
	}
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	return host, port, nil
}

// Broker returns the broker. It is closed by Close.
func (s *Server) Broker() *messaging.Broker { return s.broker }

// URL returns the address for clients in other processes, "" unless Config.Listen was given.
func (s *Server) URL() string {
	if s.ns.Addr() == nil {
		return ""
	}
	return "nats://" + s.ns.Addr().String()
}

// Close drains and closes the broker within ctx (see messaging.Broker.Close), then stops the server and waits for it.
// It is idempotent.
func (s *Server) Close(ctx context.Context) error {
	s.close.Do(func() {
		err := s.broker.Close(ctx)
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
		s.closeErr = errors.Join(err, s.unlock())
	})
	return s.closeErr
}

// logger passes the server's lines on. Its notices are routine here.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Debugf(string, ...any)           {}
func (l logger) Tracef(string, ...any)           {}
