package peers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var errDown = errors.New("payment: down")

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func fails() error { return errDown }

// swallow runs fn and keeps its panic from going on.
func swallow(fn func()) {
	defer func() { _ = recover() }()
	fn()
}

// apart runs fn, which may call runtime.Goexit, on a goroutine of its own.
func apart(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// Module paths of the peers.
const (
	failsafeGo = "github.com/failsafe-go/failsafe-go"
	gobreakerA = "github.com/sony/gobreaker"
	gobreakerB = "github.com/sony/gobreaker/v2"
	backoffA   = "github.com/cenkalti/backoff/v4"
	backoffB   = "github.com/cenkalti/backoff/v5"
	xTime      = "golang.org/x/time"
)

// still fails the test when a peer does not have the defect any more. That is good
// news, and the table that says otherwise is out of date.
func still(t testing.TB, peer string, present bool) {
	t.Helper()
	number, ok := defectNumber(t.Name())
	if !ok {
		t.Fatalf("%s names no defect", t.Name())
	}
	if !present {
		t.Errorf("%s %s no longer has defect %d: update the table", peer, version(t, peer), number)
	}
}

// version returns that of a module in go.mod, which is the one that is linked: a
// test binary itself does not know.
func version(t testing.TB, module string) string {
	t.Helper()
	for line := range strings.Lines(string(must(os.ReadFile("go.mod")))) {
		if fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(fields) > 1 && fields[0] == module {
			return fields[1]
		}
	}
	t.Fatalf("go.mod does not require %s", module)
	return ""
}

// waitsForMutex runs call on another goroutine and reports whether it came to wait
// for a mutex inside a function whose name contains where. The runtime is asked what
// the goroutine does, so the answer does not depend on how fast the machine is. The
// goroutine is left behind to end when the mutex is free.
func waitsForMutex(where string, call func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	stacks := make([]byte, 1<<20)
	for {
		select {
		case <-done:
			return false
		default:
		}
		for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			header, frames, _ := strings.Cut(stack, "\n")
			if strings.Contains(header, "sync.Mutex.Lock") && strings.Contains(frames, where) {
				return true
			}
		}
		runtime.Gosched()
	}
}

func TestMendedPeerIsReported(t *testing.T) {
	t.Parallel()
	r := &recorder{TB: t, name: "TestDefect03Something/case"}
	still(r, failsafeGo, true)
	if r.errors != nil {
		t.Errorf("a defect still there is reported: %q", r.errors)
	}
	still(r, failsafeGo, false)
	want := failsafeGo + " v0.9.8 no longer has defect 3: update the table"
	if len(r.errors) != 1 || r.errors[0] != want {
		t.Errorf("reported %q, want %q", r.errors, want)
	}
}

// recorder keeps what a test would report.
type recorder struct {
	testing.TB
	name   string
	errors []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return r.name }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestWaitsForMutexTellsFreeFromHeld(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	probe := func() { lockForTest(&mu) }
	if waitsForMutex("lockForTest", probe) {
		t.Error("waits for a mutex that is free")
	}
	mu.Lock()
	defer mu.Unlock()
	if !waitsForMutex("lockForTest", probe) {
		t.Error("does not wait for a mutex that is held")
	}
}

//go:noinline
func lockForTest(mu *sync.Mutex) {
	mu.Lock()
	mu.Unlock() //nolint:staticcheck // only the wait matters
}
