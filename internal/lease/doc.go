// Package lease elects one worker among many processes through a row in the
// database they share, and fences the ones that were replaced.
//
//	l, err := lease.New(lease.Config{Dialect: d, Table: "armature_outbox_lease", Name: "relay", Owner: id, TTL: 10 * time.Second})
//	held, err := l.Acquire(ctx, db) // nil: somebody else works
//	err = held.Renew(ctx, db)       // every TTL/3; ErrLost: stop at once
//	err = held.Fence(ctx, tx)       // first statement of a transaction that only the holder may commit
//	err = held.Release(ctx, db)     // the next one need not wait for the TTL
//
// # What holds
//
// Each acquisition has a greater epoch than all before. A transaction that
// begins with [Held.Fence] commits only while its epoch is the newest: the
// fence locks the row, so a takeover waits for the transaction or the
// transaction fails with [ErrLost]. Work outside the database (a message that
// is being sent) cannot be fenced; a holder stops it at [Held.Until], which is
// earlier than the moment another one may take over.
//
// # Whose clock
//
// On PostgreSQL the server's clock decides, so machines need not agree on the
// time. A SQLite file is shared by the processes of one machine, so their clock
// is the database's clock; it is passed in by the caller, which makes leases
// exact in a testing/synctest bubble. A holder never reads the stored time: it
// counts the TTL from before it asked, on its monotonic clock. A wall clock that
// is set forward can end a lease early on SQLite; the fence still holds.
package lease
