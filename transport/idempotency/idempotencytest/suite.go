// Package idempotencytest checks that a store does what [idempotency.Store] promises.
//
//	func TestConformance(t *testing.T) {
//		idempotencytest.Run(t, func(t *testing.T) idempotency.Store {
//			return must(mystore.New(mystore.Config{DB: open(t)}))
//		})
//	}
//
// Each test opens a store of its own. Leases are a fraction of a second long, and no test
// depends on how late it sees that one has ended: a slow machine makes none fail.
package idempotencytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport/idempotency"
)

// Run runs the suite. open returns a new store that is empty, and closes it at the end of
// the test it was given.
func Run(t *testing.T, open func(t *testing.T) idempotency.Store) {
	t.Helper()
	for _, tt := range []struct {
		name string
		run  func(*testing.T, idempotency.Store)
	}{
		{"one of many claims wins", oneWins},
		{"a record is kept as it is", recordIsKept},
		{"a record belongs to its owner", recordIsOwned},
		{"a released id is free", released},
		{"a claim ends with its lease", leaseEnds},
		{"a prolonged claim stays", prolonged},
		{"a record runs out", recordRunsOut},
		{"duplicates at two processes run once", runOnce},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

const (
	id    = "id-0"
	short = 50 * time.Millisecond
	long  = time.Hour
)

func claim(t *testing.T, s idempotency.Store, id, owner string, lease time.Duration) idempotency.Entry {
	t.Helper()
	e, err := s.Claim(t.Context(), id, idempotency.Claim{Owner: owner, Fingerprint: printOf(owner), Lease: lease})
	if err != nil {
		t.Fatalf("Claim(%q, %q) = %v", id, owner, err)
	}
	return e
}

func printOf(owner string) (p idempotency.Fingerprint) {
	copy(p[:], owner+"\x00\xff'")
	return p
}

func mustClaim(t *testing.T, s idempotency.Store, id, owner string, lease time.Duration) {
	t.Helper()
	if e := claim(t, s, id, owner, lease); !e.Claimed {
		t.Fatalf("Claim(%q, %q) = %+v, want it claimed", id, owner, e)
	}
}

// mustHold checks that id is owner's and holds record, by the eyes of somebody else.
func mustHold(t *testing.T, s idempotency.Store, id, owner string, record []byte) {
	t.Helper()
	e := claim(t, s, id, "stranger", long)
	if e.Claimed || e.Fingerprint != printOf(owner) || (e.Record == nil) != (record == nil) || !bytes.Equal(e.Record, record) {
		t.Fatalf("Claim(%q) = {%t, %q, %d bytes}, want that of %s with %d bytes", id, e.Claimed, e.Fingerprint, len(e.Record), owner, len(record))
	}
}

func keep(t *testing.T, s idempotency.Store, id, owner string, record []byte, d time.Duration, want error) {
	t.Helper()
	if err := s.Keep(t.Context(), id, owner, record, d); !errors.Is(err, want) || (want == nil && err != nil) {
		t.Fatalf("Keep(%q, %q, %d bytes) = %v, want %v", id, owner, len(record), err, want)
	}
}

func release(t *testing.T, s idempotency.Store, id, owner string) {
	t.Helper()
	if err := s.Release(t.Context(), id, owner); err != nil {
		t.Fatalf("Release(%q, %q) = %v", id, owner, err)
	}
}

// claimWhenFree claims id for owner as soon as it is free, and returns when that was.
func claimWhenFree(t *testing.T, s idempotency.Store, id, owner string) time.Time {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		if claim(t, s, id, owner, long).Claimed {
			return time.Now()
		}
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%q is not free after a minute", id)
		}
	}
}

func oneWins(t *testing.T, s idempotency.Store) {
	const n = 50
	entries, failures := make([]idempotency.Entry, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			owner := fmt.Sprint("owner-", i)
			entries[i], failures[i] = s.Claim(t.Context(), id, idempotency.Claim{Owner: owner, Fingerprint: printOf("same"), Lease: long})
		})
	}
	all.Wait()
	winners := 0
	for i, e := range entries {
		switch {
		case failures[i] != nil:
			t.Errorf("claim %d: %v", i, failures[i])
		case e.Claimed:
			winners++
		case e.Fingerprint != printOf("same") || e.Record != nil:
			t.Errorf("claim %d found %+v", i, e)
		}
	}
	if winners != 1 {
		t.Errorf("%d claims won, want 1", winners)
	}
}

func recordIsKept(t *testing.T, s idempotency.Store) {
	for i, record := range [][]byte{{0}, []byte("\x00\xff'\"\\?$1\r\n"), bytes.Repeat([]byte{0xa5}, 1<<20)} {
		id := fmt.Sprint("id-", i)
		mustClaim(t, s, id, "owner", long)
		mustHold(t, s, id, "owner", nil)
		keep(t, s, id, "owner", record, long, nil)
		mustHold(t, s, id, "owner", record)
	}
}

