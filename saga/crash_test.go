package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

// dyingStore lets a process die at its k-th durable write: before it, so that
// nothing was written, or after it, so that it was written and nobody heard.
type dyingStore struct {
	*sqlstore.Store
	mu    sync.Mutex
	left  int
	after bool
	dead  bool
	die   func()
}

var errDead = errors.New("the process is dead")

func (s *dyingStore) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errDead
	}
	s.left--
	if s.left > 0 {
		return do()
	}
	s.dead = true
	defer s.die()
	if s.after {
		_ = do()
	}
	return errDead
}

func (s *dyingStore) Append(ctx context.Context, e saga.Entry, status saga.Status) error {
	return s.write(func() error { return s.Store.Append(ctx, e, status) })
}

func (s *dyingStore) InTx(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	return s.write(func() error { return s.Store.InTx(ctx, fn) })
}

func (s *dyingStore) TakeOver(ctx context.Context, r saga.Record, node string, epoch int64) error {
	return s.write(func() error { return s.Store.TakeOver(ctx, r, node, epoch) })
}

func (s *dyingStore) Leave(context.Context, string, int64) error { return errDead }

// participant keeps its effects in a table behind a barrier, as a service would.
type participant struct {
	db      *sql.DB
	barrier *saga.Barrier
}

func newParticipant(t testing.TB, db *sql.DB) *participant {
	t.Helper()
	b, err := saga.NewBarrier(saga.BarrierConfig{Dialect: saga.SQLite})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (step TEXT, delta INTEGER)"); err != nil {
		t.Fatal(err)
	}
	return &participant{db, b}
}

// handle is what a server would do with the key that arrived.
func (p *participant) handle(ctx context.Context, step string, answer error) error {
	base, op := saga.ParseKey(flow.OutgoingIdempotencyKey(ctx))
	delta := 1
	if op == saga.OpUndo {
		delta = -1
	}
	err := sqldb.InTx(ctx, p.db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := p.barrier.Do(ctx, tx, base, op, func(ctx context.Context) ([]byte, error) {
			if answer != nil {
				return nil, answer
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES (?, ?)", step, delta)
			return nil, err
		})
		return err
	})
	return err
}

func (p *participant) net(t testing.TB) map[string]string {
	t.Helper()
	rows, err := p.db.QueryContext(t.Context(), "SELECT step, SUM(delta), COUNT(*) FROM effects GROUP BY step")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	net := map[string]string{}
	for rows.Next() {
		var step string
		var sum, n int
		if err := rows.Scan(&step, &sum, &n); err != nil {
			t.Fatal(err)
		}
		net[step] = fmt.Sprintf("%d of %d", sum, n)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return net
}

// TestCrashAtEveryWrite kills the coordinator at each durable write of a saga,
// on both sides of the write, lets its successor die as well, and looks at what
// the participants are left with.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	for _, refuse := range []string{"", "b", "c"} {
		for _, after := range []bool{false, true} {
			for k := 1; k <= 8; k++ {
				for second := 1; second <= 3; second++ {
					name := fmt.Sprintf("refuse=%s/after=%t/write=%d/second=%d", refuse, after, k, second)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) { crashAt(t, refuse, after, k, second) })
					})
				}
			}
		}
	}
}

func crashAt(t *testing.T, refuse string, after bool, k, second int) {
	store, db := openStore(t)
	defer func() { _ = db.Close() }()
	p := newParticipant(t, db)
	step := func(name string) saga.StepOf[order] {
		return saga.Step(name, func(ctx context.Context, _ *order) error {
			if name == refuse {
				return p.handle(ctx, name, errNo)
			}
			return p.handle(ctx, name, nil)
		})
	}
	undo := func(name string) func(context.Context, *order) error {
		return func(ctx context.Context, _ *order) error { return p.handle(ctx, name, nil) }
	}
	local := func(delta int) func(context.Context, *sql.Tx, *order) error {
		return func(ctx context.Context, tx *sql.Tx, _ *order) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ('local', ?)", delta)
			return err
		}
	}
	def, err := saga.Define("order", 1,
		saga.LocalStep("local", local(1)).UndoTx(local(-1)),
		step("a").Undo(undo("a")), step("b").Undo(undo("b")), step("c").Undo(undo("c")).Pivot(), step("d"))
	if err != nil {
		t.Fatal(err)
	}
	// The starter is not the one that dies.
	starter, err := saga.NewCoordinator(saga.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if err := saga.Register(starter, def); err != nil {
		t.Fatal(err)
	}
	if err := saga.Start(t.Context(), starter, def, "o-1", &order{}); err != nil {
		t.Fatal(err)
	}
	live := func(s saga.Store, died <-chan struct{}) {
		c, stop := start(t, saga.Config{Store: s, Node: "n", LeaseTTL: 5 * time.Second}, def)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			_, _ = c.Wait(ctx, "o-1")
		}()
		select {
		case <-died:
			cancel()
		case <-finished:
		}
		<-finished
	}
	for _, at := range []int{k, second} {
		died := make(chan struct{})
		live(&dyingStore{Store: store, left: at, after: after, die: func() { close(died) }}, died)
	}
	live(store, nil)

	info, err := starter.Get(t.Context(), "o-1")
	if err != nil {
		t.Fatal(err)
	}
	net := p.net(t)
	switch info.Status {
	case saga.Completed:
		if refuse != "" {
			t.Errorf("completed although %s was refused", refuse)
		}
		for _, s := range []string{"local", "a", "b", "c", "d"} {
			if net[s] != "1 of 1" {
				t.Errorf("completed, and the effect of %s is %q: %v", s, net[s], net)
			}
		}
	case saga.Compensated:
		if refuse == "" {
			t.Error("compensated although nothing was refused")
		}
		for s, n := range net {
			if !strings.HasPrefix(n, "0 ") {
				t.Errorf("compensated, and the effect of %s is %s", s, n)
			}
		}
	default:
		t.Errorf("status %s", info.Status)
	}
}

