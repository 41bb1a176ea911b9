// Package nats drives NATS JetStream for package messaging.
//
//	broker, err := nats.Open(ctx, "nats://127.0.0.1:4222", nats.Config{})
//	err = broker.Ensure(ctx, "orders", "mail") // from now on the group misses nothing
//	sub, err := broker.Subscribe(ctx, "orders", "mail", handler)
//	err = broker.Publish(ctx, "orders", msg)
//	defer broker.Close(ctx)
//
// A topic is a stream with one subject, both named after it ("." becomes "=" in the stream's name); a group is a durable
// pull consumer with explicit acknowledgement. Messages are CloudEvents 1.0 in binary mode; structured JSON is understood
// too. What is neither, or malformed, goes to the group's dead letters.
//
// # Failures
//
// Publish returns when JetStream has acknowledged every message, and deduplicates by Message.ID for Config.Duplicates. After a lost
// connection it reports the unacknowledged ones as failed though they may be stored: publish them again with the same ID.
// The connection is made again for ever. Messages whose handlers were running when the process died are delivered again
// when Config.Lease has passed; those published after them may then be handled first. (The embedded server of package
// natsembed, which ends together with its handlers, delivers them at once and in order.)
//
// JetStream counts deliveries, not failures: a message given back by many drains starts with as many attempts, but it
// is never a dead letter before its handler has failed at least once.
//
// What "stored" means is the server's choice: a server that does not sync always (the default of nats-server is every
// two minutes) survives a crash of the process, but a power loss or a crash of the machine takes what was not synced.
package nats
