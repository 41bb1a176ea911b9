package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestOrderPerKeyUnderFailures(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		const keys, each = 7, 15
		var mu sync.Mutex
		failed := map[string]int{}
		b := &broker{refuse: func(_ string, m *messaging.Message) error {
			mu.Lock()
			defer mu.Unlock()
			// Every third message fails once, every fifth three times.
			n := slices.IndexFunc([]byte(m.ID), func(c byte) bool { return c == '/' })
			var i int
			if _, err := fmt.Sscan(m.ID[n+1:], &i); err != nil {
				return err
			}
			failed[m.ID]++
			if i%3 == 0 && failed[m.ID] <= 1 || i%5 == 0 && failed[m.ID] <= 3 {
				return errRefused
			}
			return nil
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Batch = 20 })
		want := map[string][]string{}
		for i := range each {
			for k := range keys {
				key := fmt.Sprint("key-", k)
				id := fmt.Sprint(key, "/", i)
				want[key] = append(want[key], id)
				publish(t, box, db, "orders", keyed(key, id)...)
			}
			publish(t, box, db, "orders", keyed("", fmt.Sprint("none/", i))...)
		}
		run(t, box, db)
		b.await(t, (keys+1)*each)
		awaitEmpty(t, box, db)
		got := map[string][]string{}
		for _, s := range b.messages() {
			if s.msg.Key != "" {
				got[s.msg.Key] = append(got[s.msg.Key], s.msg.ID)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("per key (-written +sent):\n%s", diff)
		}
		if len(b.ids()) != (keys+1)*each {
			t.Errorf("%d sent, want %d", len(b.ids()), (keys+1)*each)
		}
	})
}

func TestPoisonParksItsKeyAndDies(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		var poisoned atomic.Bool
		poisoned.Store(true)
		var attempts atomic.Int32
		b := &broker{refuse: func(topic string, m *messaging.Message) error {
			if m.ID == "poison" && poisoned.Load() {
				attempts.Add(1)
				return errRefused
			}
			return nil
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) {
			c.MaxAttempts = 3
			// Long enough that the others are seen to pass by.
			c.Backoff, c.MaxBackoff = 300*time.Millisecond, 300*time.Millisecond
			c.Batch = 2 // what waits behind the poison would fill the batch
		})
		publish(t, box, db, "orders", keyed("a", "poison", "a2", "a3", "a4")...)
		publish(t, box, db, "orders", keyed("b", "b1")...)
		publish(t, box, db, "mail", keyed("a", "other topic")...)
		run(t, box, db)

		first := b.await(t, 2)[:2]
		slices.Sort(first)
		if diff := cmp.Diff([]string{"b1", "other topic"}, first); diff != "" {
			t.Errorf("did not pass the parked key by (-want +got):\n%s", diff)
		}
		if s := stats(t, box, db); s.Parked != 1 || s.Dead != 0 {
			t.Errorf("%+v, want one parked row", s)
		}
		if diff := cmp.Diff([]string{"a2", "a3", "a4"}, b.await(t, 5)[2:]); diff != "" {
			t.Errorf("after the death of the poison (-want +got):\n%s", diff)
		}
		awaitEmpty(t, box, db)
		dead, err := box.Dead(t.Context(), db.DB, 10)
		if err != nil || len(dead) != 1 {
			t.Fatalf("dead %v, %v; want the poison", dead, err)
		}
		if d := dead[0]; d.Message.ID != "poison" || d.Topic != "orders" || d.Message.Key != "a" || d.Attempts != 3 || d.Reason != "refused" || d.DiedAt.Before(d.Written) {
			t.Errorf("dead message %+v", d)
		}
		if attempts.Load() != 3 {
			t.Errorf("%d attempts, want 3", attempts.Load())
		}

		poisoned.Store(false)
		if n, err := box.Redrive(t.Context(), db.DB, dead[0].Row+1000); err != nil || n != 0 {
			t.Errorf("redrove %d, %v; want none of that number", n, err)
		}
		if n, err := box.Redrive(t.Context(), db.DB, dead[0].Row); err != nil || n != 1 {
			t.Errorf("redrove %d, %v; want 1", n, err)
		}
		if got := b.await(t, 6)[5]; got != "poison" {
			t.Errorf("sent %q after the redrive", got)
		}
		if n := stats(t, box, db).Dead; n != 0 {
			t.Errorf("%d dead after the redrive", n)
		}
	})
}

func TestHopelessMessageDiesAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{refuse: func(_ string, m *messaging.Message) error {
			if m.ID == "poison" {
				return messaging.Permanent(errRefused)
			}
			return nil
		}}
		box := newOutbox(t, db, b)
		publish(t, box, db, "orders", keyed("a", "poison", "a2")...)
		run(t, box, db)
		b.await(t, 1)
		awaitEmpty(t, box, db)
		if dead, err := box.Dead(t.Context(), db.DB, 10); err != nil || len(dead) != 1 || dead[0].Attempts != 1 {
			t.Errorf("dead %+v, %v; want the poison after one attempt", dead, err)
		}
	})
}

