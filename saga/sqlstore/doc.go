// Package sqlstore keeps sagas in SQLite or PostgreSQL through database/sql.
//
//	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
//	err = store.Migrate(ctx)
//	c, err := saga.NewCoordinator(saga.Config{Store: store, Node: "order-1"})
//
// # Durability
//
// A record is as durable as a commit of the database. PostgreSQL with
// synchronous_commit on, and SQLite with synchronous=FULL, keep every answered
// record through the loss of power. SQLite with synchronous=NORMAL keeps it
// through the death of the process only: a power loss may take the newest
// records, after which a step that was done can be done again; its participants
// must then remember its key.
//
// Records of concurrent sagas share commits: a saga of three steps costs four
// durable writes alone and a fraction of a commit each in company.
package sqlstore
