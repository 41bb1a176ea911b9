//go:build failpoint

package failpoint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armature-go/armature/internal/failpoint"
)

func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		for range 3 {
			failpoint.Hit("first")
			failpoint.Hit("second")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestKillsAtTheNamedBoundaryAlone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		point, want string
		killed      bool
	}{
		{"", "first#1 second#1 first#2 second#2 first#3 second#3", false},
		{"second#2", "first#1 second#1 first#2 second#2", true},
		{"second#4", "first#1 second#1 first#2 second#2 first#3 second#3", false},
	} {
		t.Run(tt.point, func(t *testing.T) {
			t.Parallel()
			trace := filepath.Join(t.TempDir(), "trace")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", "ARMATURE_FAILPOINT="+tt.point, "ARMATURE_FAILPOINT_TRACE="+trace)
			err := cmd.Run()
			if killed := err != nil && strings.Contains(err.Error(), "killed"); killed != tt.killed {
				t.Errorf("the process ended with %v", err)
			}
			lines, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(strings.Fields(string(lines)), " "); got != tt.want {
				t.Errorf("passed %q, want %q", got, tt.want)
			}
		})
	}
}
