package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/internal/failpoint"
	"github.com/armature-go/armature/internal/lease"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
)

const (
	// grace is how long, after the end of Run's context, the broker may still
	// answer and the database may still take down what it answered.
	grace = 5 * time.Second
	// maxPause bounds the wait between attempts while the broker or the database is away.
	maxPause = 5 * time.Second
	// topicsAtOnce bounds how many topics of a batch are sent side by side.
	topicsAtOnce = 8
)

// Run relays until ctx ends and then returns nil. It outlives outages of the
// database and of the broker. When ctx ends it starts no new call, gives the one
// under way five seconds to be answered, writes down the result and gives up
// the lease. It returns an error at once when there is nothing to relay to, and
// when this Outbox is already running.
func (o *Outbox) Run(ctx context.Context, db *sql.DB) error {
	switch {
	case o.cfg.Publisher == nil:
		return fmt.Errorf("outbox: run: %w", errNoPublisher)
	case db == nil:
		return errors.New("outbox: run: the database is nil")
	case !o.running.CompareAndSwap(false, true):
		return errors.New("outbox: run: already running: one Run per Outbox is enough")
	}
	defer o.running.Store(false)

	var failures int
	for ctx.Err() == nil {
		held, err := o.lease.Acquire(ctx, db)
		switch {
		case err != nil:
			failures++
			o.complain(ctx, "outbox: the database does not answer", err)
			pause(ctx, growing(failures), nil)
		case held == nil:
			failures = 0
			pause(ctx, jitter(min(o.cfg.Poll, o.cfg.Lease/4)), nil)
		default:
			failures = 0
			o.lead(ctx, db, held)
		}
	}
	return nil
}

