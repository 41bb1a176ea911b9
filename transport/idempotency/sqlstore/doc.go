// Package sqlstore keeps idempotency keys in a SQL database, for all processes of a
// service.
//
//	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.PostgreSQL})
//	err = store.Migrate(ctx)
//	go store.Run(ctx) // deletes what has run out
//	keys, err := idempotency.New(idempotency.Config{Store: store})
//	place := idempotency.Once(keys, "orders.Place", svc.Place)
//
// A step is one statement, two for a claim that finds the key taken, and commits by
// itself. All times are those of the database, so the clocks of processes do not
// matter; on SQLite that is the clock of the machine.
//
// # Failures
//
// Errors of the database come back as they are wrapped, and package idempotency then
// runs nothing. What was stored survives what the database's commits survive. A result
// is stored after the operation's own transaction: a crash between the two runs the
// operation again when its lease has ended.
package sqlstore
