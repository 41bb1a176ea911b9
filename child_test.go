package armature_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/transport/httpx"
)

// childEnv makes the test binary be the program whose signals a test sends. Its
// value picks what the program does.
const childEnv = "ARMATURE_TEST_CHILD"

func child() {
	armature.Main(func(ctx context.Context) error {
		cfg := armature.Config{
			Name: "child", HTTPAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0",
			DrainDelay: 300 * time.Millisecond, LogWriter: io.Discard,
		}
		if os.Getenv(childEnv) == "slow" {
			cfg.DrainDelay = time.Hour
		}
		svc, err := armature.New(cfg)
		if err != nil {
			return err
		}
		if os.Getenv(childEnv) == "reload" {
			if err := reloading(svc); err != nil {
				return err
			}
		}
		var handled atomic.Int64
		httpx.Handle(svc.HTTP, "GET /work", func(ctx context.Context, _ nobody) (*greeting, error) {
			handled.Add(1)
			t := time.NewTimer(20 * time.Millisecond)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			return &greeting{strings.Repeat("done ", 1000)}, nil
		})
		svc.OnStop("last", func(context.Context) error {
			fmt.Println("hooks ran after", handled.Load())
			return nil
		})
		go func() {
			select {
			case <-svc.Ready():
				fmt.Println(svc.HTTPAddr(), svc.AdminAddr())
			case <-ctx.Done():
			}
		}()
		return svc.Run(ctx)
	})
}

// reloading has the service say what changes.
func reloading(svc *armature.Service) error {
	signal.Ignore(syscall.SIGHUP) // one that comes before the watch does is lost
	l, err := armature.LoadLive(liveSettings{}, armature.LiveOptions{Interval: time.Hour})
	if err != nil {
		return err
	}
	l.OnChange(func(_ *liveSettings, changes []armature.Change) {
		for _, c := range changes {
			fmt.Println(c.Key, "from", c.Old, "to", c.New)
		}
	})
	svc.Follow(l)
	return nil
}

// start runs the test binary as the program and returns its two addresses.
func start(t *testing.T, mode string, env ...string) (cmd *exec.Cmd, out *bufio.Reader, httpAddr, adminAddr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	out = bufio.NewReader(stdout)
	if _, err := fmt.Fscanln(out, &httpAddr, &adminAddr); err != nil {
		t.Fatalf("the child did not say its addresses: %v", err)
	}
	return cmd, out, httpAddr, adminAddr
}

// Clients send as fast as they are answered while the signal arrives. Every
// request that the service read must have its whole answer, which the count of
// both sides shows; a connection that nobody accepted any more may fail.
func TestSIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	cmd, out, addr, admin := start(t, "fast")
	var answered, broken atomic.Int64
	var wg sync.WaitGroup
	signalled := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			c := client(t)
			for {
				resp, err := c.Get("http://" + addr + "/work")
				if err != nil {
					select {
					case <-signalled:
						return // the listener is closed; what was read is counted
					default:
					}
					broken.Add(1)
					t.Errorf("a request was not answered before the signal: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || len(body) < 5000 {
					broken.Add(1)
					t.Errorf("an answer is cut: status %d, %d bytes, %v", resp.StatusCode, len(body), err)
				}
				answered.Add(1)
			}
		})
	}
	for answered.Load() < 100 && broken.Load() == 0 {
		if code, body := get(t, client(t), "http://"+admin+"/ready"); code != http.StatusOK {
			t.Fatalf("GET /ready before the signal = %d %s", code, body)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	close(signalled)
	// Readiness goes first: it is off while requests are still answered.
	for {
		code, body := get(t, client(t), "http://"+admin+"/ready")
		if code == http.StatusServiceUnavailable && strings.Contains(body, "draining") {
			break
		}
	}
	if code, _ := get(t, client(t), "http://"+addr+"/work"); code != http.StatusOK {
		t.Errorf("GET /work while draining = %d, want 200: readiness must lead", code)
	}
	answered.Add(1)
	wg.Wait()
	var handled int64
	if _, err := fmt.Fscanf(out, "hooks ran after %d\n", &handled); err != nil {
		t.Errorf("the child did not say what it handled: %v", err)
	}
	if handled != answered.Load() {
		t.Errorf("the service handled %d requests, its clients have %d answers", handled, answered.Load())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v, want exit status 0", err)
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	cmd, out, _, admin := start(t, "slow")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // the first signal has begun an hour's drain
		if code, _ := get(t, client(t), "http://"+admin+"/ready"); code == http.StatusServiceUnavailable {
			break
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	err := cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 128+int(syscall.SIGINT) {
		t.Errorf("exit status %d (%v), want 130", got, err)
	}
	if strings.Contains(string(rest), "hooks ran") {
		t.Error("the second signal still waited for the hooks")
	}
}
