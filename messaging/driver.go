package messaging

import (
	"context"
	"time"
)

// Driver is what a broker must be able to do; the engine in this package does the rest, the same for every broker: order
// per key, concurrency, retries, dead letters, lease extension, drain, spans. All methods are safe for concurrent use.
// The suite in messagingtest checks a driver.
type Driver interface {
	// Name is the OpenTelemetry messaging.system, for example "nats".
	Name() string
	// Send stores the messages on topic, in order, and returns when each is stored or has failed: nil, or one entry per
	// message. Messages are complete and valid and must not be changed or kept.
	Send(ctx context.Context, topic string, msgs []*Message) []error
	// Ensure creates the topic and the group unless they exist. From then on the group misses no message.
	Ensure(ctx context.Context, topic, group string) error
	// Consume starts to consume an ensured topic for a group.
	Consume(ctx context.Context, topic, group string) (Consumer, error)
	// Ping asks the broker for a sign of life.
	Ping(ctx context.Context) error
	// Close ends everything the driver started and waits for it. It is idempotent.
	Close() error
}

// Consumer is one subscription as a driver sees it. Receive is called by one goroutine; Settle and Extend by many.
type Consumer interface {
	// Receive waits for at least one message and returns at most max. The driver never holds more than max messages that
	// were not returned yet. An error that wraps ErrClosed ends the subscription, others are retried.
	Receive(ctx context.Context, max int) ([]*Received, error)
	// Settle ends the lease of one message. It may return before the broker has seen it; Close waits for that.
	Settle(ctx context.Context, r *Received, s Settlement) error
	// Extend renews the leases of rs and of what was received but not returned yet. It is called with an empty rs too.
	Extend(ctx context.Context, rs []*Received) error
	// Lease is how long the broker waits for a settlement before it delivers again; zero means for ever.
	Lease() time.Duration
	// Stop ends Receive and returns what was received but not returned by Receive. Messages settled after Stop go to
	// other subscriptions. It is called once, when no Receive is running.
	Stop(ctx context.Context) ([]*Received, error)
	// Close waits until all settlements have reached the broker, and frees what Consume took.
	Close(ctx context.Context) error
}

// Received is a message as a driver hands it over.
type Received struct {
	Message *Message
	// Err says that the message could not be decoded. It goes to the dead letters as it is, with what could be read of it
	// in Message.
	Err error
	// Delivered counts deliveries, this one included, as well as the broker knows: 1 for the first.
	Delivered int
	// Seq identifies the message within the topic, increasing in publish order; 0 when the broker cannot tell.
	Seq uint64
	// Token is the driver's own.
	Token any
}

// Verdict is what happens to a message.
type Verdict uint8

// The verdicts.
const (
	Ack    Verdict = iota // handled
	Nack                  // deliver again, the attempt counts
	GiveUp                // never deliver again
	Return                // deliver again, the attempt does not count where the broker can do that
)

// Settlement is a verdict with the delay after which Nack and Return deliver again.
type Settlement struct {
	Verdict Verdict
	Delay   time.Duration
}
