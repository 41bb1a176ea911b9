package ws

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

const anyOrigin = "*"

// checkOrigin refuses entries of Config.Origins that would never match, or match more
// than they seem to.
func checkOrigin(pattern string) error {
	if pattern == anyOrigin {
		return nil
	}
	fix := errors.New("must be a scheme and a host, as \"https://app.example.com\"; a star may only be its first label")
	scheme, host, found := strings.Cut(pattern, "://")
	if !found || scheme == "" || strings.Contains(scheme, "*") {
		return fix
	}
	host, _ = strings.CutPrefix(host, "*.")
	u, err := url.Parse(scheme + "://" + host)
	if err != nil || u.Host != host || host == "" || strings.ContainsAny(host, "*@") {
		return fix
	}
	return nil
}

// originAllowed says whether the page that makes the request may: any site can open a
// WebSocket to any other, and the browser sends the user's cookies along. A request
// without Origin is not made by a page.
func originAllowed(r *http.Request, patterns []string) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	for _, p := range patterns {
		if p == anyOrigin {
			return true
		}
	}
	if len(origins) > 1 {
		return false
	}
	u, err := url.Parse(origins[0])
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false // "null" too: sandboxed frames and files
	}
	scheme := strings.ToLower(u.Scheme)
	host := withoutPort(scheme, u.Host)
	// TLS may end in front of the server, so the scheme of the request is not known.
	if host == withoutPort(scheme, r.Host) {
		return true
	}
	for _, p := range patterns {
		allowed, domain, _ := strings.Cut(p, "://")
		if !strings.EqualFold(allowed, scheme) {
			continue
		}
		if suffix, wild := strings.CutPrefix(domain, "*"); wild {
			suffix = withoutPort(scheme, suffix)
			if len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
				return true
			}
		} else if host == withoutPort(scheme, domain) {
			return true
		}
	}
	return false
}

// withoutPort removes the default port of scheme and lowers the case.
func withoutPort(scheme, host string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return host
}
