package discovery_test

import (
	"strings"
	"testing"

	"github.com/armature-go/armature/discovery"
)

func TestNormalizeChecksFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		in      discovery.Instance
		wantErr string // empty: valid
	}{
		{"ipv4", discovery.Instance{Service: "order", Addr: "127.0.0.1:80"}, ""},
		{"ipv6", discovery.Instance{Service: "order", Addr: "[::1]:8080"}, ""},
		{"ipv6 zone", discovery.Instance{Service: "order", Addr: "[fe80::1%eth0]:8080"}, ""},
		{"host name", discovery.Instance{Service: "order", Addr: "order.local:65535"}, ""},
		{"ipv6 without brackets", discovery.Instance{Service: "order", Addr: "::1:8080"}, "too many colons"},
		{"no port", discovery.Instance{Service: "order", Addr: "127.0.0.1"}, "missing port"},
		{"wildcard host", discovery.Instance{Service: "order", Addr: ":8080"}, "host is missing"},
		{"port zero", discovery.Instance{Service: "order", Addr: "127.0.0.1:0"}, `port "0"`},
		{"port too high", discovery.Instance{Service: "order", Addr: "127.0.0.1:65536"}, `port "65536"`},
		{"named port", discovery.Instance{Service: "order", Addr: "127.0.0.1:http"}, `port "http"`},
		{"no service", discovery.Instance{Addr: "127.0.0.1:80"}, `Service ""`},
		{"service with slash", discovery.Instance{Service: "a/b", Addr: "127.0.0.1:80"}, `Service "a/b"`},
		{"health", discovery.Instance{Service: "order", Addr: "127.0.0.1:80", Health: 9}, "Health 9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := tc.in.Normalize()
			switch {
			case tc.wantErr == "" && err != nil:
				t.Fatalf("Normalize() = %v, want no error", err)
			case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
				t.Fatalf("Normalize() = %v, want an error with %q", err, tc.wantErr)
			}
		})
	}
}

func TestNormalizeFillsDefaultsAndCopies(t *testing.T) {
	t.Parallel()
	given := discovery.Instance{Service: "order", Addr: "[::1]:80", Tags: []string{"a"}, Meta: map[string]string{"k": "v"}}
	got, err := given.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != "order/[::1]:80" || got.Weight != 1 {
		t.Errorf("ID, Weight = %q, %d", got.ID, got.Weight)
	}
	given.Tags[0], given.Meta["k"] = "changed", "changed"
	if got.Tags[0] != "a" || got.Meta["k"] != "v" {
		t.Errorf("the copy shares memory: %v %v", got.Tags, got.Meta)
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add("order", "127.0.0.1:80")
	f.Add("order", "[::1]:80")
	f.Add("", ":0")
	f.Fuzz(func(t *testing.T, service, addr string) {
		in, err := discovery.Instance{Service: service, Addr: addr}.Normalize()
		if err != nil {
			return
		}
		again, err := in.Normalize()
		if err != nil || again.ID != in.ID || again.Addr != in.Addr {
			t.Fatalf("a normal instance is not stable: %+v -> %+v, %v", in, again, err)
		}
	})
}

func TestSnapshotIsSortedAndUnique(t *testing.T) {
	t.Parallel()
	s := discovery.NewSnapshot(7,
		discovery.Instance{ID: "b", Addr: "old:1"}, discovery.Instance{ID: "a"}, discovery.Instance{ID: "b", Addr: "new:1"})
	if s.Rev != 7 || len(s.Instances) != 2 || s.Instances[0].ID != "a" || s.Instances[1].Addr != "new:1" {
		t.Fatalf("snapshot = %+v", s)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		discovery.Passing.String(): "passing", discovery.Warning.String(): "warning",
		discovery.Critical.String(): "critical", discovery.Draining.String(): "draining",
		discovery.Health(9).String(): "health(9)", discovery.Active.String(): "active",
		discovery.Leaving.String(): "leaving", discovery.Departed.String(): "departed",
		discovery.State(9).String(): "state(9)",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
