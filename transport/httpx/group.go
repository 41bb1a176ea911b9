package httpx

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Router is where [Handle] and [Stream] put a route: a [*Server] or a [*Group].
type Router interface {
	place(pattern string, opts []RouteOption) (*Server, string, []RouteOption)
}

func (s *Server) place(pattern string, opts []RouteOption) (*Server, string, []RouteOption) {
	return s, pattern, opts
}

// Group is a set of routes with one prefix and common options, such as a version
// of an API.
type Group struct {
	parent Router
	prefix string
	opts   []RouteOption
}

// Group returns a group of routes under prefix, which begins with a slash and does
// not end with one: "/v1". The options apply to every route before its own. It
// panics on another prefix.
func (s *Server) Group(prefix string, opts ...RouteOption) *Group { return newGroup(s, prefix, opts) }

// Group returns a group within the group.
func (g *Group) Group(prefix string, opts ...RouteOption) *Group { return newGroup(g, prefix, opts) }

func newGroup(parent Router, prefix string, opts []RouteOption) *Group {
	if !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
		panic(fmt.Sprintf("httpx: group %q: the prefix must begin with a slash and not end with one, as \"/v1\"", prefix))
	}
	return &Group{parent: parent, prefix: prefix, opts: opts}
}

func (g *Group) place(pattern string, opts []RouteOption) (*Server, string, []RouteOption) {
	method, path, found := strings.Cut(pattern, " ")
	if !found {
		method, path = "", pattern
	}
	path = strings.TrimLeft(path, " \t")
	if !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("httpx: group %q: the path of %q must begin with a slash", g.prefix, pattern))
	}
	if pattern = g.prefix + path; found {
		pattern = method + " " + pattern
	}
	return g.parent.place(pattern, slices.Concat(g.opts, opts))
}

// Deprecated tells callers since when, or from when on, a route should not be used
// (the Deprecation header of RFC 9745). docs, if not empty, is the address of a page
// that says what to use instead. It panics when since is zero.
func Deprecated(since time.Time, docs string) RouteOption {
	if since.IsZero() {
		panic("httpx: Deprecated: the time is zero; say since when")
	}
	return func(rt *route) {
		rt.set("Deprecation", "@"+strconv.FormatInt(since.Unix(), 10))
		rt.link(docs, "deprecation")
	}
}

// Sunset tells callers when a route is going to stop working (the Sunset header of
// RFC 8594). policy, if not empty, is the address of a page about it. The route goes
// on to work: removing it is up to a later release. It panics when at is zero.
func Sunset(at time.Time, policy string) RouteOption {
	if at.IsZero() {
		panic("httpx: Sunset: the time is zero; say when")
	}
	return func(rt *route) {
		rt.set("Sunset", at.UTC().Format(http.TimeFormat))
		rt.link(policy, "sunset")
	}
}

func (rt *route) set(name, value string) {
	if rt.header == nil {
		rt.header = http.Header{}
	}
	rt.header.Set(name, value)
}

func (rt *route) link(address, relation string) {
	if address != "" {
		rt.header.Add("Link", fmt.Sprintf("<%s>; rel=%q; type=\"text/html\"", address, relation))
	}
}