// A publisher that answers for a call as a whole must not make the neighbours
// of a poison message suffer.
func TestOneBadMessageInACallOfMany(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{before: func(_ context.Context, msgs []*messaging.Message) error {
			if slices.ContainsFunc(msgs, func(m *messaging.Message) bool { return m.ID == "poison" }) {
				return errRefused
			}
			return nil
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.MaxAttempts = 1 })
		publish(t, box, db, "orders", keyed("", "a", "poison", "b", "c")...)
		run(t, box, db)
		if diff := cmp.Diff([]string{"a", "b", "c"}, b.await(t, 3)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		awaitEmpty(t, box, db)
		if n := stats(t, box, db).Dead; n != 1 {
			t.Errorf("%d dead, want the poison alone", n)
		}
	})
}

func TestRowEditedByHandDoesNotStopTheRest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b)
		publish(t, box, db, "orders", keyed("", "broken", "a")...)
		if _, err := db.ExecContext(t.Context(), "UPDATE armature_outbox SET headers = '{' WHERE msg_id = 'broken'"); err != nil {
			t.Fatal(err)
		}
		run(t, box, db)
		b.await(t, 1)
		awaitEmpty(t, box, db)
		if dead, err := box.Dead(t.Context(), db.DB, 10); err != nil || len(dead) != 1 || !strings.Contains(dead[0].Reason, "decode headers") {
			t.Errorf("dead %+v, %v; want the broken row with its reason", dead, err)
		}
	})
}

type openBreaker struct{}

func (openBreaker) Error() string     { return "breaker open" }
func (openBreaker) NotExecuted() bool { return true }

func TestOutageCountsForNobody(t *testing.T) {
	t.Parallel()
	outages := map[string]func(b *broker) (messaging.Publisher, error){
		"ping fails":   func(b *broker) (messaging.Publisher, error) { return pinged{b}, errRefused },
		"not executed": func(b *broker) (messaging.Publisher, error) { return b, openBreaker{} },
	}
	onBoth(t, func(t *testing.T, db database) {
		for name, outage := range outages {
			var calls atomic.Int32
			b := &broker{before: func(context.Context, []*messaging.Message) error { calls.Add(1); return nil }}
			p, err := outage(b)
			b.setDown(err)
			box := newOutbox(t, db, p, func(c *outbox.Config) { c.MaxAttempts = 1 })
			publish(t, box, db, "orders", keyed("a", "a1", "a2")...)
			publish(t, box, db, "orders", keyed("", "b1", "b2")...)
			stop := run(t, box, db)
			eventually(t, "three attempts", func() bool { return calls.Load() >= 3 })
			if s := stats(t, box, db); s.Pending != 4 || s.Parked != 0 || s.Dead != 0 {
				t.Errorf("%s: %+v, want all four pending as if nothing had happened", name, s)
			}
			b.setDown(nil)
			b.await(t, 4)
			awaitEmpty(t, box, db)
			stop()
		}
	})
}

// The relay loses its database in the moment the broker has stored the message:
// what a crash between publish and delete leaves behind.
func TestCrashBetweenPublishAndDelete(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		dying, _, err := sqldb.Open(t.Context(), db.url)
		if err != nil {
			t.Fatal(err)
		}
		var logs syncBuffer
		b := &broker{}
		b.after = sync.OnceFunc(func() { _ = dying.Close() })
		first := newOutbox(t, db, b, func(c *outbox.Config) { c.Lease, c.Logger = time.Second, logs.logger() })
		publish(t, first, db, "orders", keyed("a", "a1", "a2", "a3")...)
		stop := run(t, first, database{dying, db.dialect, db.url})
		// Without a database it is alone with what it knows: it can finish its batch, not another.
		b.await(t, 1)

		second := newOutbox(t, db, b, func(c *outbox.Config) { c.Lease = time.Second })
		run(t, second, db)
		awaitEmpty(t, second, db)
		stop()
		// At least once, each with its ID, and in order when repetitions are dropped.
		seen := map[string]bool{}
		var order []string
		for _, id := range b.ids() {
			if !seen[id] {
				order = append(order, id)
			}
			seen[id] = true
		}
		if diff := cmp.Diff([]string{"a1", "a2", "a3"}, order); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := len(b.ids()); n <= 3 || n > 6 {
			t.Errorf("sent %v: want repetitions, and at most one each", b.ids())
		}
		if !strings.Contains(logs.String(), "will try again") {
			t.Error("nothing was logged")
		}
	})
}