// lead relays while the lease is held.
func (o *Outbox) lead(ctx context.Context, db *sql.DB, held *lease.Held) {
	o.cfg.Logger.InfoContext(ctx, "outbox: relaying", "owner", o.cfg.Owner, "epoch", held.Epoch())
	// Sending outlives ctx by the grace and ends at once with the lease.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	keeper.Go(func() { o.keep(ctx, work, stop, db, held) })
	defer func() {
		lost := errors.Is(context.Cause(work), lease.ErrLost)
		stop(nil)
		keeper.Wait()
		if lost {
			o.cfg.Logger.WarnContext(ctx, "outbox: lease lost, stopped relaying", "owner", o.cfg.Owner, "epoch", held.Epoch())
			return
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if err := held.Release(clean, db); err != nil {
			o.complain(clean, "outbox: lease not given back, the next relay waits for its end", err)
		}
	}()

	idle, stopIdle := context.WithCancel(ctx) // ends with ctx or with the lease
	defer stopIdle()
	defer context.AfterFunc(work, stopIdle)()

	r := relay{Outbox: o, db: db, held: held, mayPark: true}
	var failures int
	for idle.Err() == nil {
		wait, err := r.pass(ctx, work)
		switch {
		case idle.Err() != nil:
		case err != nil:
			if errors.Is(err, lease.ErrLost) {
				stop(lease.ErrLost)
				return
			}
			failures++
			o.complain(ctx, "outbox: relay is held up, will try again", err)
			// Commits must not hammer a broker that is away.
			pause(idle, growing(failures), nil)
		default:
			failures = 0
			if wait > 0 {
				pause(idle, wait, o.wake)
			}
		}
	}
}

// keep renews the lease and ends work when the lease or, after ctx, the grace does.
func (o *Outbox) keep(ctx, work context.Context, stop context.CancelCauseFunc, db *sql.DB, held *lease.Held) {
	// A timer of its own: a renewal may hang.
	expiry := time.AfterFunc(time.Until(held.Until()), func() { stop(lease.ErrLost) })
	defer expiry.Stop()
	renew := time.NewTicker(o.cfg.Lease / 3)
	defer renew.Stop()
	end := time.NewTimer(0)
	<-end.C
	defer end.Stop()
	ended := ctx.Done()
	for {
		select {
		case <-work.Done():
			return
		case <-ended:
			ended = nil
			end.Reset(grace)
		case <-end.C:
			stop(context.Cause(ctx))
			return
		case <-renew.C:
			limited, cancel := context.WithTimeout(work, o.cfg.Lease/3)
			err := held.Renew(limited, db)
			cancel()
			switch {
			case err == nil:
				expiry.Reset(time.Until(held.Until()))
			case errors.Is(err, lease.ErrLost):
				stop(lease.ErrLost)
				return
			case work.Err() == nil:
				o.complain(work, "outbox: lease not renewed, will try again", err)
			}
		}
	}
}

// relay is the state of one leadership.
type relay struct {
	*Outbox
	db      *sql.DB
	held    *lease.Held
	sent    []int64 // rows that are stored by the broker and not deleted yet
	mayPark bool    // parked rows may exist
}

// pass sends one batch and writes down what became of it. It returns how long
// to wait for the next one, or an error when the broker or the database is away.
func (r *relay) pass(ctx, work context.Context) (time.Duration, error) {
	// Rows that could not be deleted before would be sent again.
	if err := r.forget(ctx); err != nil {
		return 0, err
	}
	rows, err := r.store.next(work, r.db, time.Now(), r.cfg.Batch)
	if err != nil {
		return 0, err
	}
	if len(rows) == 0 {
		return r.idle(work)
	}
	results := r.send(ctx, work, rows)

	var refused []*result
	var away error
	for _, res := range results {
		switch {
		case !res.tried:
		case res.err == nil:
			r.sent = append(r.sent, res.row.id)
		case res.away:
			away = res.err
		default:
			refused = append(refused, res)
		}
		r.span(ctx, res)
	}
	// Deleting what was sent is right whoever holds the lease now.
	err = r.forget(ctx)
	if len(refused) > 0 {
		err = errors.Join(err, r.record(ctx, refused))
	}
	if away != nil {
		err = errors.Join(err, fmt.Errorf("the broker is away: %w", away))
	}
	return 0, err
}

// idle returns the time until the next look at the table.
func (r *relay) idle(ctx context.Context) (time.Duration, error) {
	wait := jitter(r.cfg.Poll)
	if !r.mayPark {
		return wait, nil
	}
	due, err := r.store.parked(ctx, r.db)
	switch {
	case err != nil:
		return 0, err
	case due.IsZero():
		r.mayPark = false
	default:
		wait = min(wait, max(time.Until(due), time.Millisecond))
	}
	return wait, nil
}

// forget deletes the rows that were sent.
func (r *relay) forget(ctx context.Context) error {
	if len(r.sent) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := r.store.remove(ctx, r.db, r.sent); err != nil {
		return err
	}
	failpoint.Hit("outbox: deleted")
	r.sent = r.sent[:0]
	return nil
}

// record parks or buries the refused rows, unless another relay has them now.
func (r *relay) record(ctx context.Context, refused []*result) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	r.mayPark = true
	return sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) error {
		if err := r.held.Fence(ctx, tx); err != nil {
			return err
		}
		now := time.Now()
		for _, res := range refused {
			row, attempts := res.row, res.row.attempts+1
			attrs := []any{"topic", row.topic, "message_id", row.msg.ID, "attempt", attempts, "error", res.err}
			if attempts >= r.cfg.MaxAttempts || permanent(res.err) {
				r.cfg.Logger.ErrorContext(ctx, "outbox: message refused for good, moved to the dead ones", attrs...)
				if err := r.store.bury(ctx, tx, row.id, attempts, now, clip(res.err)); err != nil {
					return err
				}
				continue
			}
			delay := r.delay(attempts, res.err)
			r.cfg.Logger.WarnContext(ctx, "outbox: message refused, its key waits", append(attrs, "retry_in", delay)...)
			if err := r.store.park(ctx, tx, row.id, attempts, now.Add(delay), clip(res.err)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *relay) delay(attempts int, err error) time.Duration {
	var asked interface{ RetryAfter() (time.Duration, bool) }
	if errors.As(err, &asked) {
		if d, ok := asked.RetryAfter(); ok {
			return max(d, time.Millisecond)
		}
	}
	d := r.cfg.Backoff
	for i := 1; i < attempts && d < r.cfg.MaxBackoff; i++ {
		d *= 2
	}
	return jitter(min(d, r.cfg.MaxBackoff))
}

// result is what became of a row in one pass.
type result struct {
	row   *row
	tried bool
	away  bool // the broker is to blame, not the message
	err   error
}

// send publishes the rows: topics side by side, and within a topic in waves
// that hold at most one message per key, so that a message is sent only when
// the one before it is stored.
func (r *relay) send(ctx, work context.Context, rows []*row) []*result {
	results := make([]*result, len(rows))
	topics := map[string][]*result{}
	for i, row := range rows {
		results[i] = &result{row: row}
		if row.broken != nil {
			results[i].tried, results[i].err = true, messaging.Permanent(row.broken)
			continue
		}
		topics[row.topic] = append(topics[row.topic], results[i])
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, topicsAtOnce)
	for topic, list := range topics {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			failed := map[string]bool{} // keys
			for _, wave := range waves(list) {
				if ctx.Err() != nil || work.Err() != nil {
					return
				}
				var ready []*result
				for _, res := range wave {
					if !failed[res.row.msg.Key] {
						ready = append(ready, res)
					}
				}
				if len(ready) == 0 {
					continue
				}
				r.call(work, topic, ready)
				for _, res := range ready {
					switch {
					case res.away:
						return
					case res.err != nil && res.row.msg.Key != "":
						failed[res.row.msg.Key] = true
					}
				}
			}
		})
	}
	wg.Wait()
	return results
}

