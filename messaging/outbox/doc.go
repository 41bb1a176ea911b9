// Package outbox publishes messages if and only if the database transaction
// that wrote them commits.
//
//	box, err := outbox.New(outbox.Config{Dialect: outbox.SQLite, Publisher: broker})
//	err = box.Migrate(ctx, db)
//	err = box.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { // commits, then wakes the relay
//		return box.Publish(ctx, tx, "orders", msg)                     // beside your own statements
//	})
//	err = box.Run(ctx, db) // the relay, in a goroutine of its own, until ctx ends
//
// Trace context and flow values are taken when Publish is called, so the
// consumer sees the request that caused the message, not the relay.
//
// # Guarantees
//
// A committed message reaches the broker at least once, a rolled back one
// never. The relay deletes a row after the broker has stored its message and
// holds no transaction open meanwhile. A message is sent twice only if
//   - the process dies, or loses the database, between the two, or
//   - the relay loses its lease while the broker answers, or
//   - the broker stored the message but said otherwise (a timeout).
//
// It then carries the same ID: brokers that deduplicate by ID keep one, and
// consumers that need exactly one effect use package messaging/inbox.
//
// # Order
//
// Messages with the same topic and the same non-empty Key leave in the order of
// their rows, also while some of them fail: a message is sent only after the
// one before it is stored. Rows of one key are in commit order when the
// transactions that write them wait for each other, as those that lock the row
// of one aggregate do. Messages with an empty Key, and different topics, have
// no order between them.
//
// The price is one answer of the broker per message of a key; the messages of
// different keys, and those without one, share a call and are pipelined.
//
// # Failures
//
// A message the broker refuses stays and parks its key: it is tried again with
// growing delays while the other keys go on. After Config.MaxAttempts, or at
// once when the error says Retryable() == false, it moves to the table of dead
// messages ([Outbox.Dead], [Outbox.Redrive]) and its key continues.
//
// An outage of the broker is nobody's fault and counts for no message: a failed
// call is followed by the publisher's Ping, if it has one (a *messaging.Broker
// does), and when that fails too the relay waits and tries the same rows again.
// So does a failure that says NotExecuted() == true, such as an open circuit
// breaker. With a publisher that has no Ping every refusal counts.
//
// # One relay per database
//
// Any number of processes may call Run; a lease lets one work and another take
// over when it dies (after Config.Lease) or stops (at once, up to a poll). A
// relay that lost its lease stops sending at once. Between two relays the
// lease's epoch fences what they write down about failures.
//
// # Latency and load
//
// InTx and Wake make the relay of the same process look at once. Everything
// else, such as rows written by another process, is found by polling. An idle
// relay costs one indexed read per Config.Poll.
package outbox
