package archtest_test

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guideImports is what a snippet of the guide may use without importing it.
var guideImports = map[string]string{
	"context":        "context",
	"errors":         "errors",
	"fmt":            "fmt",
	"http":           "net/http",
	"iter":           "iter",
	"netip":          "net/netip",
	"slog":           "log/slog",
	"synctest":       "testing/synctest",
	"testing":        "testing",
	"time":           "time",
	"backoff":        "github.com/cenkalti/backoff/v4",
	"prometheus":     "github.com/prometheus/client_golang/prometheus",
	"grpc":           "google.golang.org/grpc",
	"redis":          "github.com/redis/go-redis/v9",
	"wrapperspb":     "google.golang.org/protobuf/types/known/wrapperspb",
	"armature":       "github.com/armature-go/armature",
	"flow":           "github.com/armature-go/armature/flow",
	"transport":      "github.com/armature-go/armature/transport",
	"auth":           "github.com/armature-go/armature/transport/auth",
	"grpcx":          "github.com/armature-go/armature/transport/grpcx",
	"httpx":          "github.com/armature-go/armature/transport/httpx",
	"resilience":     "github.com/armature-go/armature/resilience",
	"otelresilience": "github.com/armature-go/armature/resilience/otelresilience",
	"promresilience": "github.com/armature-go/armature/resilience/promresilience",
	"redisrate":      "github.com/armature-go/armature/resilience/redisrate",
	"resiliencetest": "github.com/armature-go/armature/resilience/resiliencetest",
}

// guidePrelude is what the text around the snippets speaks of.
const guidePrelude = `
type Order struct{ ID string }

type orders struct{}

func (orders) Get(context.Context) (*Order, error)            { return nil, nil }
func (orders) ByID(context.Context, string) (*Order, error)   { return nil, nil }
func (orders) Delete(context.Context) error                   { return nil }

var (
	client orders
	svc    *armature.Service
)
`

var (
	fence     = regexp.MustCompile("(?ms)^```go\n(.*?)^```")
	qualified = regexp.MustCompile(`\b([a-z]\w*)\.[A-Z]`)
)

// The guide shows fragments. Each is compiled as the body of a function of its own
// that has a ctx and returns an error, or as declarations if it begins with one.
func TestGuideCompiles(t *testing.T) {
	t.Parallel()
	dir := root(t)
	pages, err := filepath.Glob(filepath.Join(dir, "docs", "guide", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no guide: %v", err)
	}
	overlay := map[string]string{}
	var packages []string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllSubmatchIndex(text, -1) {
			line := 1 + strings.Count(string(text[:m[2]]), "\n")
			code, err := guideProgram(string(text[m[2]:m[3]]), page, line)
			if err != nil {
				t.Errorf("%s:%d: %v", page, line, err)
				continue
			}
			name := fmt.Sprintf("guide%d", len(packages))
			source := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay[filepath.Join(dir, "internal", "archtest", name, "main.go")] = source
			packages = append(packages, "./internal/archtest/"+name)
		}
	}
	if len(packages) == 0 {
		t.Fatal("the guide shows no code")
	}
	buildOverlay(t, dir, overlay, packages)
}

// guideProgram makes a package of a fragment; mistakes are reported at line of page.
func guideProgram(fragment, page string, line int) (string, error) {
	formatted, err := format.Source([]byte(fragment))
	if err != nil {
		return "", err
	}
	if string(formatted) != fragment {
		return "", fmt.Errorf("not in canonical format:\n%s", formatted)
	}
	var code strings.Builder
	code.WriteString("package guide\n")
	imported := map[string]bool{"context": false}
	for _, m := range qualified.FindAllStringSubmatch(guidePrelude+fragment, -1) {
		imported[m[1]] = false
	}
	for name := range imported {
		if path, ok := guideImports[name]; ok {
			fmt.Fprintf(&code, "import %q\n", path)
		}
	}
	code.WriteString(guidePrelude)
	where := fmt.Sprintf("//line %s:%d\n", page, line)
	if strings.HasPrefix(fragment, "func ") || strings.HasPrefix(fragment, "type ") {
		return code.String() + where + fragment, nil
	}
	code.WriteString("func _(ctx context.Context) error {\n" + where + fragment)
	for _, name := range declared(fragment) {
		fmt.Fprintf(&code, "_ = %s\n", name) // a fragment need not use what it makes
	}
	code.WriteString("return nil\n}\n")
	return code.String(), nil
}

// declared returns the names that the statements of a fragment declare.
func declared(fragment string) []string {
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+fragment+"\n}", 0)
	if err != nil {
		return nil // the compiler will say so
	}
	body, _ := file.Decls[0].(*ast.FuncDecl)
	var names []string
	for _, statement := range body.Body.List {
		assign, ok := statement.(*ast.AssignStmt)
		if !ok || assign.Tok != token.DEFINE {
			continue
		}
		for _, left := range assign.Lhs {
			if name, ok := left.(*ast.Ident); ok && name.Name != "_" {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// The compiler must see what a reader would copy, mistakes included.
func TestGuideProgramKeepsTheFragment(t *testing.T) {
	t.Parallel()
	code, err := guideProgram("x, err := client.Get(ctx)\n", "page.md", 7)
	if err != nil || !strings.Contains(code, "//line page.md:7\nx, err := client.Get(ctx)\n_ = x\n_ = err\n") {
		t.Errorf("%v\n%s", err, code)
	}
	if _, err := guideProgram("x:=1\n", "page.md", 7); err == nil {
		t.Error("a fragment in no format passed")
	}
	if _, err := guideProgram("x := (\n", "page.md", 7); err == nil {
		t.Error("a fragment that does not parse passed")
	}
}
