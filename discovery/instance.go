package discovery

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Health is what a registry believes about an instance. The zero value is
// Passing.
type Health uint8

// The states of an instance. Only Passing instances are given calls.
const (
	Passing  Health = iota // takes calls
	Warning                // works, but its owner asks for attention
	Critical               // fails its check
	Draining               // finishes what it has and takes nothing new
)

// String returns the name in lower case: "passing", "warning", "critical",
// "draining".
func (h Health) String() string {
	switch h {
	case Passing:
		return "passing"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	case Draining:
		return "draining"
	}
	return "health(" + strconv.Itoa(int(h)) + ")"
}

// Instance is one running copy of a service. It is a value; Tags and Meta are
// shared between copies and must not be changed once the Instance was handed to
// a registry or came from one.
type Instance struct {
	ID       string            // unique within the service; empty means "<service>/<addr>"
	Service  string            // name callers ask for, without spaces and slashes
	Addr     string            // host:port, IPv6 hosts in brackets; port 1 to 65535
	Scheme   string            // how to talk to it ("http", "grpc"); empty when callers know
	Version  string            // version of the program
	Zone     string            // failure domain
	Weight   uint32            // share of the calls for who weighs them, round robin does not; 0 means 1
	Priority uint16            // lower is preferred by who heeds it, round robin does not
	Health   Health            // Passing unless told otherwise
	Tags     []string          // free labels
	Meta     map[string]string // free attributes
}

// Normalize returns a deep copy with the defaults filled in, or an error that
// names the field, its value and the rule it breaks. Registries call it on what
// they are given, so an Instance from a Snapshot is always normal.
func (in Instance) Normalize() (Instance, error) {
	if in.Service == "" || strings.ContainsAny(in.Service, "/ \t\r\n") {
		return Instance{}, fmt.Errorf("discovery: check instance: Service %q must be a name without spaces and slashes, such as %q", in.Service, "order")
	}
	if err := checkAddr(in.Addr); err != nil {
		return Instance{}, fmt.Errorf("discovery: check instance of %s: Addr %q must be host:port, such as %q or %q: %w", in.Service, in.Addr, "10.0.0.7:8080", "[::1]:8080", err)
	}
	if in.Health > Draining {
		return Instance{}, fmt.Errorf("discovery: check instance of %s: Health %d must be Passing, Warning, Critical or Draining", in.Service, in.Health)
	}
	if in.ID == "" {
		in.ID = in.Service + "/" + in.Addr
	}
	if in.Weight == 0 {
		in.Weight = 1
	}
	in.Tags = slices.Clone(in.Tags)
	in.Meta = maps.Clone(in.Meta)
	return in, nil
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if host == "" {
		return fmt.Errorf("the host is missing: others cannot reach a wildcard address")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535: register after the listener is bound", port)
	}
	return nil
}

// equal compares everything, so that an update without a difference is not an
// event for the watchers.
func (in Instance) equal(other Instance) bool {
	return in.ID == other.ID && in.sameTarget(other) &&
		in.Service == other.Service && in.Version == other.Version && in.Zone == other.Zone &&
		in.Weight == other.Weight && in.Priority == other.Priority && in.Health == other.Health &&
		slices.Equal(in.Tags, other.Tags) && maps.Equal(in.Meta, other.Meta)
}

// sameTarget reports whether a connection to in is also one to other.
func (in Instance) sameTarget(other Instance) bool {
	return in.Addr == other.Addr && in.Scheme == other.Scheme
}
