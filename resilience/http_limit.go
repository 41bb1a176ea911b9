package resilience

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/armature-go/armature/flow"
)

// RateTaker is a keyed rate limit, as *RateLimiter is.
type RateTaker interface {
	// Take takes n permits of key, all or none. An error means that nobody could
	// decide.
	Take(ctx context.Context, key string, n int) (RateDecision, error)
}

// RateHeaders selects how clients are told of their limit.
type RateHeaders uint8

const (
	// SeparateRateHeaders are RateLimit-Limit, RateLimit-Remaining and
	// RateLimit-Reset (seconds), which most clients know: drafts 00 to 07 of
	// draft-ietf-httpapi-ratelimit-headers.
	SeparateRateHeaders RateHeaders = iota
	// StructuredRateHeaders are RateLimit-Policy and RateLimit as structured fields,
	// as in later versions of the draft: "name";q=100;w=60 and "name";r=50;t=30.
	StructuredRateHeaders
	// NoRateHeaders tells nothing but Retry-After.
	NoRateHeaders
)

// LimitOptions adjusts a [LimitHandler]. The zero value limits by IP address of
// the peer and is right for a server that strangers reach directly.
type LimitOptions struct {
	// Key says whom a request counts for. A request with the key "" is not limited
	// and gets no headers, for health checks and the like. Nil means ByIP(), which
	// never returns "".
	Key func(*http.Request) string

	// Cost is the number of permits a request takes. Nil means 1; a cost of 0 or
	// less is not limited.
	Cost func(*http.Request) int

	// Name names the limit in StructuredRateHeaders. "" means "default". It must be
	// printable ASCII; what is not is left out.
	Name string

	// Headers selects the headers, which are on every answer, good ones included.
	Headers RateHeaders

	// Reject writes the answer for a request that was turned away; the headers are
	// set. err matches ErrRateLimited, or is what Take returned. Nil writes a problem
	// of RFC 9457 with status 429, or 503 when Take could not decide.
	Reject func(w http.ResponseWriter, r *http.Request, err error)
}

// LimitHandler limits how often each client may call. A request over the limit
// gets 429 and Retry-After in whole seconds, rounded up. Safe for concurrent use if
// limiter is. An error of limiter is answered with 503; whether a limiter whose
// store is down fails at all is its own configuration.
func LimitHandler(limiter RateTaker, o LimitOptions) func(http.Handler) http.Handler {
	if o.Key == nil {
		o.Key = ByIP()
	}
	if o.Reject == nil {
		o.Reject = writeRejection
	}
	l := &limitHandler{taker: limiter, options: o, name: quoted(o.Name)}
	if d, ok := limiter.(interface{ Limit() RateLimit }); ok {
		l.limit = d.Limit
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.serve(w, r, next) })
	}
}

type limitHandler struct {
	taker   RateTaker
	options LimitOptions
	name    string
	limit   func() RateLimit // nil = unknown
}

func (l *limitHandler) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	cost := 1
	if l.options.Cost != nil {
		cost = l.options.Cost(r)
	}
	key := l.options.Key(r)
	if key == "" || cost <= 0 {
		next.ServeHTTP(w, r)
		return
	}
	d, err := l.taker.Take(r.Context(), key, cost)
	if err != nil {
		after, known := retryAfter(err)
		if !known {
			after = -1
		}
		setRetryAfter(w.Header(), after)
		l.options.Reject(w, r, err)
		return
	}
	l.tell(w.Header(), d)
	if d.Allowed {
		next.ServeHTTP(w, r)
		return
	}
	setRetryAfter(w.Header(), d.RetryAfter)
	l.options.Reject(w, r, errTooMany)
}

// errTooMany matches ErrRateLimited and knows neither limiter nor key.
var errTooMany error = tooMany{}

type tooMany struct{}

func (tooMany) Error() string        { return "resilience: limit request: over the limit" }
func (tooMany) Is(target error) bool { return target == ErrRateLimited || target == ErrRejected }
func (tooMany) NotExecuted() bool    { return true }
func (tooMany) Retryable() bool      { return true }

