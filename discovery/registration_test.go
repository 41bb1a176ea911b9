package discovery_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/discovery"
)

// ledger is an Entry that writes down what was asked of it.
type ledger struct {
	mu        sync.Mutex
	puts      []discovery.Health
	removed   int
	removeErr error
	putErr    error
}

func (l *ledger) Put(_ context.Context, in discovery.Instance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puts = append(l.puts, in.Health)
	return l.putErr
}

func (l *ledger) Remove(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.removeErr != nil {
		return l.removeErr
	}
	l.removed++
	return nil
}

func registered(t *testing.T, l *ledger) *discovery.Registration {
	t.Helper()
	in, err := discovery.Instance{Service: "order", Addr: "127.0.0.1:80"}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return discovery.NewRegistration(in, l)
}

func TestDrainMarksWaitsAndDeregisters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		r := registered(t, &l)
		start := time.Now()
		drained := make(chan error, 2)
		for range 2 { // the second waits for the first
			go func() { drained <- r.Drain(t.Context(), 3*time.Second) }()
		}
		synctest.Wait()
		if r.State() != discovery.Leaving || r.Instance().Health != discovery.Draining {
			t.Fatalf("during the grace: state %v, health %v", r.State(), r.Instance().Health)
		}
		// An update meanwhile is possible and does not bring the instance back.
		if err := r.Update(t.Context(), discovery.Instance{Addr: "127.0.0.1:80", Version: "2"}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.Done():
			t.Fatal("deregistered before the grace was over")
		default:
		}
		for range 2 {
			if err := <-drained; err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %v, want 3s", waited)
		}
		<-r.Done()
		if l.removed != 1 || len(l.puts) != 2 || l.puts[0] != discovery.Draining || l.puts[1] != discovery.Draining {
			t.Errorf("removed %d, puts %v", l.removed, l.puts)
		}
		if err := r.Drain(t.Context(), time.Hour); err != nil || l.removed != 1 {
			t.Errorf("a later Drain = %v, removed %d times", err, l.removed)
		}
		if err := r.Update(t.Context(), discovery.Instance{}); !errors.Is(err, discovery.ErrDeregistered) {
			t.Errorf("Update afterwards = %v, want ErrDeregistered", err)
		}
	})
}

func TestDrainDeregistersWhenContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		r := registered(t, &l)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := r.Drain(ctx, time.Hour); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Second || l.removed != 1 {
			t.Errorf("waited %v, removed %d", waited, l.removed)
		}
	})
}

func TestDrainCanBeRepeatedAfterAnError(t *testing.T) {
	t.Parallel()
	l := ledger{removeErr: errors.New("registry is down"), putErr: errors.New("registry is deaf")}
	r := registered(t, &l)
	err := r.Drain(t.Context(), 0)
	if !errors.Is(err, l.removeErr) || !errors.Is(err, l.putErr) {
		t.Fatalf("Drain = %v, want both causes", err)
	}
	if r.State() != discovery.Leaving {
		t.Fatalf("state = %v, want leaving", r.State())
	}
	l.removeErr = nil
	if err := r.Drain(t.Context(), 0); err != nil {
		t.Fatalf("second Drain = %v", err)
	}
	<-r.Done()
}

func TestUpdateKeepsIdentity(t *testing.T) {
	t.Parallel()
	var l ledger
	r := registered(t, &l)
	if err := r.Update(t.Context(), discovery.Instance{ID: "other", Addr: "127.0.0.1:80"}); err == nil {
		t.Error("another ID was accepted")
	}
	if err := r.Update(t.Context(), discovery.Instance{Addr: "nowhere"}); err == nil {
		t.Error("a bad address was accepted")
	}
	if err := r.Update(t.Context(), discovery.Instance{Addr: "127.0.0.1:80", Health: discovery.Warning}); err != nil {
		t.Fatal(err)
	}
	if in := r.Instance(); in.Health != discovery.Warning || in.ID != "order/127.0.0.1:80" {
		t.Errorf("instance = %+v", in)
	}
}
