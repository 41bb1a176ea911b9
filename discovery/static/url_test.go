package static_test

import (
	"strings"
	"testing"

	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"order=a:1":                     `must begin with "static:"`,
		"static:order":                  "NAME=HOST:PORT",
		"static:order=":                 "Addr",
		"static:order=host":             "Addr",
		"static:=a:1":                   "Service",
		"static:order=a:1;":             "NAME=HOST:PORT",
		"static:order=a:1,a:1":          "already registered",
		"static:order=a:1;order=a:1":    "already registered",
		"static:order=10.0.0.7:0":       "port",
		"static:order=10.0.0.7:7,:8080": "host is missing",
	} {
		if _, err := static.Open(url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want it to say %q", url, err, want)
		}
	}
	if _, err := static.Open("static:"); err != nil {
		t.Errorf("an empty registry: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("static:order=a:1,b:2;payment=[::1]:3")
	f.Fuzz(func(t *testing.T, url string) {
		r, err := static.Open(url)
		if err != nil {
			return
		}
		var all []discovery.Instance
		for _, snap := range r.Services() {
			all = append(all, snap.Instances...)
		}
		again, err := static.Open(static.URL(all...))
		if err != nil {
			t.Fatalf("the URL of what was opened does not open: %v", err)
		}
		for name, snap := range r.Services() {
			if len(again.Services()[name].Instances) != len(snap.Instances) {
				t.Errorf("%s changed on the way", name)
			}
		}
	})
}
