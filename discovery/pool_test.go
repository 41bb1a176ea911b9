package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
)

// conn is a connection that knows when it is misused.
type conn struct {
	addr   string
	closed atomic.Bool
}

func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return errors.New("closed twice")
	}
	return nil
}

func dial(_ context.Context, in discovery.Instance) (*conn, func() error, error) {
	c := &conn{addr: in.Addr}
	return c, c.Close, nil
}

func at(port int) discovery.Instance {
	return discovery.Instance{Service: "order", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
}

func registry(t *testing.T, in ...discovery.Instance) *static.Registry {
	t.Helper()
	reg, err := static.New(static.Config{Instances: in})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func register(t *testing.T, reg *static.Registry, in discovery.Instance) *discovery.Registration {
	t.Helper()
	r, err := reg.Register(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newPool(t *testing.T, r discovery.Resolver, d func(context.Context, discovery.Instance) (*conn, func() error, error)) *discovery.Pool[*conn] {
	t.Helper()
	p, err := discovery.NewPool(discovery.PoolConfig[*conn]{Resolver: r, Service: "order", Dial: d})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closePool(t *testing.T, p *discovery.Pool[*conn]) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewPoolChecksConfig(t *testing.T) {
	t.Parallel()
	reg := registry(t)
	for name, cfg := range map[string]discovery.PoolConfig[*conn]{
		"resolver": {Service: "order", Dial: dial},
		"service":  {Resolver: reg, Dial: dial},
		"dial":     {Resolver: reg, Service: "order"},
	} {
		if _, err := discovery.NewPool(cfg); err == nil {
			t.Errorf("%s missing: no error", name)
		}
	}
}

func TestRoundRobinOverPassing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sick := at(9)
		sick.Health = discovery.Critical
		p := newPool(t, registry(t, at(1), at(2), at(3), sick), dial)
		defer closePool(t, p)
		synctest.Wait()
		got := map[string]int{}
		for range 30 {
			l, err := p.Pick(t.Context(), discovery.PickOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got[l.Value().addr]++
			l.Done(nil)
		}
		if len(got) != 3 || got["127.0.0.1:1"] != 10 || got["127.0.0.1:2"] != 10 || got["127.0.0.1:3"] != 10 {
			t.Errorf("calls = %v, want 10 each and none for the critical one", got)
		}
	})
}

func TestPickWithoutInstances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registry(t)
		p := newPool(t, reg, dial)
		defer closePool(t, p)
		_, err := p.Pick(t.Context(), discovery.PickOptions{})
		if !errors.Is(err, discovery.ErrNoInstance) {
			t.Fatalf("Pick = %v, want ErrNoInstance", err)
		}
		for name, e := range map[string]error{"returned": err, "sentinel": discovery.ErrNoInstance} {
			var m interface {
				Retryable() bool
				NotExecuted() bool
			}
			if !errors.As(e, &m) || !m.Retryable() || !m.NotExecuted() {
				t.Errorf("%s error is not retryable and not executed", name)
			}
		}
		// An instance that arrives is picked, one that leaves is not.
		r := register(t, reg, at(1))
		synctest.Wait()
		l, err := p.Pick(t.Context(), discovery.PickOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(nil)
		if err := r.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := p.Pick(t.Context(), discovery.PickOptions{}); !errors.Is(err, discovery.ErrNoInstance) {
			t.Errorf("Pick after the last one left = %v", err)
		}
		if got := p.Snapshot(); len(got.Instances) != 0 || got.Err != nil {
			t.Errorf("Snapshot = %+v", got)
		}
	})
}

func TestSlowDialBlocksNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, in discovery.Instance) (*conn, func() error, error) {
			if in.Addr == at(1).Addr {
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
					return nil, nil, ctx.Err()
				}
			}
			return dial(ctx, in)
		}
		p := newPool(t, registry(t, at(1), at(2)), slow)
		defer closePool(t, p)
		start := time.Now()
		for range 10 {
			l, err := p.Pick(t.Context(), discovery.PickOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if l.Value().addr != at(2).Addr {
				t.Fatalf("picked %s, which is not connected", l.Value().addr)
			}
			l.Done(nil)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("picks waited %v", waited)
		}
	})
}

func TestPickWaitsForTheFirstDialOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		var tries atomic.Int32
		p := newPool(t, registry(t, at(1)), func(ctx context.Context, in discovery.Instance) (*conn, func() error, error) {
			if tries.Add(1) <= 3 {
				<-time.After(time.Second)
				return nil, nil, refused
			}
			return dial(ctx, in)
		})
		defer closePool(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.Pick(ctx, discovery.PickOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("short on time: %v", err)
		}
		start := time.Now()
		_, err := p.Pick(t.Context(), discovery.PickOptions{})
		if !errors.Is(err, discovery.ErrNoInstance) || !errors.Is(err, refused) {
			t.Errorf("Pick = %v, want ErrNoInstance because of the refusal", err)
		}
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("waited %v for more than the first dial", waited)
		}
		<-time.After(time.Minute) // virtual: the dial is repeated until it works
		l, err := p.Pick(t.Context(), discovery.PickOptions{})
		if err != nil {
			t.Fatalf("after the peer came up: %v", err)
		}
		l.Done(nil)
		if n := tries.Load(); n != 4 {
			t.Errorf("%d dials, want 4", n)
		}
	})
}

func TestConnectionOutlivesItsInstance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registry(t)
		r := register(t, reg, at(1))
		p := newPool(t, reg, dial)
		synctest.Wait()
		l, err := p.Pick(t.Context(), discovery.PickOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c := l.Value()
		if c.closed.Load() {
			t.Fatal("closed under a call in flight")
		}
		closed := make(chan error)
		go func() { closed <- p.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close did not wait for the lease")
		default:
		}
		if _, err := p.Pick(t.Context(), discovery.PickOptions{}); !errors.Is(err, discovery.ErrClosed) {
			t.Errorf("Pick while closing = %v, want ErrClosed", err)
		}
		l.Done(nil)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if !c.closed.Load() {
			t.Error("left open after the last lease")
		}
		closePool(t, p) // again
	})
}

func TestUnchangedInstancesKeepTheirConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		reg := registry(t)
		r := register(t, reg, at(1))
		p := newPool(t, reg, func(ctx context.Context, in discovery.Instance) (*conn, func() error, error) {
			dials.Add(1)
			return dial(ctx, in)
		})
		defer closePool(t, p)
		synctest.Wait()
		for _, change := range []struct {
			in   discovery.Instance
			want int32
		}{
			{discovery.Instance{Addr: at(1).Addr, Version: "2"}, 1},
			{discovery.Instance{Addr: at(1).Addr, Health: discovery.Critical}, 1},
			{discovery.Instance{Addr: at(1).Addr}, 1},
			{discovery.Instance{Addr: at(2).Addr}, 2},
		} {
			if err := r.Update(t.Context(), change.in); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := dials.Load(); n != change.want {
				t.Errorf("after %+v: %d dials, want %d", change.in, n, change.want)
			}
		}
		l, err := p.Pick(t.Context(), discovery.PickOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Done(nil)
		if l.Instance().Addr != at(2).Addr || l.Value().addr != at(2).Addr {
			t.Errorf("picked %s over a connection to %s", l.Instance().Addr, l.Value().addr)
		}
	})
}

func TestExcludeSendsTheNextAttemptElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, registry(t, at(1), at(2), at(3)), dial)
		defer closePool(t, p)
		synctest.Wait()
		pick := func(ctx context.Context, o discovery.PickOptions) string {
			t.Helper()
			l, err := p.Pick(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Done(nil)
			return l.Instance().ID
		}
		ctx, set := discovery.WithExclude(t.Context()), new(discovery.ExcludeSet)
		for name, call := range map[string]func() string{
			"set in the context": func() string { return pick(ctx, discovery.PickOptions{}) },
			"set in the options": func() string { return pick(t.Context(), discovery.PickOptions{Exclude: set}) },
		} {
			tried := map[string]bool{}
			for range 3 {
				tried[call()] = true
				for range 2 { // others take their turn, so that round robin alone would repeat
					pick(t.Context(), discovery.PickOptions{})
				}
			}
			if len(tried) != 3 {
				t.Errorf("%s: tried %v, want all three", name, tried)
			}
			if id := call(); !tried[id] { // with everything tried, trying again beats giving up
				t.Errorf("%s: picked %q", name, id)
			}
		}
	})
}

