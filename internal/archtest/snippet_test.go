package archtest_test

import (
	"encoding/json"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/internal/archtest"
)

// What a reader copies out of the documentation must compile.
func TestDocumentationCompiles(t *testing.T) {
	t.Parallel()
	dir := root(t)
	files := []string{filepath.Join(dir, "README.md")}
	err := filepath.WalkDir(filepath.Join(dir, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	// The programs exist only in an overlay: packages of this module that no
	// folder has.
	overlay := map[string]string{}
	var packages []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range archtest.Snippets(string(text)) {
			formatted, err := format.Source([]byte(s.Code))
			if err != nil || string(formatted) != s.Code {
				t.Errorf("%s:%d: not in canonical format (%v)", file, s.Line, err)
			}
			name := fmt.Sprintf("snippet%d", len(packages))
			source := filepath.Join(t.TempDir(), "main.go")
			// Mistakes are reported where the reader finds them.
			code := fmt.Sprintf("//line %s:%d\n%s", file, s.Line, s.Code)
			if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay[filepath.Join(dir, "internal", "archtest", name, "main.go")] = source
			packages = append(packages, "./internal/archtest/"+name)
		}
	}
	if len(packages) == 0 {
		t.Fatal("the documentation has no runnable program")
	}
	buildOverlay(t, dir, overlay, packages)
}

// buildOverlay builds packages whose files are elsewhere.
func buildOverlay(t *testing.T, dir string, overlay map[string]string, packages []string) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(list, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", os.DevNull, "-overlay", list}, packages...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSnippetsFindsPrograms(t *testing.T) {
	t.Parallel()
	text := "a\n```go\nnot whole\n```\n```go runnable\npackage main\n\nfunc main() {}\n```\nb\n```sh\nls\n```\n```go runnable\npackage x\n```\n"
	want := []archtest.Snippet{
		{Line: 6, Code: "package main\n\nfunc main() {}\n"},
		{Line: 15, Code: "package x\n"},
	}
	if diff := cmp.Diff(want, archtest.Snippets(text)); diff != "" {
		t.Errorf("snippets (-want +got):\n%s", diff)
	}
}