func recordIsOwned(t *testing.T, s idempotency.Store) {
	mustClaim(t, s, id, "owner", long)
	keep(t, s, id, "stranger", []byte("theirs"), long, idempotency.ErrLost)
	keep(t, s, id, "stranger", nil, long, idempotency.ErrLost)
	release(t, s, id, "stranger")
	mustHold(t, s, id, "owner", nil)

	keep(t, s, id, "owner", []byte("first"), long, nil)
	keep(t, s, id, "owner", []byte("first"), long, nil) // again, after an answer that was lost
	keep(t, s, id, "stranger", []byte("theirs"), long, idempotency.ErrLost)
	keep(t, s, id, "owner", nil, short, idempotency.ErrLost) // a late attempt to prolong must not shorten
	release(t, s, id, "owner")
	mustHold(t, s, id, "owner", []byte("first"))

	keep(t, s, "id-never", "owner", []byte("x"), long, idempotency.ErrLost)
	mustClaim(t, s, "id-never", "owner", long) // Keep has made nothing
}

func released(t *testing.T, s idempotency.Store) {
	release(t, s, id, "owner")
	mustClaim(t, s, id, "owner", long)
	release(t, s, id, "owner")
	keep(t, s, id, "owner", nil, long, idempotency.ErrLost)
	keep(t, s, id, "owner", []byte("late"), long, idempotency.ErrLost)
	mustClaim(t, s, id, "other", long)
	mustHold(t, s, id, "other", nil)
}

func leaseEnds(t *testing.T, s idempotency.Store) {
	asked := time.Now()
	mustClaim(t, s, id, "dead", short)
	// Clocks of other machines count whole milliseconds.
	if free := claimWhenFree(t, s, id, "heir").Sub(asked); free < short-2*time.Millisecond {
		t.Errorf("the lease of %v ended after %v", short, free)
	}
	keep(t, s, id, "dead", nil, long, idempotency.ErrLost)
	keep(t, s, id, "dead", []byte("late"), long, idempotency.ErrLost)
	release(t, s, id, "dead")
	mustHold(t, s, id, "heir", nil)

	mustClaim(t, s, "id-1", "dead", short)
	mustClaim(t, s, "id-2", "later", short)
	claimWhenFree(t, s, "id-2", "heir") // so that of id-1 has ended too, and nobody has taken it over
	keep(t, s, "id-1", "dead", []byte("late"), long, idempotency.ErrLost)
	mustClaim(t, s, "id-1", "heir", long)
}

func prolonged(t *testing.T, s idempotency.Store) {
	for i := range 100 { // whoever is slower than the lease tries again
		id := fmt.Sprint("id-", i)
		mustClaim(t, s, id, "owner", short)
		err := s.Keep(t.Context(), id, "owner", nil, long)
		if errors.Is(err, idempotency.ErrLost) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		mustClaim(t, s, "later", "owner", short)
		claimWhenFree(t, s, "later", "other")
		mustHold(t, s, id, "owner", nil)
		return
	}
	t.Fatal("no claim could be prolonged")
}

func recordRunsOut(t *testing.T, s idempotency.Store) {
	mustClaim(t, s, id, "owner", long)
	keep(t, s, id, "owner", []byte("old"), short, nil)
	claimWhenFree(t, s, id, "other")
	mustHold(t, s, id, "other", nil)
}

// runOnce has one Keys for each process, which knows nothing of the other's calls.
func runOnce(t *testing.T, s idempotency.Store) {
	var runs atomic.Int64
	var processes []func(context.Context, string) (string, error)
	for range 2 {
		keys, err := idempotency.New(idempotency.Config{Store: s, Wait: time.Minute, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, idempotency.Once(keys, "test.Greet", func(_ context.Context, name string) (string, error) {
			return fmt.Sprintf("hello %s, visitor %d", name, runs.Add(1)), nil
		}))
	}
	ctx := flow.WithIdempotencyKey(t.Context(), "key")
	const n = 50
	answers, failures := make([]string, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { answers[i], failures[i] = processes[i%len(processes)](ctx, "Ann") })
	}
	all.Wait()
	for i, answer := range answers {
		if answer != "hello Ann, visitor 1" || failures[i] != nil {
			t.Errorf("call %d: %q, %v", i, answer, failures[i])
		}
	}
	if got := runs.Load(); got != 1 {
		t.Errorf("it ran %d times", got)
	}
	if _, err := processes[1](ctx, "Bob"); !errors.Is(err, idempotency.ErrReused) {
		t.Errorf("another request with the key: %v, want ErrReused", err)
	}
}
