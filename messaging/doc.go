// Package messaging publishes and subscribes: one engine over thin broker drivers, so that order, retries, dead letters
// and shutdown are the same on every broker.
//
//	broker, err := memory.New(memory.Config{})
//	sub, err := broker.Subscribe(ctx, "orders", "mail", messaging.On(func(ctx context.Context, o Order, d *messaging.Delivery) error {
//		return sendMail(ctx, o)
//	}), messaging.Concurrency(16))
//	err = messaging.Publish(ctx, broker, "orders", "order.placed", order.ID, order)
//	defer broker.Close(ctx)
//
// # Delivery
//
// Delivery is at least once. Every group gets every message; subscriptions of one group share them out. A handler's
// result settles the message:
//
//   - nil: handled, never delivered again (short of a crash or a lost connection before the broker heard of it);
//   - any error: tried again after an exponential, jittered delay, and after [MaxAttempts] failures written to the topic
//     [DeadLetterTopic] with the chain of errors in its headers. An error whose RetryAfter() method gives a delay gets
//     that delay at least; one whose NotExecuted() method says that the callee never saw the call (an open breaker, a
//     full bulkhead) is retried without counting;
//   - [RetryAfter]: as above with a delay of one's own; [Permanent]: dead letter at once; [Drop]: acknowledged unhandled;
//   - [Release]: given back to the broker, uncounted;
//   - a panic counts as an error that carries the stack.
//
// A dead letter is stored before its message is acknowledged, so a crash in between makes two, never none.
//
// # Order
//
// Messages with equal Key are handled strictly one after the other in publish order, across retries too: while one
// waits for its next attempt those behind it wait, and other keys go on. This holds within one subscription. Several
// processes in one group share the messages of a key, and after a crash or a [Release] what comes back comes late:
// handlers that must not be overtaken check versions. A key that keeps failing can fill the subscription
// ([MaxInFlight]) until its messages are dead letters.
//
// # Shutdown
//
// [Subscription.Drain] and [Broker.Close] stop receiving, give back what was not started, and let running handlers
// finish with a live context and a working publisher. Contexts are cancelled only when the drain runs out of time.
//
// # Trace and flow
//
// Publish makes a producer span and writes W3C trace context and the values of package flow into the header; a message
// that has them already, because it waited in an outbox, keeps its own. The handler's context continues that trace, has
// the correlation id of the message and the message's ID as causation id.
package messaging
