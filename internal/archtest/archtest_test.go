package archtest_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/internal/archtest"
)

var update = flag.Bool("update", false, "rewrite the depguard rules of .golangci.yml from the import table")

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImportTableHolds(t *testing.T) {
	t.Parallel()
	pkgs, err := archtest.List(t.Context(), root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range archtest.Check(archtest.Table(), pkgs) {
		t.Error(v)
	}
	if missing := archtest.Missing(archtest.Required(), pkgs); len(missing) > 0 {
		t.Errorf("packages gone that the project promises: %s", strings.Join(missing, ", "))
	}
}

// The engine is worth nothing if it cannot find the mistakes it exists for.
func TestCheckFindsForbiddenImports(t *testing.T) {
	t.Parallel()
	const m = archtest.Module
	tests := []struct {
		name string
		pkg  archtest.Package
		want []string // violating imports, in order; "" stands for a missing row
	}{
		{name: "flow on the standard library", pkg: archtest.Package{ImportPath: m + "/flow", Imports: []string{"context", "net/http"}}},
		{name: "flow imports a third party", pkg: archtest.Package{ImportPath: m + "/flow", Imports: []string{"github.com/google/uuid"}}, want: []string{"github.com/google/uuid"}},
		{name: "core packages stay apart", pkg: archtest.Package{ImportPath: m + "/resilience", Imports: []string{m + "/flow", m + "/discovery"}}, want: []string{m + "/discovery"}},
		{name: "resilience compiles grpc through a friend", pkg: archtest.Package{ImportPath: m + "/resilience", Imports: []string{m + "/flow"}, Deps: []string{"google.golang.org/grpc"}}, want: []string{"google.golang.org/grpc"}},
		{name: "resilience compiles otel", pkg: archtest.Package{ImportPath: m + "/resilience", Deps: []string{"go.opentelemetry.io/otel/trace"}}, want: []string{"go.opentelemetry.io/otel/trace"}},
		{name: "resilience compiles prometheus", pkg: archtest.Package{ImportPath: m + "/resilience", Deps: []string{"github.com/prometheus/client_golang/prometheus"}}, want: []string{"github.com/prometheus/client_golang/prometheus"}},
		{name: "messaging compiles a broker client", pkg: archtest.Package{ImportPath: m + "/messaging", Deps: []string{"github.com/nats-io/nats.go/jetstream"}}, want: []string{"github.com/nats-io/nats.go/jetstream"}},
		{name: "the nats client links no server", pkg: archtest.Package{ImportPath: m + "/messaging/nats", Imports: []string{"github.com/nats-io/nats.go"}, Deps: []string{"github.com/nats-io/nats-server/v2/server"}}, want: []string{"github.com/nats-io/nats-server/v2/server"}},
		{name: "httpx compiles the grpc server", pkg: archtest.Package{ImportPath: m + "/transport/httpx", Deps: []string{"google.golang.org/grpc/status", "google.golang.org/grpc"}}, want: []string{"google.golang.org/grpc"}},
		{name: "status and codes are not the server", pkg: archtest.Package{ImportPath: m + "/transport", Imports: []string{"google.golang.org/grpc/status", "google.golang.org/grpc/codes"}}},
		{name: "a store imports a driver", pkg: archtest.Package{ImportPath: m + "/saga/sqlstore", Imports: []string{"modernc.org/sqlite"}}, want: []string{"modernc.org/sqlite"}},
		{name: "a driver sneaks in", pkg: archtest.Package{ImportPath: m + "/messaging/outbox", Deps: []string{"github.com/jackc/pgx/v5/stdlib"}}, want: []string{"github.com/jackc/pgx/v5/stdlib"}},
		{name: "a package imports the root", pkg: archtest.Package{ImportPath: m + "/logging", Imports: []string{m}}, want: []string{m}},
		{name: "a package imports an example", pkg: archtest.Package{ImportPath: m + "/saga", Imports: []string{m + "/examples/shop/money"}}, want: []string{m + "/examples/shop/money"}},
		{name: "the root imports a program", pkg: archtest.Package{ImportPath: m, Imports: []string{m + "/cmd/armature"}}, want: []string{m + "/cmd/armature"}},
		{name: "programs are free", pkg: archtest.Package{ImportPath: m + "/examples/shop/order", Imports: []string{m, "modernc.org/sqlite"}, Deps: []string{"modernc.org/sqlite"}}},
		{name: "a new package without a row", pkg: archtest.Package{ImportPath: m + "/util"}, want: []string{""}},
		{name: "a prefix is not a subtree", pkg: archtest.Package{ImportPath: m + "/messaging/inbox", Imports: []string{"go.opentelemetry.io/otel/tracefake"}}, want: []string{"go.opentelemetry.io/otel/tracefake"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range archtest.Check(archtest.Table(), []archtest.Package{tt.pkg}) {
				got = append(got, v.Import)
				if v.Package != tt.pkg.ImportPath || v.String() == "" {
					t.Errorf("violation names %q (%q), want %q", v.Package, v, tt.pkg.ImportPath)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMostSpecificRowWins(t *testing.T) {
	t.Parallel()
	rules := []archtest.Rule{
		{Package: "a/..."},
		{Package: "a/b", Ours: []string{"x"}},
		{Package: "a/b/...", Ours: []string{"y"}},
	}
	pkgs := []archtest.Package{
		{ImportPath: archtest.Module + "/a/b", Imports: []string{archtest.Module + "/x"}},
		{ImportPath: archtest.Module + "/a/b/c", Imports: []string{archtest.Module + "/y"}},
		{ImportPath: archtest.Module + "/a/c", Imports: []string{archtest.Module + "/y"}},
	}
	got := archtest.Check(rules, pkgs)
	if len(got) != 1 || got[0].Package != archtest.Module+"/a/c" || got[0].Rule != "a/..." {
		t.Errorf("got %v, want one violation of a/c under the row a/...", got)
	}
}

func TestMissingNamesLostPackages(t *testing.T) {
	t.Parallel()
	pkgs := []archtest.Package{{ImportPath: archtest.Module}, {ImportPath: archtest.Module + "/flow"}}
	if diff := cmp.Diff([]string{"saga"}, archtest.Missing([]string{".", "flow", "saga"}, pkgs)); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

// Editors run depguard, not this test; a row that only one of them knows is a
// row that will be broken.
func TestLinterKnowsEveryRow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(root(t), ".golangci.yml")
	cfg, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(cfg), archtest.DepguardBegin)
	if !ok {
		t.Fatalf("%s has no line %q", path, archtest.DepguardBegin)
	}
	got, tail, ok := strings.Cut(rest, archtest.DepguardEnd)
	if !ok {
		t.Fatalf("%s has no line %q", path, archtest.DepguardEnd)
	}
	want := archtest.Depguard(archtest.Table())
	if got == want {
		return
	}
	if !*update {
		t.Errorf("depguard rules differ from the import table; run make lint-rules (-want +got):\n%s", cmp.Diff(want, got))
		return
	}
	if err := os.WriteFile(path, []byte(head+archtest.DepguardBegin+want+archtest.DepguardEnd+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
