package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path every package of the project starts with.
const Module = "github.com/armature-go/armature"

// Rule is one row of the import table.
//
// A pattern is an import path, or an import path followed by "/..." for the
// path and everything below it. Patterns of Package and Ours are relative to
// [Module]; "." is the root package.
type Rule struct {
	Package string   // the packages the row speaks about; the most specific row wins
	Ours    []string // packages of the project it may import
	Third   []string // third-party packages it may import
	Any     bool     // import anything; only NotCompiled counts
	// NotCompiled lists what must not be in the package's dependency closure,
	// however it would get there. Full import paths.
	NotCompiled []string
	Why         string // printed with a violation
}

// Package is what the go command knows about one of our packages.
type Package struct {
	ImportPath string   `json:"ImportPath"`
	Imports    []string `json:"Imports"` // direct, without tests
	Deps       []string `json:"Deps"`    // the whole closure
}

// Violation is one broken row.
type Violation struct {
	Package string // import path of the offender
	Import  string // what it must not import or compile; empty when the package has no row
	Rule    string // the row's package pattern
	Detail  string
}

// String says what is wrong and what to do about it, in one line.
func (v Violation) String() string {
	if v.Import == "" {
		return fmt.Sprintf("%s: %s", v.Package, v.Detail)
	}
	return fmt.Sprintf("%s imports %s: %s (row %q)", v.Package, v.Import, v.Detail, v.Rule)
}

// Check reports every way in which pkgs break rules, in the order of pkgs.
func Check(rules []Rule, pkgs []Package) []Violation {
	var out []Violation
	for _, p := range pkgs {
		r, ok := ruleFor(rules, p.ImportPath)
		if !ok {
			out = append(out, Violation{Package: p.ImportPath, Detail: "has no row in the import table: add one to internal/archtest/table.go and .golangci.yml"})
			continue
		}
		out = append(out, check(r, p)...)
	}
	return out
}

func check(r Rule, p Package) []Violation {
	var out []Violation
	for _, imp := range p.Imports {
		detail := ""
		switch {
		case r.Any || standard(imp):
		case ours(imp):
			if !matchAny(r.Ours, relative(imp)) {
				detail = "the row allows of ours " + list(r.Ours)
			}
		case !matchAny(r.Third, imp):
			detail = "the row allows of others " + list(r.Third)
		}
		if detail != "" {
			out = append(out, Violation{Package: p.ImportPath, Import: imp, Rule: r.Package, Detail: because(detail, r.Why)})
		}
	}
	for _, dep := range p.Deps {
		if matchAny(r.NotCompiled, dep) {
			out = append(out, Violation{Package: p.ImportPath, Import: dep, Rule: r.Package, Detail: because("must not be compiled, not even through others", r.Why)})
		}
	}
	return out
}

// Missing returns the patterns of want that none of pkgs matches.
func Missing(want []string, pkgs []Package) []string {
	var out []string
	for _, w := range want {
		if !slices.ContainsFunc(pkgs, func(p Package) bool { return match(w, relative(p.ImportPath)) }) {
			out = append(out, w)
		}
	}
	return out
}

// ruleFor picks the longest matching pattern, an exact one before a subtree.
func ruleFor(rules []Rule, path string) (Rule, bool) {
	var best Rule
	score := -1
	for _, r := range rules {
		if !match(r.Package, relative(path)) {
			continue
		}
		s := 2 * len(strings.TrimSuffix(r.Package, "/..."))
		if !strings.HasSuffix(r.Package, "/...") {
			s++
		}
		if s > score {
			best, score = r, s
		}
	}
	return best, score >= 0
}

func match(pattern, path string) bool {
	base, subtree := strings.CutSuffix(pattern, "/...")
	return path == base || subtree && strings.HasPrefix(path, base+"/")
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}

func ours(path string) bool {
	return path == Module || strings.HasPrefix(path, Module+"/")
}

// standard uses the go command's own convention: the first element of a path
// that can be downloaded has a dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func relative(path string) string {
	if path == Module {
		return "."
	}
	return strings.TrimPrefix(path, Module+"/")
}

func list(patterns []string) string {
	if len(patterns) == 0 {
		return "nothing"
	}
	return strings.Join(patterns, ", ")
}

func because(detail, why string) string {
	if why == "" {
		return detail
	}
	return detail + "; " + why
}
