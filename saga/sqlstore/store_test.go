package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/saga/sqlstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func onEachDatabase(t *testing.T, run func(t *testing.T, s *sqlstore.Store)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			db, d, err := sqldb.Open(t.Context(), url(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: d})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, s)
		})
	}
}

func record(id, node string, nodeEpoch int64) saga.Record {
	now := time.Now()
	return saga.Record{ID: id, Name: "order", Version: 1, Hash: 7, Status: saga.Running, Node: node, NodeEpoch: nodeEpoch,
		Epoch: 1, Seq: 1, Header: map[string]string{"traceparent": "x"}, Created: now, Updated: now}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *sqlstore.Store) {
		ctx := t.Context()
		r := record("o-1", "n", 1)
		if err := s.Create(ctx, nil, r, []byte(`{"a":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, nil, r, nil); !errors.Is(err, saga.ErrExists) {
			t.Errorf("second create: %v", err)
		}
		entry := func(seq, epoch int64) saga.Entry {
			return saga.Entry{SagaID: "o-1", Seq: seq, Epoch: epoch, Kind: saga.EntryDone, Step: 0, Name: "a",
				Body: []byte{0, 0xff}, Time: time.UnixMilli(1234)}
		}
		if err := s.Append(ctx, entry(2, 1), saga.Running); err != nil {
			t.Fatal(err)
		}
		for name, e := range map[string]saga.Entry{
			"same number": entry(2, 1), "gap": entry(4, 1), "old epoch": entry(3, 0), "new epoch": entry(3, 2),
			"no such saga": {SagaID: "none", Seq: 2, Epoch: 1, Kind: saga.EntryDone, Time: time.Now()},
		} {
			if err := s.Append(ctx, e, saga.Completed); !errors.Is(err, saga.ErrFenced) {
				t.Errorf("%s: %v, want ErrFenced", name, err)
			}
		}
		got, entries, err := s.Load(ctx, "o-1")
		if err != nil {
			t.Fatal(err)
		}
		if got.Seq != 2 || got.Status != saga.Running || got.Header["traceparent"] != "x" || len(entries) != 2 ||
			!slices.Equal(entries[1].Body, []byte{0, 0xff}) || !entries[1].Time.Equal(time.UnixMilli(1234)) {
			t.Errorf("loaded %+v %+v", got, entries)
		}
		if _, _, err := s.Load(ctx, "none"); !errors.Is(err, saga.ErrNotFound) {
			t.Errorf("load: %v", err)
		}
		boom := errors.New("boom")
		err = s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := s.AppendTx(ctx, tx, entry(3, 1), saga.Completed); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if counts, err := s.Count(ctx); err != nil || counts[saga.Running] != 1 {
			t.Errorf("a rolled back record counts: %v %v", counts, err)
		}
	})
}

func TestLeasesAndTakeOver(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *sqlstore.Store) {
		ctx := t.Context()
		first, err := s.Join(ctx, "n", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, nil, record("mine", "n", first), nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, nil, record("nobody's", "", 0), nil); err != nil {
			t.Fatal(err)
		}
		list := func(ids []string, err error) []string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(ids)
			return ids
		}
		if got := list(s.Owned(ctx, "n", first, 10)); !slices.Equal(got, []string{"mine"}) {
			t.Errorf("owned = %v", got)
		}
		if got := list(s.Orphans(ctx, 10)); !slices.Equal(got, []string{"nobody's"}) {
			t.Errorf("orphans = %v", got)
		}
		second, err := s.Join(ctx, "n", time.Hour)
		if err != nil || second <= first {
			t.Fatalf("epoch %d after %d, %v", second, first, err)
		}
		if err := s.Renew(ctx, "n", first, time.Hour); !errors.Is(err, saga.ErrFenced) {
			t.Errorf("an old incarnation renewed its lease: %v", err)
		}
		if got := list(s.Orphans(ctx, 10)); !slices.Equal(got, []string{"mine", "nobody's"}) {
			t.Errorf("orphans after a restart = %v", got)
		}
		r, _, err := s.Load(ctx, "mine")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		won := make(chan error, 4)
		for range 4 {
			wg.Go(func() { won <- s.TakeOver(ctx, r, "n", second) })
		}
		wg.Wait()
		close(won)
		winners := 0
		for err := range won {
			if err == nil {
				winners++
			} else if !errors.Is(err, saga.ErrFenced) {
				t.Error(err)
			}
		}
		if winners != 1 {
			t.Errorf("%d coordinators took the saga over, want 1", winners)
		}
		stale := saga.Entry{SagaID: "mine", Seq: 2, Epoch: 1, Kind: saga.EntryDone, Time: time.Now()}
		if err := s.Append(ctx, stale, saga.Completed); !errors.Is(err, saga.ErrFenced) {
			t.Errorf("the one that was replaced wrote: %v", err)
		}
		r, entries, err := s.Load(ctx, "mine")
		if err != nil || r.Epoch != 2 || r.Seq != 2 || entries[1].Kind != saga.EntryTakeover || !entries[1].Unknown {
			t.Errorf("%+v %+v %v", r, entries, err)
		}
		if err := s.Leave(ctx, "n", second); err != nil {
			t.Fatal(err)
		}
		if got := list(s.Orphans(ctx, 10)); len(got) != 2 {
			t.Errorf("orphans after leaving = %v", got)
		}
	})
}

func TestAppendsShareCommitsAndFencingSpoilsNothing(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *sqlstore.Store) {
		ctx := t.Context()
		const n = 40
		for i := range n {
			if err := s.Create(ctx, nil, record(fmt.Sprint("o-", i), "n", 1), nil); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				e := saga.Entry{SagaID: fmt.Sprint("o-", i), Seq: 2, Epoch: 1, Kind: saga.EntryDone, Time: time.Now()}
				if i%4 == 0 {
					e.Epoch = 0
				}
				err := s.Append(ctx, e, saga.Completed)
				if want := i%4 == 0; errors.Is(err, saga.ErrFenced) != want || (!want && err != nil) {
					t.Errorf("o-%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		counts, err := s.Count(ctx)
		if err != nil || counts[saga.Completed] != n*3/4 || counts[saga.Running] != n/4 {
			t.Errorf("%v %v", counts, err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, cfg := range []sqlstore.Config{{}, {DB: &sql.DB{}}, {DB: &sql.DB{}, Dialect: sqlstore.SQLite, TablePrefix: "x y"}} {
		if _, err := sqlstore.New(cfg); err == nil {
			t.Errorf("%+v passed", cfg)
		}
	}
}
