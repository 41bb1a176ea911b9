package sqlstore_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/sqlstore"
)

const jobVariable = "IDEMPOTENCY_JOB"

func charge(t *testing.T, s *sqlstore.Store, f transport.Func[string, string]) transport.Func[string, string] {
	t.Helper()
	keys, err := idempotency.New(idempotency.Config{Store: s, Lease: 3 * time.Second, Wait: time.Minute, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return idempotency.Once(keys, "charge", f)
}

// TestHelperProcess is the process that TestTheOwnerIsKilled kills.
func TestHelperProcess(t *testing.T) {
	url := os.Getenv(jobVariable)
	if url == "" {
		t.Skip("a helper of TestTheOwnerIsKilled")
	}
	_, s := open(t, url)
	_, err := charge(t, s, func(ctx context.Context, _ string) (string, error) {
		fmt.Println("running")
		<-ctx.Done()
		return "", ctx.Err()
	})(flow.WithIdempotencyKey(t.Context(), "key"), "card")
	t.Errorf("it ended: %v", err)
}

// The key of a process that was killed in the middle of a call is held until its lease
// has ended, prolonged ones included, and then the duplicate that waits runs.
func TestTheOwnerIsKilled(t *testing.T) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			_, s := open(t, url)
			owner := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperProcess$")
			owner.Env = append(os.Environ(), jobVariable+"="+url)
			out, err := owner.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := owner.Start(); err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "running"; {
				continue
			}
			ctx := flow.WithIdempotencyKey(t.Context(), "key")
			impatient, cancel := context.WithTimeout(ctx, 3500*time.Millisecond) // longer than a lease
			defer cancel()
			place := charge(t, s, func(context.Context, string) (string, error) { return "by the heir", nil })
			if answer, err := place(impatient, "card"); err == nil {
				t.Errorf("%q while the owner lives", answer)
			}
			if err := owner.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = owner.Wait() // says that it was killed
			for range 2 {
				if answer, err := place(ctx, "card"); answer != "by the heir" || err != nil {
					t.Errorf("%q, %v", answer, err)
				}
			}
		})
	}
}