func (l *limitHandler) tell(h http.Header, d RateDecision) {
	remaining, reset := strconv.Itoa(max(0, d.Remaining)), strconv.FormatInt(max(0, wholeSeconds(d.ResetAfter)), 10)
	switch l.options.Headers {
	case SeparateRateHeaders:
		h["Ratelimit-Limit"] = []string{strconv.Itoa(d.Limit)}
		h["Ratelimit-Remaining"] = []string{remaining}
		h["Ratelimit-Reset"] = []string{reset}
	case StructuredRateHeaders:
		policy := l.name + ";q=" + strconv.Itoa(d.Limit)
		if l.limit != nil {
			// Over its window a limit grants Rate, whatever can be had at once.
			limit := l.limit()
			policy = fmt.Sprintf("%s;q=%d;w=%d", l.name, limit.Rate, max(1, wholeSeconds(limit.Per)))
		}
		h["Ratelimit-Policy"] = []string{policy}
		h["Ratelimit"] = []string{l.name + ";r=" + remaining + ";t=" + reset}
	}
}

// quoted makes a string of structured fields (RFC 9651, 3.3.3).
func quoted(name string) string {
	if name == "" {
		name = "default"
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// ByPrincipal keys by the subject of the principal in the request's context, so
// the handler must stand inside the one that authenticates. Requests of nobody get
// the key of otherwise, nil meaning ByIP().
func ByPrincipal(otherwise func(*http.Request) string) func(*http.Request) string {
	if otherwise == nil {
		otherwise = ByIP()
	}
	return func(r *http.Request) string {
		if p, ok := flow.PrincipalFrom(r.Context()); ok {
			return "user:" + p.Subject // no address begins like this
		}
		return otherwise(r)
	}
}

// ByIP keys by the client's IP address: the address itself for IPv4, the /64
// network for IPv6, of which one client may have all addresses.
//
// The client is the peer of the connection unless that is a trusted proxy. Then
// X-Forwarded-For is read from the right, where the nearest proxy writes, up to the
// first address that is not trusted. What stands further left is the client's own
// claim and is not looked at. An entry that is no address ends the walk at the proxy
// that reported it. Without trusted the header is not looked at. Proxies that write
// Forwarded are for [ByForwarded].
//
// A peer without an address, as of a Unix socket, has the key "unknown".
func ByIP(trusted ...netip.Prefix) func(*http.Request) string {
	return byAddress(trusted, "X-Forwarded-For", parseAddress)
}

// ByForwarded is [ByIP] for proxies that write the Forwarded header (RFC 7239).
// There are two functions because a proxy passes the other header on as the client
// sent it: reading both would believe anybody.
func ByForwarded(trusted ...netip.Prefix) func(*http.Request) string {
	return byAddress(trusted, "Forwarded", parseForwarded)
}

func byAddress(trusted []netip.Prefix, header string, parse func(string) (netip.Addr, bool)) func(*http.Request) string {
	own := make([]netip.Prefix, 0, len(trusted))
	for _, p := range trusted {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		own = append(own, p.Masked())
	}
	isTrusted := func(a netip.Addr) bool {
		for _, p := range own {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) string {
		client, ok := parseAddress(r.RemoteAddr)
		if !ok {
			return "unknown"
		}
		if !isTrusted(client) {
			return addressKey(client)
		}
		lines := r.Header[header]
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more; {
				var entry string
				rest, entry, more = lastEntry(rest)
				addr, ok := parse(entry)
				if !ok {
					return addressKey(client)
				}
				if client = addr; !isTrusted(client) {
					return addressKey(client)
				}
			}
		}
		return addressKey(client)
	}
}

// lastEntry splits the last entry off a list.
func lastEntry(list string) (rest, entry string, more bool) { return cutLast(list, ',') }

// cutLast splits at the last sep outside quotes. Quotes are counted from the right,
// so that a client cannot swallow what a proxy appended with a quote of its own.
func cutLast(s string, sep byte) (rest, last string, more bool) {
	inQuotes := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == '"' && !escaped(s, i):
			inQuotes = !inQuotes
		case s[i] == sep && !inQuotes:
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}

func escaped(s string, i int) bool {
	n := 0
	for n < i && s[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// parseForwarded reads the for parameter of one element, which must be there once:
// a proxy may write its client's Host into the same element.
func parseForwarded(element string) (addr netip.Addr, ok bool) {
	for rest, more := element, true; more; {
		var pair string
		rest, pair, more = cutLast(rest, ';')
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		if ok {
			return netip.Addr{}, false
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		if addr, ok = parseAddress(value); !ok {
			return netip.Addr{}, false
		}
	}
	return addr, ok
}

// parseAddress reads an address with or without brackets and port.
func parseAddress(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	addr, err := netip.ParseAddr(s)
	if err != nil {
		if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
			addr, err = netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		} else {
			var ap netip.AddrPort
			ap, err = netip.ParseAddrPort(s)
			addr = ap.Addr()
		}
	}
	if err != nil {
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), true
}

func addressKey(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return "unknown"
	}
	return p.String()
}
