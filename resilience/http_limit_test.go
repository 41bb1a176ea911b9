package resilience_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
)

// decided is a limiter that has made up its mind.
type decided struct {
	d    resilience.RateDecision
	err  error
	keys []string
}

func (l *decided) Take(_ context.Context, key string, _ int) (resilience.RateDecision, error) {
	l.keys = append(l.keys, key)
	return l.d, l.err
}

type limited struct{ *decided }

func (limited) Limit() resilience.RateLimit {
	return resilience.RateLimit{Rate: 100, Per: 1500 * time.Millisecond, Burst: 10}
}

func TestLimitHandlerAnswers(t *testing.T) {
	t.Parallel()
	good := resilience.RateDecision{Allowed: true, Limit: 10, Remaining: 4, ResetAfter: 1200 * time.Millisecond}
	bad := resilience.RateDecision{Limit: 10, RetryAfter: 10 * time.Millisecond, ResetAfter: 3 * time.Second}
	for _, tt := range []struct {
		name    string
		limiter resilience.RateTaker
		options resilience.LimitOptions
		status  int
		header  map[string]string // "" = absent
	}{
		{"good", &decided{d: good}, resilience.LimitOptions{}, 204,
			map[string]string{"RateLimit-Limit": "10", "RateLimit-Remaining": "4", "RateLimit-Reset": "2", "Retry-After": "", "RateLimit": ""}},
		{"over", &decided{d: bad}, resilience.LimitOptions{}, 429,
			map[string]string{"RateLimit-Limit": "10", "RateLimit-Remaining": "0", "RateLimit-Reset": "3", "Retry-After": "1"}},
		{"good, structured", limited{&decided{d: good}}, resilience.LimitOptions{Name: `a"b`, Headers: resilience.StructuredRateHeaders}, 204,
			map[string]string{"RateLimit": `"a\"b";r=4;t=2`, "RateLimit-Policy": `"a\"b";q=100;w=2`, "RateLimit-Limit": ""}},
		{"over, structured", &decided{d: bad}, resilience.LimitOptions{Headers: resilience.StructuredRateHeaders}, 429,
			map[string]string{"RateLimit": `"default";r=0;t=3`, "RateLimit-Policy": `"default";q=10`, "Retry-After": "1"}},
		{"over, silent", &decided{d: bad}, resilience.LimitOptions{Headers: resilience.NoRateHeaders}, 429,
			map[string]string{"RateLimit": "", "RateLimit-Limit": "", "Retry-After": "1"}},
		{"no key", &decided{d: bad}, resilience.LimitOptions{Key: func(*http.Request) string { return "" }}, 204,
			map[string]string{"RateLimit-Limit": ""}},
		{"free of charge", &decided{d: bad}, resilience.LimitOptions{Cost: func(*http.Request) int { return 0 }}, 204,
			map[string]string{"RateLimit-Limit": ""}},
		{"undecided", &decided{err: errDown}, resilience.LimitOptions{}, 503,
			map[string]string{"RateLimit-Limit": "", "Retry-After": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			resilience.LimitHandler(tt.limiter, tt.options)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(204)
			})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			for name, want := range tt.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestByIP(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("::ffff:172.16.0.0/108")}
	for _, tt := range []struct {
		name, remote, header, want string
	}{
		{"a stranger", "203.0.113.9:1234", "", "203.0.113.9"},
		{"a stranger who claims", "203.0.113.9:1234", "198.51.100.1", "203.0.113.9"},
		{"one proxy", "10.0.0.1:1", "203.0.113.9", "203.0.113.9"},
		{"one proxy, a claim", "10.0.0.1:1", "198.51.100.1, 203.0.113.9", "203.0.113.9"},
		{"one proxy, a claim to be a proxy", "10.0.0.1:1", "198.51.100.1, 10.0.0.7, 203.0.113.9", "203.0.113.9"},
		{"two proxies", "10.0.0.1:1", "198.51.100.1,203.0.113.9 , 10.0.0.2", "203.0.113.9"},
		{"two lines", "10.0.0.1:1", "198.51.100.1\n203.0.113.9\n10.0.0.2", "203.0.113.9"},
		{"nothing but proxies", "10.0.0.1:1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"rubbish from the client", "10.0.0.1:1", "x, 203.0.113.9", "203.0.113.9"},
		{"rubbish from the proxy", "10.0.0.1:1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"},
		{"an empty entry", "10.0.0.1:1", "198.51.100.1,", "10.0.0.1"},
		{"with port", "10.0.0.1:1", "203.0.113.9:5555", "203.0.113.9"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1", "", "2001:db8:1:2::/64"},
		{"IPv6 neighbours", "[2001:db8:1:2:ffff::1]:1", "", "2001:db8:1:2::/64"},
		{"IPv6 through a proxy", "[fd00::1%eth0]:1", "[2001:db8::1]:99", "2001:db8::/64"},
		{"IPv6 in brackets", "[fd00::1]:1", "[2001:db8::1]", "2001:db8::/64"},
		{"mapped IPv4", "[::ffff:203.0.113.9]:1", "", "203.0.113.9"},
		{"mapped IPv4 proxy", "[::ffff:10.0.0.1]:1", "::ffff:203.0.113.9", "203.0.113.9"},
		{"mapped IPv4 in the configuration", "172.16.0.1:1", "203.0.113.9", "203.0.113.9"},
		{"Unix socket", "@", "198.51.100.1", "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.remote
			for line := range strings.SplitSeq(tt.header, "\n") {
				if line != "" {
					r.Header.Add("X-Forwarded-For", line)
				}
			}
			r.Header.Set("Forwarded", "for=198.51.100.66")
			if got := resilience.ByIP(trusted...)(r); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			r.Header.Set("X-Forwarded-For", "198.51.100.1")
			if got := resilience.ByIP()(r); got == "198.51.100.1" {
				t.Error("believes the header without trusted proxies")
			}
		})
	}
}

func TestByForwarded(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		`for=203.0.113.9`: "203.0.113.9",
		`for=198.51.100.1, For="203.0.113.9:80";proto=https`: "203.0.113.9",
		`for="[2001:db8::1]:99";by=10.0.0.1`:                 "2001:db8::/64",
		`for=198.51.100.1;x=", for=203.0.113.9`:              "203.0.113.9", // a client's open quote
		`for=198.51.100.1;x=", for="[2001:db8::1]"`:          "2001:db8::/64",
		`for=203.0.113.9;host="a;for=198.51.100.1;b"`:        "203.0.113.9", // a client's Host
		`host="a, for=198.51.100.1";for=203.0.113.9`:         "203.0.113.9",
		`for=203.0.113.9;host="a\", for=198.51.100.1;x=\"b"`: "203.0.113.9",
		`for=203.0.113.9;host=a;for=198.51.100.1`:            "10.0.0.1", // twice: whose is which?
		`for=unknown`:             "10.0.0.1",
		`for=_hidden, for=10.2.2`: "10.0.0.1",
		`proto=https`:             "10.0.0.1",
		``:                        "10.0.0.1",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set("Forwarded", header)
		r.Header.Set("X-Forwarded-For", "198.51.100.66")
		if got := resilience.ByForwarded(netip.MustParsePrefix("10.0.0.0/8"))(r); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func TestByPrincipal(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "203.0.113.9:1"
	if got := resilience.ByPrincipal(nil)(r); got != "203.0.113.9" {
		t.Errorf("nobody: %q", got)
	}
	r = r.WithContext(flow.WithPrincipal(r.Context(), flow.Principal{Subject: "203.0.113.9"}))
	if got := resilience.ByPrincipal(nil)(r); got != "user:203.0.113.9" {
		t.Errorf("somebody: %q", got)
	}
}

// FuzzForwardedFor checks that nothing a client writes in front of what the proxy
// appends changes whose request it is.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", "198.51.100.1", `for="`, `for=198.51.100.1;x="`, `\`, `"\", 10.0.0.2`, "10.0.0.9, 10.0.0.8", "[::1", ",,;=\""} {
		f.Add(s)
	}
	trusted := netip.MustParsePrefix("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, claim string) {
		r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{
			"X-Forwarded-For": {claim + ", 203.0.113.9"},
			"Forwarded":       {claim + `, for="[2001:db8::1]";host="a\"b"`},
		}}
		if got := resilience.ByIP(trusted)(r); got != "203.0.113.9" {
			t.Errorf("X-Forwarded-For %q: %q", claim, got)
		}
		if got := resilience.ByForwarded(trusted)(r); got != "2001:db8::/64" {
			t.Errorf("Forwarded %q: %q", claim, got)
		}
		r.Header = http.Header{"X-Forwarded-For": {claim}, "Forwarded": {claim}}
		if resilience.ByIP(trusted)(r) == "" || resilience.ByForwarded(trusted)(r) == "" {
			t.Errorf("%q: an empty key is not limited", claim)
		}
	})
}
