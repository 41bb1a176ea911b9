// Package inbox gives a consumer exactly one effect per message, although
// brokers deliver at least once.
//
//	box, err := inbox.New(inbox.Config{DB: db, Dialect: inbox.SQLite})
//	err = box.Migrate(ctx)
//	sub, err := broker.Subscribe(ctx, "orders", "billing", box.Handle("billing",
//		func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
//			return charge(ctx, tx, d.Message) // write through tx and nothing else
//		}))
//
// The handler runs in a transaction that also notes (group, message ID). A
// message that was noted before is acknowledged without running the handler.
//
// # What holds
//
//   - The handler's writes and the note commit together or not at all: an error
//     or a panic of the handler undoes both, and the broker delivers again.
//   - A crash after the commit and before the acknowledgement leads to a second
//     delivery, which finds the note and does nothing.
//   - Two deliveries of one message at the same time wait for each other; one
//     takes effect.
//   - Two groups handle the same message once each.
//
// What the handler does outside tx, such as a call to another service or a
// mail, is not covered: give such calls an idempotency key, or write a message
// to the outbox in tx and act on that.
//
// # Limits
//
// IDs must be unique among all messages a group consumes, whatever the topic;
// those that this module makes up are. A message that is delivered again after
// its note was purged takes effect again, so Config.Retention must be longer
// than any redelivery or redrive.
package inbox
