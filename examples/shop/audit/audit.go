package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"
)

const between = 250 * time.Millisecond

// Run audits the shop of cfg, see the package. It may take a little longer than cfg.Settle.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	databases, err := openLedgers(ctx, cfg.Databases)
	defer func() { err = errors.Join(err, closeLedgers(databases)) }()
	if err != nil {
		return nil, err
	}

	start := time.Now()
	var before *Report
	since := start
	for {
		b, err := readBooks(ctx, databases, cfg.Ledgers)
		if err != nil {
			return nil, err
		}
		report, now := b.check(), time.Now()
		same := before != nil && reflect.DeepEqual(before, report)
		if !same {
			before, since = report, now
		}
		switch {
		case now.Sub(start) >= cfg.Settle,
			same && report.Green(),
			same && !b.moving() && now.Sub(since) >= cmp.Or(cfg.Still, DefaultStill):
			return report, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("audit: wait for the shop to settle: %w", context.Cause(ctx))
		case <-time.After(between):
		}
	}
}
