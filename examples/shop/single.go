package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats"
)

// single is what one service that runs alone is told beside the options of a shop.
type single struct {
	options
	registry            string // URL of where the others are
	admin, node         string
	card, carrier, mail string
	// guard ends the process at once when standard input does.
	guard bool
}

// flags declares what only a service that runs alone is told.
func (o *single) flags(f *flag.FlagSet) {
	f.StringVar(&o.registry, "registry", "static:", "where the other services are, as in `static:order=HOST:PORT;user=HOST:PORT`")
	f.StringVar(&o.admin, "admin", "127.0.0.1:0", "`address` of /metrics, /health and /ready")
	f.StringVar(&o.node, "node", "", "`name` of this copy of the service, the same after a restart")
	f.StringVar(&o.card, "card", "", "`URL` of the card processor")
	f.StringVar(&o.carrier, "carrier", "", "`URL` of the carrier")
	f.StringVar(&o.mail, "mail", "", "`URL` of the mail server")
	f.BoolVar(&o.guard, "guard", false, "end at once when standard input does")
}

// exitOrphaned is the exit code of a service whose supervisor has gone.
const exitOrphaned = 3

// find returns how the service called name is built.
func (o *options) find(name string) (service, bool) {
	all := append(behindTheEdge(), service{gatewayName, openGateway(o.data)})
	i := slices.IndexFunc(all, func(s service) bool { return s.name == name })
	if i < 0 {
		return service{}, false
	}
	return all[i], true
}

// run serves until ctx ends.
func (o *single) run(ctx context.Context, svc service) (err error) {
	if o.guard {
		// The supervisor holds the other end. Without it there is no broker left, and nobody outside to talk to.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(exitOrphaned)
		}()
	}
	if err := o.prepare(); err != nil {
		return err
	}
	cfg := platform.Config{
		Addr: o.addr, AdminAddr: o.admin, Node: o.node,
		LogWriter: o.logs, LogLevel: o.level, Exporter: exporter(), ShutdownTimeout: o.shutdownTimeout,
		CardURL: o.card, CarrierURL: o.carrier, MailURL: o.mail,
	}
	if svc.name == gatewayName {
		cfg.DrainDelay = o.drainDelay
	} else if cfg.DB, err = o.ownDatabase(ctx, svc.name); err != nil {
		return err
	}
	if cfg.Registry, err = neighbours(o.registry, svc.name); err != nil {
		return err
	}
	if cfg.Broker, err = o.remoteBroker(ctx); err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), armature.DefaultShutdownTimeout)
		defer cancel()
		err = errors.Join(err, cfg.Broker.Close(closing))
	}()
	running, err := svc.open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("shop: open %s: %w", svc.name, err)
	}
	return armature.RunAll(ctx, running)
}

// databaseVariable names the URL of a service's own database. It is no flag, because anybody can read the arguments of a
// process and the URL may hold a password.
const databaseVariable = "SHOP_DATABASE"

// ownDatabase is what the environment names, or the file that -db names, or this service's database of the server that
// it names.
func (o *single) ownDatabase(ctx context.Context, name string) (string, error) {
	if url := os.Getenv(databaseVariable); url != "" {
		return url, nil
	}
	if path, ok := strings.CutPrefix(o.db, "sqlite:"); ok && path != "" {
		return o.db, nil
	}
	return o.database(ctx, name)
}

func (o *single) remoteBroker(ctx context.Context) (*messaging.Broker, error) {
	if !strings.HasPrefix(o.broker, "nats://") {
		return nil, fmt.Errorf("shop: broker %q cannot be shared with other processes: give nats://HOST:PORT", o.broker)
	}
	log, err := o.logger("broker")
	if err != nil {
		return nil, err
	}
	// What a service held when it died comes again after the lease, and it is back sooner than that.
	return nats.Open(ctx, o.broker, nats.Config{Logger: log, Lease: 2 * time.Second})
}

// neighbours is the registry that url names without the service itself, which announces itself when it is ready.
func neighbours(url, self string) (*static.Registry, error) {
	all, err := static.Open(url)
	if err != nil {
		return nil, fmt.Errorf("shop: -registry: %w", err)
	}
	var others []discovery.Instance
	for name, snap := range all.Services() {
		if name != self {
			others = append(others, snap.Instances...)
		}
	}
	return static.New(static.Config{Instances: others})
}