// TestFrozenCoordinatorIsFenced freezes a coordinator inside a step for longer
// than its lease, lets another one finish the saga, and thaws the first.
func TestFrozenCoordinatorIsFenced(t *testing.T) {
	t.Parallel()
	for _, refusedForSecond := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused=%t", refusedForSecond), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, db := openStore(t)
				defer func() { _ = db.Close() }()
				p := newParticipant(t, db)
				thaw := make(chan struct{})
				calls := 0
				var mu sync.Mutex
				def, err := saga.Define("order", 1,
					saga.Step("a", func(ctx context.Context, _ *order) error { return p.handle(ctx, "a", nil) }).
						Undo(func(ctx context.Context, _ *order) error { return p.handle(ctx, "a", nil) }),
					saga.Step("b", func(ctx context.Context, _ *order) error {
						mu.Lock()
						calls++
						first := calls == 1
						mu.Unlock()
						if first {
							<-thaw // deaf to its context, as a stopped process is
							return p.handle(context.WithoutCancel(ctx), "b", nil)
						}
						if refusedForSecond {
							return p.handle(ctx, "b", errNo)
						}
						return p.handle(ctx, "b", nil)
					}).Undo(func(ctx context.Context, _ *order) error { return p.handle(ctx, "b", nil) }))
				if err != nil {
					t.Fatal(err)
				}
				frozen := &frozenStore{Store: store}
				first, stopFirst := start(t, saga.Config{Store: frozen, Node: "first", LeaseTTL: 5 * time.Second}, def)
				if err := saga.Start(t.Context(), first, def, "o-1", &order{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // virtual: until b is stuck
				frozen.freeze()
				second, stopSecond := start(t, saga.Config{Store: store, Node: "second", LeaseTTL: 5 * time.Second}, def)
				defer stopSecond()
				info, err := second.Wait(t.Context(), "o-1")
				if err != nil {
					t.Fatal(err)
				}
				want := saga.Completed
				if refusedForSecond {
					want = saga.Compensated
				}
				if info.Status != want || info.Node != "second" {
					t.Errorf("%s by %s, want %s by second", info.Status, info.Node, want)
				}
				close(thaw)
				frozen.thaw()
				time.Sleep(time.Minute) // virtual: the thawed one does its worst
				stopFirst()
				after, err := second.Get(t.Context(), "o-1")
				if err != nil || after.Seq != info.Seq || after.Status != info.Status {
					t.Errorf("the frozen coordinator wrote: %d entries and %s, before %d and %s (%v)", after.Seq, after.Status, info.Seq, info.Status, err)
				}
				for step, n := range p.net(t) {
					if want == saga.Completed && n != "1 of 1" || want == saga.Compensated && !strings.HasPrefix(n, "0 ") {
						t.Errorf("%s, and the effect of %s is %s", want, step, n)
					}
				}
			})
		})
	}
}

// frozenStore stops answering heartbeats, as for a process that is stopped.
type frozenStore struct {
	*sqlstore.Store
	mu    sync.Mutex
	stuck chan struct{}
}

func (s *frozenStore) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = make(chan struct{})
}

func (s *frozenStore) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.stuck)
	s.stuck = nil
}

func (s *frozenStore) Renew(ctx context.Context, node string, epoch int64, ttl time.Duration) error {
	s.mu.Lock()
	stuck := s.stuck
	s.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	return s.Store.Renew(ctx, node, epoch, ttl)
}