func TestTwoRelaysOneWorks(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		const writers, each = 4, 25
		var inside, most atomic.Int32
		b := &broker{
			before: func(context.Context, []*messaging.Message) error {
				most.Store(max(most.Load(), inside.Add(1)))
				return nil
			},
			after: func() { inside.Add(-1) },
		}
		for range 2 {
			run(t, newOutbox(t, db, b), db)
		}
		box := newOutbox(t, db, nil)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				key := fmt.Sprint("key-", w)
				for i := range each {
					err := box.InTx(context.Background(), db.DB, func(ctx context.Context, tx *sql.Tx) error {
						return box.Publish(ctx, tx, "orders", keyed(key, fmt.Sprintf("%s/%02d", key, i))...)
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		awaitEmpty(t, box, db)
		if got := len(b.ids()); got != writers*each {
			t.Errorf("%d sent, want %d: each once", got, writers*each)
		}
		if most.Load() != 1 {
			t.Errorf("%d calls at once on one topic, want 1", most.Load())
		}
		last := map[string]string{}
		for _, s := range b.messages() {
			if s.msg.ID <= last[s.msg.Key] {
				t.Errorf("%s after %s", s.msg.ID, last[s.msg.Key])
			}
			last[s.msg.Key] = s.msg.ID
		}
	})
}

func TestHandoverWhenOneStops(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		first, second := &broker{}, &broker{}
		// With an hour's lease only a proper release lets the other one in.
		hour := func(c *outbox.Config) { c.Lease = time.Hour }
		one := newOutbox(t, db, first, hour)
		stop := run(t, one, db)
		publish(t, one, db, "orders", keyed("", "a")...)
		first.await(t, 1)
		two := newOutbox(t, db, second, hour)
		run(t, two, db)
		publish(t, one, db, "orders", keyed("", "b")...)
		first.await(t, 2)
		stop()
		publish(t, one, db, "orders", keyed("", "c")...)
		if got := second.await(t, 1); got[0] != "c" {
			t.Errorf("the second relay sent %v, want what was left", got)
		}
		if len(first.ids()) != 2 {
			t.Errorf("the stopped relay sent %v", first.ids())
		}
	})
}

// A relay whose lease is taken while the broker answers must stop sending at
// once and leave everything to the new one.
func TestLostLeaseStopsSending(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		entered, cut := make(chan struct{}), make(chan error, 1)
		b := &broker{before: func(ctx context.Context, _ []*messaging.Message) error {
			close(entered)
			select {
			case <-ctx.Done():
				cut <- context.Cause(ctx)
				return ctx.Err()
			case <-time.After(patience):
				cut <- errors.New("never cut")
				return nil
			}
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Lease = time.Second; c.MaxAttempts = 1 })
		publish(t, box, db, "orders", keyed("a", "a1", "a2")...)
		run(t, box, db)
		<-entered
		if _, err := db.ExecContext(t.Context(), "UPDATE armature_outbox_lease SET owner = 'thief', epoch = epoch + 1, expires_at = 9000000000000000"); err != nil {
			t.Fatal(err)
		}
		if err := <-cut; err == nil || !strings.Contains(err.Error(), "lease: lost") {
			t.Errorf("sending ended because of %v, want the lost lease", err)
		}
		if s := stats(t, box, db); s.Pending != 2 || s.Parked != 0 || s.Dead != 0 {
			t.Errorf("%+v, want both rows untouched", s)
		}
	})
}

func TestStopWritesDownWhatWasSent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		entered, release := make(chan struct{}), make(chan struct{})
		b := &broker{before: func(ctx context.Context, _ []*messaging.Message) error {
			close(entered) // a second call would panic
			<-release
			return ctx.Err() // the broker's answer still counts
		}}
		box := newOutbox(t, db, b)
		publish(t, box, db, "orders", keyed("a", "a1", "a2")...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- box.Run(ctx, db.DB) }()
		<-entered
		cancel()
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"a1"}, b.ids()); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
		if n := stats(t, box, db).Pending; n != 1 {
			t.Errorf("%d rows, want the one that was not sent", n)
		}
	})
}

// The following are exact about time, so they run in a bubble, on SQLite. A
// short poll would make a virtual minute cost thousands of real statements.

func inBubble(t *testing.T, run func(t *testing.T, db database)) {
	t.Parallel()
	url := testsvc.SQLite(t)
	synctest.Test(t, func(t *testing.T) { run(t, open(t, url)) })
}

func TestWakeNeedsNoPoll(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Poll = time.Hour })
		stop := run(t, box, db)
		defer stop()
		for i := range 5 {
			time.Sleep(time.Minute) // the relay is idle now
			synctest.Wait()
			begun := time.Now()
			publish(t, box, db, "orders", keyed("", fmt.Sprint(i))...)
			b.await(t, i+1)
			if took := time.Since(begun); took > 10*time.Millisecond {
				t.Errorf("message %d took %v, want none of the poll's hour", i, took)
			}
		}
	})
}

