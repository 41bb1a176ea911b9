// Package natsembed runs a NATS JetStream server inside the process and a broker on it: durable messaging without a
// broker to install.
//
//	server, err := natsembed.Open(ctx, natsembed.Config{StoreDir: "data/events"})
//	broker := server.Broker()
//	err = broker.Publish(ctx, "orders", msg)
//	defer server.Close(ctx)
//
// The broker talks to the server over a pipe in memory; no port is opened unless Config.Listen asks for one.
//
// # Durability
//
// By default every message is on disk, synced, before Publish returns: it survives a crash of the process, a crash of
// the machine and a power loss (as far as the disk keeps its word). Config.SyncInterval trades that for speed: on the
// machine this was written on, 43,000 instead of 2,400 messages of 256 bytes a second in calls of a hundred.
//
// When a server opens a folder, messages that its predecessor had delivered but that were not acknowledged are delivered
// again at once, before newer ones, so that the order of a key survives a crash.
//
// A folder belongs to one server at a time: a second one is refused while the first lives (on Unix systems).
package natsembed
