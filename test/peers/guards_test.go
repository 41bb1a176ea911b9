package peers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const defects = 17 // that were reproduced

var (
	defectName = regexp.MustCompile(`^TestDefect(\d\d)[A-Z]`)
	guardedBy  = regexp.MustCompile(`(?m)^Guarded by (.*)\.$`)
)

func defectNumber(test string) (int, bool) {
	m := defectName.FindStringSubmatch(test)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil
}

// A name in a comment says little once the test is renamed or gone.
func TestDefectsAreGuarded(t *testing.T) {
	t.Parallel()
	ours := make(map[string]bool)
	for _, f := range testFuncs(t, filepath.Join("..", "..", "resilience")) {
		ours[f.Name.Name] = true
	}
	if len(ours) == 0 {
		t.Fatal("no test of package resilience found")
	}
	shown := make(map[int]bool)
	for _, f := range testFuncs(t, ".") {
		number, ok := defectNumber(f.Name.Name)
		if !ok {
			continue
		}
		shown[number] = true
		m := guardedBy.FindStringSubmatch(f.Doc.Text())
		if m == nil {
			t.Errorf("%s names no guard of ours", f.Name.Name)
			continue
		}
		for _, guard := range strings.Split(m[1], ", ") {
			if !ours[guard] {
				t.Errorf("%s: package resilience has no test %s", f.Name.Name, guard)
			}
		}
	}
	for number := 1; number <= defects; number++ {
		if !shown[number] {
			t.Errorf("no test shows defect %d", number)
		}
	}
	if len(shown) != defects {
		t.Errorf("%d defects shown, want %d", len(shown), defects)
	}
}

func testFuncs(t *testing.T, dir string) []*ast.FuncDecl {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var funcs []*ast.FuncDecl
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				funcs = append(funcs, f)
			}
		}
	}
	return funcs
}
