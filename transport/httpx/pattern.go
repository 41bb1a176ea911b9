package httpx

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// pattern is a parsed pattern of http.ServeMux.
type pattern struct {
	method    string // empty = all
	path      string // with its wildcards; the bounded name of a route
	wildcards []string
}

// parsePattern leaves the syntax of the path to http.ServeMux.
func parsePattern(text string) pattern {
	method, path, found := strings.Cut(text, " ")
	if !found {
		method, path = "", text
	}
	p := pattern{method: method, path: strings.TrimLeft(path, " \t")}
	p.walk(func(string) {}, func(name string, _ bool) { p.wildcards = append(p.wildcards, name) })
	return p
}

func (p pattern) String() string { return strings.TrimSpace(p.method + " " + p.path) }

func (p pattern) hasBody() bool {
	return p.method == http.MethodPost || p.method == http.MethodPut || p.method == http.MethodPatch
}

// walk visits the literals and wildcards in order. {$} is neither.
func (p pattern) walk(literal func(string), wildcard func(name string, rest bool)) {
	rest := p.path
	for {
		before, after, found := strings.Cut(rest, "{")
		literal(before)
		if !found {
			return
		}
		name, tail, _ := strings.Cut(after, "}")
		if name != "$" {
			wildcard(strings.TrimSuffix(name, "..."), strings.HasSuffix(name, "..."))
		}
		rest = tail
	}
}

// expand returns the escaped path with the wildcards filled in.
func (p pattern) expand(values map[string]string) (string, error) {
	var b strings.Builder
	var err error
	p.walk(func(s string) { b.WriteString(s) }, func(name string, rest bool) {
		segments := []string{values[name]}
		if rest {
			segments = strings.Split(values[name], "/")
		}
		for i, segment := range segments {
			// Servers and proxies resolve dot segments even when escaped, and an
			// empty one is another route.
			if segment == "." || segment == ".." || segment == "" && !rest {
				err = fmt.Errorf("path parameter %q cannot be %q", name, segment)
			}
			if i > 0 {
				b.WriteByte('/')
			}
			b.WriteString(url.PathEscape(segment))
		}
	})
	return b.String(), err
}
