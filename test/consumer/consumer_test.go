package consumer_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/armature-go/armature"

// offline matches what the go command says when there is no network; anything
// else it says about modules is a real failure.
var offline = regexp.MustCompile(`dial tcp|no such host|connection refused|network is unreachable|i/o timeout|TLS handshake timeout|module lookup disabled by GOPROXY=off`)

func TestStrangersModuleTidiesAndBuilds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a module proxy or a filled module cache")
	}
	checkout, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join("testdata", "main.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "main.go", source)
	write(t, dir, "go.mod", []byte("module example.com/consumer\n\ngo 1.26.0\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+checkout+"\n"))

	goTool(t, dir, "mod", "tidy")
	goTool(t, dir, "build", "-o", "consumer", ".")
	if out := goTool(t, dir, "run", "."); !strings.HasSuffix(out, "built\n") {
		t.Errorf("the fixture printed %q, want a last line %q", out, "built")
	}
	// Before June 2023 genproto still held the packages of the modules that were
	// split off it. Which imports turn that into an ambiguity depends on the user's
	// other requirements, so the version itself is what must hold.
	const split = "v0.0.0-20230600000000"
	if got := strings.TrimSpace(goTool(t, dir, "list", "-m", "-f", "{{.Version}}", "google.golang.org/genproto")); got < split {
		t.Errorf("the fixture gets google.golang.org/genproto %s, from before it was split", got)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mod, []byte("exclude")) || bytes.Count(mod, []byte("replace")) != 1 {
		t.Errorf("tidy needed more than the one replace of the checkout:\n%s", mod)
	}
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// goTool runs the go command as a stranger would: no workspace, no vendor, free
// to write its own go.mod. It returns standard output.
func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String()
	}
	if args[0] == "mod" && offline.Match(stderr.Bytes()) && os.Getenv("ARMATURE_REQUIRE_SERVICES") != "1" {
		t.Skipf("no module proxy to be reached and the module cache does not have everything: %s", lastLine(stderr.String()))
	}
	t.Fatalf("go %s in the fixture: %v\n%s", strings.Join(args, " "), err, stderr.String())
	return ""
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
