package logging

import (
	"errors"
	"io"
	"log/slog"
	"os"
)

// Config describes a service's logger.
type Config struct {
	// Service is written as "service" on every line. Required.
	Service string
	// Environment and Version are written as "env" and "version" unless empty.
	Environment string
	Version     string
	// Level is the lowest level written. Pass a *Level, or a *slog.LevelVar, to
	// change it at run time. Nil means slog.LevelInfo.
	Level slog.Leveler
	// Writer receives one JSON object per line, one Write call per line. Nil means
	// os.Stderr.
	Writer io.Writer
	// Redact lists words to redact beside those of DefaultRedact.
	Redact []string
}

// New returns a logger that writes JSON. It is safe for concurrent use if Writer
// is used by nobody else.
func New(cfg Config) (*slog.Logger, error) {
	if cfg.Service == "" {
		return nil, errors.New(`logging: configure logger: Service = "": must not be empty; name the service as it is called in discovery`)
	}
	if cfg.Writer == nil {
		cfg.Writer = os.Stderr
	}
	attrs := []slog.Attr{slog.String("service", cfg.Service)}
	if cfg.Environment != "" {
		attrs = append(attrs, slog.String("env", cfg.Environment))
	}
	if cfg.Version != "" {
		attrs = append(attrs, slog.String("version", cfg.Version))
	}
	inner := slog.NewJSONHandler(cfg.Writer, &slog.HandlerOptions{Level: cfg.Level})
	return slog.New(NewHandler(inner.WithAttrs(attrs), cfg.Redact...)), nil
}
