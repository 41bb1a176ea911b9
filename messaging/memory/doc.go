// Package memory is a message broker inside the process, with the full semantics of package messaging: groups, competing
// subscriptions, acknowledgements, delayed redelivery, dead letters, order per key even between the subscriptions of a
// group.
//
//	broker, err := memory.New(memory.Config{})
//	broker.Subscribe(ctx, "orders", "mail", handler)
//	broker.Publish(ctx, "orders", &messaging.Message{Type: "order.placed", Key: "o-1"})
//	broker.Close(ctx)
//
// Nothing survives the end of the process. A message published to a topic that has no group yet is gone, as on other
// brokers; use Ensure, or subscribe first. Dead letter topics keep their messages for the first groups to come. Time is
// that of package time, so inside a testing/synctest bubble delays take no time.
package memory
