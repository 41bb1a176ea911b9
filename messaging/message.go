package messaging

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Header carries one value per name. Names are lower case by convention; names that start with "ce-" or "nats-" belong to
// the wire format and are refused by [Broker.Publish].
type Header map[string]string

// Message is an event or a command on its way between services. A Message that was published or delivered is shared:
// treat it as read-only, and Clone it to change it.
type Message struct {
	ID          string    // unique per Source; Publish fills in a new one when empty. Brokers and inboxes deduplicate by it
	Type        string    // what happened, for example "order.placed"; the topic when empty
	Source      string    // who says so; Config.Source when empty
	Subject     string    // what it is about, optional
	Key         string    // messages of equal Key are handled in order; empty means no order is asked for
	ContentType string    // media type of Data; "application/octet-stream" when empty
	Time        time.Time // when it happened; now when zero. Travels with nanoseconds, in UTC
	Header      Header    // everything else, trace context and flow values included
	Data        []byte
}

// Clone returns a copy that shares nothing but Data with m.
func (m *Message) Clone() *Message {
	c := *m
	c.Header = maps.Clone(m.Header)
	return &c
}

// Publisher puts messages on a topic.
//
// Publish returns nil when every message is stored as durably as the broker stores messages, and otherwise a
// *[PublishError] that says for each message what happened. A message whose error is a context error or a lost
// connection may have been stored: publishing it again with the same ID is the way to find out, and brokers that
// deduplicate then keep one.
type Publisher interface {
	Publish(ctx context.Context, topic string, msgs ...*Message) error
}

// Subscriber delivers the messages of a topic to a handler. Every group sees each message; the subscriptions of one
// group share them out.
type Subscriber interface {
	Subscribe(ctx context.Context, topic, group string, h Handler, opts ...SubscribeOption) (*Subscription, error)
}

// Delivery is one attempt at handling a message.
type Delivery struct {
	Message *Message
	Topic   string
	Group   string
	// Attempt is 1 for the first attempt. Attempts made before a restart are included as far as the broker counts them.
	Attempt int
	// Redelivered reports that this message was, or may have been, handed to a handler before.
	Redelivered bool
}

// Handler handles a delivery. What it returns settles the message: see the package documentation. It runs concurrently
// with itself for different keys. Its context carries the flow values and the trace of the message and is cancelled only
// when a Drain or Close runs out of time, or by [Timeout].
type Handler func(ctx context.Context, d *Delivery) error

// Middleware wraps a handler.
type Middleware func(Handler) Handler

// ValidName reports what is wrong with a topic or a group name: names have 1 to 200 of the characters a-z A-Z 0-9 . _ -,
// and no part between two dots is empty. The rule is the common ground of all brokers.
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty")
	case len(name) > 200:
		return fmt.Errorf("name %.20q… has %d characters, at most 200 are allowed", name, len(name))
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return fmt.Errorf("name %q has an empty part between dots", name)
	}
	for _, r := range name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-') {
			return fmt.Errorf("name %q contains %q, allowed are letters, digits, dot, dash and underscore", name, r)
		}
	}
	return nil
}

func (m *Message) validate() error {
	if m == nil {
		return fmt.Errorf("message is nil")
	}
	for k := range m.Header {
		if k == "" || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r == ':' || r >= 0x7f }) {
			return fmt.Errorf("header name %q has characters outside printable ASCII", k)
		}
		if l := strings.ToLower(k); strings.HasPrefix(l, "ce-") || strings.HasPrefix(l, "nats-") || l == "content-type" {
			return fmt.Errorf("header name %q belongs to the wire format, use a field of the message or another name", k)
		}
	}
	return nil
}
