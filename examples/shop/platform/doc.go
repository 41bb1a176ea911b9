// Package platform is what every service of the shop has in common: its configuration, its database, and the pieces
// that make it a good participant of a saga.
//
//	svc, err := platform.NewService("inventory", cfg)
//	store, err := platform.OpenStore(ctx, svc, cfg, "inventory", schema)  // database, outbox relay, barrier
//	reply, err := platform.Once(ctx, store, func(ctx context.Context, tx *sql.Tx) (Reply, error) {
//		return reserve(ctx, tx, order)          // once per idempotency key, refusals included
//	})
//
// What fails how: a call without an idempotency key is INVALID_ARGUMENT; a call whose undo came first is ABORTED with
// reason UNDONE; a refusal (FAILED_PRECONDITION) undoes everything its function did in the transaction, is remembered,
// and is answered again to every repeat of the key; any other error leaves no trace, so that a repeat tries again.
package platform
