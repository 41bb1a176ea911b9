package resilience_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func withKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOf{}, key)
}

func readKey(ctx context.Context) string {
	key, _ := ctx.Value(keyOf{}).(string)
	return key
}

func newBulkhead(string) (resilience.Policy, error) {
	return resilience.NewBulkhead(resilience.BulkheadConfig{Max: 1})
}

func newKeyed(t *testing.T, create func(string) (resilience.Policy, error), cfg resilience.KeyedConfig) *resilience.KeyedPolicy[string] {
	t.Helper()
	p, err := resilience.Keyed(readKey, create, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKeyedKeepsKeysApart(t *testing.T) {
	t.Parallel()
	p := newKeyed(t, func(string) (resilience.Policy, error) {
		return resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 1})
	}, resilience.KeyedConfig{})
	bad, good := withKey(t.Context(), "bad"), withKey(t.Context(), "good")
	_ = resilience.Do(bad, p, fails)
	if err := resilience.Do(bad, p, works); !errors.Is(err, resilience.ErrOpen) {
		t.Errorf("bad: error %v", err)
	}
	if err := resilience.Do(good, p, works); err != nil {
		t.Errorf("good: error %v", err)
	}
	visited := 0
	resilience.Walk(p, func(resilience.Policy) { visited++ })
	if s := p.Stats(); s.Keys != 2 || visited != 3 {
		t.Errorf("stats %+v, %d policies visited", s, visited)
	}
	if !p.Forget("bad") || p.Forget("bad") {
		t.Error("bad was not there just once")
	}
	if err := resilience.Do(bad, p, works); err != nil {
		t.Errorf("forgotten: error %v", err)
	}
	if _, ok := p.Get("nobody"); ok {
		t.Error("a policy of nobody")
	}
}

func TestKeyedMakesEachPolicyOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int64
		p := newKeyed(t, func(string) (resilience.Policy, error) {
			made.Add(1)
			time.Sleep(time.Second)
			return resilience.NewTimeout(time.Minute)
		}, resilience.KeyedConfig{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := resilience.Do(withKey(t.Context(), "a"), p, works); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(withKey(t.Context(), "a"), time.Millisecond)
		defer cancel()
		if err := resilience.Do(ctx, p, works); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: error %v", err)
		}
		if _, ok := p.Get("a"); ok {
			t.Error("got a policy that is not made yet")
		}
		wg.Wait()
		if made.Load() != 1 {
			t.Errorf("made %d times", made.Load())
		}
	})
}

func TestKeyedTriesAgainAfterAPolicyThatCouldNotBeMade(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(string) (resilience.Policy, error){
		"error":  func(string) (resilience.Policy, error) { return nil, errDown },
		"nil":    func(string) (resilience.Policy, error) { return nil, nil },
		"panic":  func(string) (resilience.Policy, error) { panic("boom") },
		"goexit": func(string) (resilience.Policy, error) { runtime.Goexit(); return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken := true
			p := newKeyed(t, func(key string) (resilience.Policy, error) {
				if broken {
					return create(key)
				}
				return newBulkhead(key)
			}, resilience.KeyedConfig{Name: "hosts"})
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				if err := do(t, p, works); err == nil || !strings.Contains(err.Error(), `"hosts"`) {
					t.Errorf("error %v", err)
				}
			}()
			<-done
			broken = false
			if err := do(t, p, works); err != nil {
				t.Errorf("mended: %v", err)
			}
		})
	}
}

func TestKeyedNeverEvictsAPolicyInUse(t *testing.T) {
	t.Parallel()
	p := newKeyed(t, newBulkhead, resilience.KeyedConfig{MaxKeys: 2})
	run := func(key string, inside func()) {
		t.Helper()
		if err := resilience.Do(withKey(t.Context(), key), p, func(context.Context) error { inside(); return nil }); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	nothing := func() {}
	run("a", func() {
		first, _ := p.Get("a")
		run("b", nothing)
		run("c", nothing) // b goes, a is in use
		if again, ok := p.Get("a"); !ok || again != first {
			t.Error("a was evicted during its call")
		}
		if _, ok := p.Get("b"); ok {
			t.Error("b is still there")
		}
		run("c", func() {
			run("d", nothing) // nobody can go
			if s := p.Stats(); s.Keys != 3 || s.Evicted != 1 {
				t.Errorf("all in use: %+v", s)
			}
		})
	})
	run("e", nothing)
	if s := p.Stats(); s.Keys != 2 {
		t.Errorf("after the calls: %+v", s)
	}
	panics(p)
	goexits(p, runtime.Goexit)
	for _, key := range []string{"f", "g"} {
		run(key, nothing)
	}
	if _, ok := p.Get(""); ok {
		t.Error("a call that panicked holds its policy")
	}
}

func TestKeyedForgetsIdlePolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newKeyed(t, newBulkhead, resilience.KeyedConfig{MaxKeys: 10, IdleTTL: time.Minute})
		for _, key := range []string{"a", "b"} {
			_ = resilience.Do(withKey(t.Context(), key), p, works)
			time.Sleep(40 * time.Second)
		}
		_ = resilience.Do(withKey(t.Context(), "c"), p, works)
		if _, ok := p.Get("a"); ok {
			t.Error("a is still there")
		}
		if _, ok := p.Get("b"); !ok {
			t.Error("b is gone")
		}
	})
}

func TestKeyedConfigErrors(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"key =":         errorOf(resilience.Keyed[string](nil, newBulkhead, resilience.KeyedConfig{})),
		"create =":      errorOf(resilience.Keyed(readKey, nil, resilience.KeyedConfig{})),
		"MaxKeys = -1":  errorOf(resilience.Keyed(readKey, newBulkhead, resilience.KeyedConfig{MaxKeys: -1})),
		"IdleTTL = -1n": errorOf(resilience.Keyed(readKey, newBulkhead, resilience.KeyedConfig{IdleTTL: -1})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %q", err, want)
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

func TestKeyedAllocatesNothing(t *testing.T) {
	for name, keys := range map[string]int{"one table": 10, "split": 10000} {
		p := newKeyed(t, newBulkhead, resilience.KeyedConfig{MaxKeys: keys})
		ctx := withKey(t.Context(), "key")
		if got := testing.AllocsPerRun(200, func() { _ = resilience.Do(ctx, p, works) }); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}
