package play

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Main is the command "play [-addr URL] [-settle 30s] [-concurrency 8] [FILE]": args are what follows its name, embedded
// is played when no FILE is given. It returns the exit code: 0 only when every order ended as expected and the audit is
// green, 1 when not, 2 when nothing was sent because the arguments or the file are wrong.
func Main(ctx context.Context, args []string, embedded []byte, stdout, stderr io.Writer) int {
	var cfg Config
	flags := flag.NewFlagSet("play", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Addr, "addr", DefaultAddr, "base `URL` of the shop's edge")
	flags.DurationVar(&cfg.Settle, "settle", DefaultSettle, "how long the audit waits for the shop to come to rest")
	flags.IntVar(&cfg.Concurrency, "concurrency", DefaultConcurrency, "orders under way at once")
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: play [flags] [FILE]\n\nSends the orders of FILE (one JSON object a line; without it the shop's own) and audits the shop.\n\n")
		flags.PrintDefaults()
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 1:
		fmt.Fprintf(stderr, "play: one FILE at most, got %q (flags come before it)\n", flags.Args())
		return 2
	}
	if cfg.Orders, err = read(flags.Arg(0), embedded); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	cfg.Out, cfg.Terminal = stdout, isTerminal(stdout)
	result, err := Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, err)
		if result == nil {
			return 2
		}
		return 1
	}
	if !result.OK() {
		return 1
	}
	return 0
}

func read(path string, embedded []byte) ([]Order, error) {
	if path == "" {
		return Parse(bytes.NewReader(embedded))
	}
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("play: %w", err)
	}
	defer func() { _ = file.Close() }()
	orders, err := Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return orders, nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
