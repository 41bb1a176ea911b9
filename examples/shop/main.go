// Shop is a small online shop out of eight services, in one process, over real sockets: orders are placed over HTTP,
// settled by a saga over gRPC, and told by mail through a broker.
//
//	go run ./examples/shop                     # everything, with its data in a temporary folder
//	go run ./examples/shop -data shop-data     # … in a folder that can be used again
//	go run ./examples/shop -split              # … with every service in a process of its own, started again when it dies
//	go run ./examples/shop play orders.jsonl   # sends orders to the shop that runs, and audits it
//	go run ./examples/shop order -db=postgres://… -broker=nats://… -registry=static:…   # one service alone
//
// The first SIGINT or SIGTERM stops it in order: the gateway finishes its requests, then each service those of its
// callers, then the broker, and the companies outside the shop last. Sagas and mails that were under way go on when the
// shop is opened on the same folder again. A second signal ends the process at once; that loses nothing either.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // postgres://
	_ "modernc.org/sqlite"             // sqlite:

	"github.com/armature-go/armature"
)

func main() {
	armature.Main(func(ctx context.Context) error { return run(ctx, os.Args[1:], os.Stdout, os.Stderr) })
}

// run is main without the process: what it prints goes to out, what it logs to logs unless a flag says otherwise.
func run(ctx context.Context, args []string, out, logs io.Writer) error {
	if len(args) > 0 && args[0] == "play" {
		return playOrders(ctx, args[1:], out, logs)
	}
	o := single{options: options{logs: logs}}
	var (
		flags   = flag.NewFlagSet("shop", flag.ContinueOnError)
		logFile = flags.String("log", "", "write the log to this `file` instead of standard error")
		level   = new(slog.LevelVar)
		split   = new(bool)
		alone   string
	)
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		alone = args[0]
		if _, ok := o.find(alone); !ok {
			return fmt.Errorf("shop: do not know what to do with %q: the commands are play and the names of the services", alone)
		}
		args = args[1:]
		o.flags(flags)
	} else {
		flags.BoolVar(split, "split", false, "run every service in a process of its own")
	}
	flags.SetOutput(out)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8080", "`address` of the gateway; port 0 takes a free one")
	flags.StringVar(&o.data, "data", "", "`folder` of the databases, the broker and the ledgers (default a new temporary one)")
	flags.StringVar(&o.db, "db", "sqlite:", "database `server`: sqlite: keeps files in the data folder, postgres://… one database per service")
	flags.StringVar(&o.broker, "broker", "nats+embedded:", "`broker`: nats+embedded: keeps events in the data folder, memory: forgets them with the process")
	flags.DurationVar(&o.drainDelay, "drain-delay", 200*time.Millisecond, "how long the gateway still answers after it said that it is not ready")
	flags.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 15*time.Second, "how long requests under way may take when the shop stops; none waits longer for its order")
	flags.TextVar(level, "v", new(slog.LevelVar), "lowest `level` of the log: debug, info, warn, error")
	flags.Usage = func() {
		fmt.Fprint(out, "usage: shop [flags]\n       shop play [-addr URL] [FILE]\n       shop SERVICE [flags]\n\nflags:\n")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return fmt.Errorf("shop: %w", err)
	case flags.NArg() > 0:
		return fmt.Errorf("shop: do not know what to do with %q", strings.Join(flags.Args(), " "))
	}
	o.level = level
	if *logFile != "" {
		f, err := os.OpenFile(*logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("shop: open log: %w", err)
		}
		defer func() { _ = f.Close() }()
		o.logs = f
	}
	begin := time.Now()
	switch {
	case alone != "":
		svc, _ := o.find(alone) // once more: it takes the data folder from the flags
		return o.run(ctx, svc)
	case *split:
		sup := &supervisor{options: o.options}
		if err := openSplit(ctx, sup); err != nil {
			return err
		}
		return sup.run(ctx, func() { sup.describe(out, time.Since(begin)) })
	}
	s, err := open(ctx, o.options)
	if err != nil {
		return err
	}
	return s.run(ctx, func() { s.describe(out, time.Since(begin)) })
}
