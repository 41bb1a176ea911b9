package resilience_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/resilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("payment: down")

// must keeps set-up readable; a bad configuration is a defect of the test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func fails(context.Context) error { return errDown }
func works(context.Context) error { return nil }

func do(t *testing.T, p resilience.Policy, fn func(context.Context) error) error {
	t.Helper()
	return resilience.Do(t.Context(), p, fn)
}

// attempt runs fn and swallows its panic; Goexit needs a goroutine.
func panics(p resilience.Policy) {
	defer func() { _ = recover() }()
	_ = resilience.Do(context.Background(), p, func(context.Context) error { panic("boom") })
}

func goexits(p resilience.Policy, exit func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = resilience.Do(context.Background(), p, func(context.Context) error { exit(); return nil })
	}()
	<-done
}

func TestImportsStayLight(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "github.com/sony/gobreaker") {
		t.Fatal("go list did not list the dependencies")
	}
	for _, heavy := range []string{"google.golang.org/grpc", "go.opentelemetry.io", "prometheus", "redis"} {
		if strings.Contains(string(out), heavy) {
			t.Errorf("resilience compiles %s", heavy)
		}
	}
}
