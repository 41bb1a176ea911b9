package static_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
)

func order(port int) discovery.Instance {
	return discovery.Instance{Service: "order", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
}

func TestNewRefusesBadInstances(t *testing.T) {
	t.Parallel()
	_, err := static.New(static.Config{Instances: []discovery.Instance{order(1), {Service: "order", Addr: "::1:80"}}})
	if err == nil || !strings.Contains(err.Error(), "Config.Instances[1]") {
		t.Errorf("bad address: %v", err)
	}
	_, err = static.New(static.Config{Instances: []discovery.Instance{order(1), order(1)}})
	if !errors.Is(err, static.ErrRegistered) {
		t.Errorf("twice the same: %v", err)
	}
}

func TestWatchSeesEveryState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, err := static.New(static.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var seen []string
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(ended)
			for s := range reg.Watch(ctx, "order") {
				var b strings.Builder
				fmt.Fprintf(&b, "%d:", s.Rev)
				for _, in := range s.Instances {
					fmt.Fprintf(&b, " %s=%s", in.Addr, in.Health)
				}
				mu.Lock()
				seen = append(seen, b.String())
				mu.Unlock()
			}
		}()
		synctest.Wait()
		step := func(do func() error) {
			t.Helper()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		var r *discovery.Registration
		step(func() (err error) { r, err = reg.Register(t.Context(), order(2)); return err })
		step(func() error { _, err := reg.Register(t.Context(), order(1)); return err })
		step(func() error { return r.Update(t.Context(), r.Instance()) }) // nothing new: no event
		step(func() error {
			in := r.Instance()
			in.Health = discovery.Critical
			return r.Update(t.Context(), in)
		})
		step(func() error { return r.Drain(t.Context(), 1) })
		cancel()
		<-ended
		want := []string{
			"1:",
			"2: 127.0.0.1:2=passing",
			"3: 127.0.0.1:1=passing 127.0.0.1:2=passing",
			"4: 127.0.0.1:1=passing 127.0.0.1:2=critical",
			"5: 127.0.0.1:1=passing 127.0.0.1:2=draining",
			"6: 127.0.0.1:1=passing",
		}
		if fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("watched\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestLastInstanceLeaves(t *testing.T) {
	t.Parallel()
	reg, err := static.New(static.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := reg.Register(t.Context(), order(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Drain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for s := range reg.Watch(t.Context(), "order") {
		if len(s.Instances) != 0 || s.Err != nil || s.Stale {
			t.Errorf("snapshot = %+v, want an empty state without error", s)
		}
		break
	}
	if s := reg.Services()["order"]; s.Rev == 0 || len(s.Instances) != 0 {
		t.Errorf("Services: %+v", s)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	reg, err := static.New(static.Config{Instances: []discovery.Instance{order(1)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Register(t.Context(), order(1)); !errors.Is(err, static.ErrRegistered) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := reg.Register(t.Context(), discovery.Instance{Service: "order"}); err == nil {
		t.Error("no address: accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reg.Register(ctx, order(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

// Snapshots handed out earlier must not change under their readers.
func TestSnapshotsAreImmutable(t *testing.T) {
	t.Parallel()
	reg, err := static.New(static.Config{Instances: []discovery.Instance{order(1)}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for s := range reg.Watch(ctx, "order") {
				for i := 1; i < len(s.Instances); i++ {
					if s.Instances[i-1].ID >= s.Instances[i].ID {
						t.Error("not sorted")
					}
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				r, err := reg.Register(ctx, order(1000+100*w+i))
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					if err := r.Drain(ctx, 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	cancel()
	wg.Wait()
	if got := len(reg.Services()["order"].Instances); got != 1+4*25 {
		t.Errorf("%d instances left, want 101", got)
	}
}
