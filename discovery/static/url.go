package static

import (
	"errors"
	"fmt"
	"strings"

	"github.com/armature-go/armature/discovery"
)

// scheme is what the URL of a static registry begins with.
const scheme = "static:"

// Open returns a Registry that knows the addresses in a URL of the form
//
//	static:order=10.0.0.7:7001,10.0.0.8:7001;payment=10.0.0.9:7002
//
// "static:" alone is an empty registry.
func Open(url string) (*Registry, error) {
	instances, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("static: open %q: %w", url, err)
	}
	return New(Config{Instances: instances})
}

func parse(url string) ([]discovery.Instance, error) {
	list, ok := strings.CutPrefix(url, scheme)
	if !ok {
		return nil, errors.New(`the URL must begin with "static:"`)
	}
	if list == "" {
		return nil, nil
	}
	var instances []discovery.Instance
	for service := range strings.SplitSeq(list, ";") {
		name, addrs, ok := strings.Cut(service, "=")
		if !ok {
			return nil, fmt.Errorf("%q must be NAME=HOST:PORT, with commas between several addresses", service)
		}
		for addr := range strings.SplitSeq(addrs, ",") {
			in, err := discovery.Instance{Service: name, Addr: addr}.Normalize()
			if err != nil {
				return nil, err
			}
			instances = append(instances, in)
		}
	}
	return instances, nil
}

// URL is the inverse of [Open] for instances that have a service and an address.
func URL(instances ...discovery.Instance) string {
	var names []string
	addrs := map[string][]string{}
	for _, in := range instances {
		if len(addrs[in.Service]) == 0 {
			names = append(names, in.Service)
		}
		addrs[in.Service] = append(addrs[in.Service], in.Addr)
	}
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = name + "=" + strings.Join(addrs[name], ",")
	}
	return scheme + strings.Join(parts, ";")
}