// waves splits rows of one topic so that no wave has two of one key.
func waves(list []*result) [][]*result {
	var out [][]*result
	depth := map[string]int{}
	for _, res := range list {
		wave := 0
		if key := res.row.msg.Key; key != "" {
			wave = depth[key]
			depth[key]++
		}
		if wave == len(out) {
			out = append(out, nil)
		}
		out[wave] = append(out[wave], res)
	}
	return out
}

// call publishes the messages of one wave and fills in their results.
func (r *relay) call(work context.Context, topic string, wave []*result) {
	msgs := make([]*messaging.Message, len(wave))
	for i, res := range wave {
		msgs[i] = res.row.msg
	}
	err := r.cfg.Publisher.Publish(work, topic, msgs...)
	failpoint.Hit("outbox: published")
	for i, cause := range perMessage(err, len(wave)) {
		wave[i].tried, wave[i].err = true, cause
	}
	failed := slices.DeleteFunc(slices.Clone(wave), func(res *result) bool { return res.err == nil })
	switch {
	case len(failed) == 0:
	case r.away(work, err):
		for _, res := range failed {
			res.away = true
		}
	case len(failed) == len(wave) && len(wave) > 1:
		// One bad message can fail a whole call; alone, each answers for itself.
		for i, res := range wave {
			if r.call(work, topic, []*result{res}); res.away {
				for _, rest := range wave[i+1:] {
					rest.away = true
				}
				return
			}
		}
	}
}

func perMessage(err error, n int) []error {
	errs := make([]error, n)
	var each *messaging.PublishError
	if errors.As(err, &each) && len(each.Errs) == n {
		copy(errs, each.Errs)
		return errs
	}
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// away decides whether a failed call tells of the broker or of the messages.
func (r *relay) away(work context.Context, err error) bool {
	if work.Err() != nil {
		return true // we cut it short ourselves
	}
	var skipped interface{ NotExecuted() bool }
	if errors.As(err, &skipped) && skipped.NotExecuted() {
		return true
	}
	broker, ok := r.cfg.Publisher.(interface{ Ping(context.Context) error })
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(work, grace)
	defer cancel()
	return broker.Ping(ctx) != nil
}

func permanent(err error) bool {
	var r interface{ Retryable() bool }
	return errors.As(err, &r) && !r.Retryable()
}

// span shows in the sender's trace how long the message waited in the outbox.
func (r *relay) span(ctx context.Context, res *result) {
	if !res.tried || res.away {
		return
	}
	ctx = w3c.Extract(ctx, propagation.MapCarrier(res.row.msg.Header))
	_, span := r.tracer.Start(ctx, "relay "+res.row.topic, trace.WithTimestamp(res.row.created), trace.WithAttributes(
		attribute.String("armature.outbox.message_id", res.row.msg.ID),
		attribute.Int("armature.outbox.attempt", res.row.attempts+1)))
	if res.err != nil {
		span.SetStatus(codes.Error, "refused by the broker")
		span.RecordError(res.err)
	}
	span.End()
}

func (o *Outbox) complain(ctx context.Context, text string, err error) {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		o.cfg.Logger.WarnContext(ctx, text, "error", err)
	}
}

// clip makes an error fit for a text column of any database.
func clip(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(strings.ReplaceAll(text[:min(len(text), 1000)], "\x00", ""), "")
}

// jitter spreads d by a quarter either way, so that processes drift apart.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}

func growing(failures int) time.Duration {
	d := maxPause
	if failures < 7 {
		d = min(d, 50*time.Millisecond<<failures)
	}
	return jitter(d)
}

// pause waits for d, ctx or a wake-up.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}
