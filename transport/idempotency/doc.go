// Package idempotency runs a call once for each idempotency key and answers its
// repetitions with the first one's result.
//
//	keys, err := idempotency.New(idempotency.Config{Store: store}) // sqlstore, redisstore or NewMemory
//	place := idempotency.Once(keys, "orders.Place", svc.Place)
//	httpx.Handle(server, "POST /orders", place) // header Idempotency-Key
//	grpcx.Register(grpcServer, "shop.Orders", grpcx.Unary("Place", place)) // metadata idempotency-key
//
// The key is the incoming one of package flow, which the transports fill in. A key
// belongs to one operation and one principal: those of two users, or of two
// operations, never meet. It should be random, as a UUID is.
//
// # What a caller gets
//
//   - The first call runs. Duplicates that come meanwhile wait, for Config.Wait or as
//     long as their context lets them, and get its result; [ErrInProgress] when they
//     have waited in vain.
//   - Later ones get the stored result, which does not run anything, until Config.TTL.
//   - The same key with another request gets [ErrReused], which is a 422, at once.
//
// A replayed response encodes to the same bytes as the first one did, provided the
// codec reads back all it has written; a replayed error has the code, status, reason,
// message and details of the first one, and no cause.
//
// # What is stored
//
// A response, and an error that would come again: INVALID_ARGUMENT, NOT_FOUND,
// ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE. All other
// errors, those that call themselves Retryable or NotExecuted, and panics free the
// key, and the next one with it runs: what an operation did before it failed so is
// its own affair, most simply one transaction. A result that is too large, or that the
// codec refuses, is stored as a note that the operation ran: the first caller gets
// the result, and its duplicates [ErrUnreplayable].
//
// # Failures
//
// A process that dies takes its calls along, and their keys stay claimed until
// Config.Lease has passed; duplicates wait for that, and then one of them runs. What
// the dead one had done by then is done: once means one result, and one effect only
// if the operation is atomic. The same holds when the result of a call cannot be
// stored, which is tried for Config.Timeout and then logged, and the caller gets it
// all the same.
//
// A process that cannot prolong its lease, because the store is away or the process
// stood still, has its call's context cancelled when the lease ends. A call that does
// not look at its context, or that has done its work unnoticed, may then overlap with
// a second one. [ErrInterrupted] tells the caller.
//
// Without its store nothing runs: [ErrUnavailable]. A record that cannot be read, as
// after an incompatible change of the response type, is ErrUnreplayable as well, and
// never a reason to run again.
package idempotency