func TestPollFindsWhatNobodyAnnounced(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		b := &broker{}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Poll = time.Second })
		stop := run(t, box, db)
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := box.Publish(t.Context(), db.DB, "orders", keyed("", "a")...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1250 * time.Millisecond) // the poll and its quarter
		synctest.Wait()
		if len(b.ids()) != 1 {
			t.Error("not found within a poll")
		}
	})
}

func TestParkedRowIsTriedWhenDue(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		var tries []time.Time
		b := &broker{refuse: func(string, *messaging.Message) error {
			tries = append(tries, time.Now())
			if len(tries) < 5 {
				return errRefused
			}
			return nil
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) {
			c.Poll, c.Backoff, c.MaxBackoff = 24*time.Hour, time.Second, 3*time.Second
		})
		publish(t, box, db, "orders", keyed("", "a")...)
		stop := run(t, box, db)
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(tries) != 5 {
			t.Fatalf("%d tries in a minute, want 5", len(tries))
		}
		for i, want := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			// The delay is spread by a quarter and kept in milliseconds.
			if got := tries[i+1].Sub(tries[i]); got < want*3/4-time.Millisecond || got > want*5/4+2*time.Millisecond {
				t.Errorf("delay %d is %v, want about %v", i+1, got, want)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		var tries []time.Time
		b := &broker{refuse: func(string, *messaging.Message) error {
			if tries = append(tries, time.Now()); len(tries) == 1 {
				return messaging.RetryAfter(40*time.Second, errRefused)
			}
			return nil
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Poll = time.Hour })
		publish(t, box, db, "orders", keyed("", "a")...)
		stop := run(t, box, db)
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(tries) != 2 {
			t.Fatalf("%d tries, want 2", len(tries))
		}
		if got := tries[1].Sub(tries[0]).Round(time.Second); got != 40*time.Second {
			t.Errorf("tried again after %v, want the 40s the broker asked for", got)
		}
	})
}

// A relay that dies without a word is replaced when its lease has ended, not before.
func TestTakeoverAfterDeath(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		dying, _, err := sqldb.Open(t.Context(), db.url)
		if err != nil {
			t.Fatal(err)
		}
		lease := func(c *outbox.Config) { c.Lease, c.Poll = 10*time.Second, time.Second }
		b := &broker{}
		stop := run(t, newOutbox(t, db, b, lease), database{dying, db.dialect, db.url})
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := dying.Close(); err != nil {
			t.Fatal(err)
		}
		box := newOutbox(t, db, b, lease)
		stopSecond := run(t, box, db)
		defer stopSecond()
		publish(t, box, db, "orders", keyed("", "a")...)
		time.Sleep(6 * time.Second) // the dead relay renewed at most 3.3s before it died
		synctest.Wait()
		if n := len(b.ids()); n != 0 {
			t.Errorf("%d sent while the lease still holds", n)
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if n := len(b.ids()); n != 1 {
			t.Errorf("%d sent after the lease ended, want 1", n)
		}
	})
}

// The thief's lease is seen at the next renewal, long before our own would end.
func TestLostLeaseIsSeenAtTheNextRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		var stolen time.Time
		cut := make(chan time.Duration, 1)
		b := &broker{before: func(ctx context.Context, _ []*messaging.Message) error {
			<-ctx.Done()
			cut <- time.Since(stolen)
			return ctx.Err()
		}}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.Lease, c.Poll = 30*time.Second, time.Second })
		publish(t, box, db, "orders", keyed("", "a")...)
		stop := run(t, box, db)
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		stolen = time.Now()
		if _, err := db.ExecContext(t.Context(), "UPDATE armature_outbox_lease SET owner = 'thief', epoch = epoch + 1, expires_at = 9000000000000000"); err != nil {
			t.Fatal(err)
		}
		if took := <-cut; took > 10*time.Second {
			t.Errorf("sent on for %v after the lease was lost, want at most a third of its 30s", took)
		}
	})
}

// A publisher that ignores everything but its context cannot hold Run back for ever.
func TestStopIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, db database) {
		b := &broker{before: func(ctx context.Context, _ []*messaging.Message) error { <-ctx.Done(); return ctx.Err() }}
		box := newOutbox(t, db, b, func(c *outbox.Config) { c.MaxAttempts = 1 })
		publish(t, box, db, "orders", keyed("", "a")...)
		stop := run(t, box, db)
		time.Sleep(time.Minute) // the lease is renewed all the while
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("Run returned after %v, want the grace of 5s", took)
		}
		if s := stats(t, box, db); s.Pending != 1 || s.Parked != 0 || s.Dead != 0 {
			t.Errorf("%+v, want the row untouched", s)
		}
	})
}
