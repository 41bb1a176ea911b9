// Package saga runs a business transaction over several services as a sequence
// of steps, writes down how far it got, and undoes what was done when a later
// step fails. A saga survives the death of its process: whoever holds the
// journal goes on where it stopped.
//
//	order, err := saga.Define("place-order", 1,
//		saga.Step("reserve", reserve).Undo(release),
//		saga.Step("charge", charge).Undo(refund).Pivot(),
//		saga.Step("ship", ship))
//	c, err := saga.NewCoordinator(saga.Config{Store: store})
//	err = saga.Register(c, order)
//	go c.Run(ctx)
//	err = saga.Start(ctx, c, order, "order-42", &Order{…})
//
// # What a step may answer
//
//   - nil: done. The data as the step left it is written to the journal.
//   - [Refuse](err): a definite no, nothing happened. The saga aborts and undoes
//     the steps before this one.
//   - any other error: it is not known whether something happened. The step is
//     tried again with the same key; when the attempts are spent the saga
//     aborts and undoes this step too.
//
// After the pivot a saga only goes forward: steps are tried until they succeed,
// and the saga parks, visible and repairable, when their attempts are spent.
//
// # What a participant must do
//
// A step may be called more than once with the same key (see [KeyFrom]), and
// its undo may arrive before it, or without it. A participant that keeps its
// effects in a database gets both right with a [Barrier]. Keys travel in
// [flow.OutgoingIdempotencyKey], which the transports of this module send.
//
// # Guarantees
//
// Every record is durable before the next action. An abort is durable before
// the first undo. A coordinator that lost its lease, or was frozen and thawed,
// cannot write: each record takes the next sequence number at its own epoch,
// and whoever takes over writes a takeover record first. What "durable" means
// is the store's business; sqlstore says.
package saga
