package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// The generated part of .golangci.yml lies between these two lines.
const (
	DepguardBegin = "      # BEGIN import table: written by make lint-rules\n"
	DepguardEnd   = "      # END import table\n"
)

// Depguard renders rules as the depguard rules of .golangci.yml, so that an
// editor reports a forbidden import while it is typed. Depguard sees direct
// imports only; NotCompiled stays with [Check].
func Depguard(rules []Rule) string {
	var b strings.Builder
	b.WriteString("      rules:\n")
	for _, r := range rules {
		if r.Any {
			continue
		}
		name, glob := r.Package, r.Package+"/*.go"
		if r.Package == "." {
			name, glob = "armature", "*.go"
		}
		fmt.Fprintf(&b, "        %s:\n", strings.NewReplacer("/...", "-all", "/", "-").Replace(name))
		b.WriteString("          list-mode: strict\n")
		fmt.Fprintf(&b, "          files: [\"${config-path}/%s\", \"!$test\"]\n", strings.ReplaceAll(glob, "/.../", "/**/"))
		b.WriteString("          allow:\n            - $gostd\n")
		for _, entry := range prefixes(r) {
			fmt.Fprintf(&b, "            - %s\n", entry)
		}
	}
	return b.String()
}

// prefixes translates patterns to depguard's: a prefix, or exact with "$".
// Depguard looks at the one entry that sorts next to an import, so an entry
// inside a subtree that is allowed as a whole would hide the subtree.
func prefixes(r Rule) []string {
	patterns := slices.Concat(qualify(r.Ours), r.Third)
	var out []string
	for i, p := range patterns {
		covered := func(other string) bool { return other != p && match(other, strings.TrimSuffix(p, "/...")) }
		if slices.ContainsFunc(patterns, covered) || slices.Contains(patterns[:i], p) {
			continue
		}
		base, subtree := strings.CutSuffix(p, "/...")
		out = append(out, base+"$")
		if subtree {
			out = append(out, base+"/")
		}
	}
	return out
}

func qualify(patterns []string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		out[i] = Module + "/" + p
	}
	return out
}