func TestCloseTellsWhatClosingSaid(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken pipe")
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, registry(t, at(1)), func(ctx context.Context, in discovery.Instance) (*conn, func() error, error) {
			return &conn{}, func() error { return broken }, nil
		})
		synctest.Wait()
		for range 2 {
			if err := p.Close(); !errors.Is(err, broken) || !strings.Contains(err.Error(), "order/127.0.0.1:1") {
				t.Errorf("Close = %v", err)
			}
		}
	})
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"discovery: no instance":                                                          discovery.ErrNoInstance,
		"discovery: pick order: no instance":                                              &discovery.NoInstanceError{Service: "order"},
		"discovery: pick order: no instance is passing and reachable":                     &discovery.NoInstanceError{Service: "order", Known: 2},
		"discovery: pick order: no instance is passing and reachable: connection refused": &discovery.NoInstanceError{Service: "order", Known: 2, Err: errors.New("connection refused")},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestExcludeSet(t *testing.T) {
	t.Parallel()
	var none *discovery.ExcludeSet
	none.Add("a")
	if none.Has("a") || none.Len() != 0 {
		t.Error("a nil set holds something")
	}
	if discovery.ExcludeFrom(t.Context()) != nil {
		t.Error("a set from nowhere")
	}
	ctx := discovery.WithExclude(t.Context())
	s := discovery.ExcludeFrom(ctx)
	s.Add("a")
	s.Add("a")
	if !discovery.ExcludeFrom(ctx).Has("a") || s.Len() != 1 {
		t.Errorf("set has %d entries", s.Len())
	}
	if discovery.ExcludeFrom(discovery.WithExclude(ctx)).Len() != 0 {
		t.Error("an inner call inherited the set")
	}
}

// mute is a resolver that ends without a word, or with a stale answer.
type mute []discovery.Snapshot

func (m mute) Watch(context.Context, string) iter.Seq[discovery.Snapshot] {
	return func(yield func(discovery.Snapshot) bool) {
		for _, s := range m {
			if !yield(s) {
				return
			}
		}
	}
}

func TestResolverEnds(t *testing.T) {
	t.Parallel()
	p := newPool(t, mute{}, dial)
	defer closePool(t, p)
	if _, err := p.Pick(t.Context(), discovery.PickOptions{}); !errors.Is(err, discovery.ErrNoInstance) {
		t.Errorf("Pick = %v, want ErrNoInstance", err)
	}
	stale := discovery.NewSnapshot(1, at(1))
	stale.Stale, stale.Err = true, errors.New("registry is down")
	q := newPool(t, mute{stale}, dial)
	defer closePool(t, q)
	l, err := q.Pick(t.Context(), discovery.PickOptions{})
	if err != nil {
		t.Fatalf("a stale answer must be used: %v", err)
	}
	l.Done(nil)
}

func TestDoubleDonePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registry(t)
		r := register(t, reg, at(1))
		p := newPool(t, reg, dial)
		synctest.Wait()
		l, err := p.Pick(t.Context(), discovery.PickOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.Done(nil)
		closePool(t, p)
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		l.Done(nil)
	})
}

// Calls go on while instances come and go: none meets a closed connection.
func TestPoolUnderChurn(t *testing.T) {
	t.Parallel()
	reg := registry(t, at(1))
	p := newPool(t, reg, dial)
	var callers, churn sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l, err := p.Pick(t.Context(), discovery.PickOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				if l.Value().closed.Load() {
					t.Error("picked a closed connection")
				}
				l.Done(nil)
			}
		})
	}
	for w := range 2 {
		churn.Go(func() {
			for range 200 {
				r, err := reg.Register(t.Context(), at(10+w))
				if err != nil {
					t.Error(err)
					return
				}
				if err := r.Drain(t.Context(), 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	churn.Wait()
	close(stop)
	callers.Wait()
	closePool(t, p)
}

func TestPickAllocatesNothing(t *testing.T) {
	p := newPool(t, registry(t, at(1), at(2)), dial)
	defer closePool(t, p)
	ctx := t.Context()
	pick := func() {
		l, err := p.Pick(ctx, discovery.PickOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(nil)
	}
	pick()
	if n := testing.AllocsPerRun(100, pick); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func BenchmarkPick(b *testing.B) {
	reg, err := static.New(static.Config{Instances: []discovery.Instance{at(1), at(2), at(3)}})
	if err != nil {
		b.Fatal(err)
	}
	p, err := discovery.NewPool(discovery.PoolConfig[*conn]{Resolver: reg, Service: "order", Dial: dial})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		l, err := p.Pick(ctx, discovery.PickOptions{})
		if err != nil {
			b.Fatal(err)
		}
		l.Done(nil)
	}
}
