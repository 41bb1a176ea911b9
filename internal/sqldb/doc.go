// Package sqldb is what the outbox, the inbox, the saga journal and the
// examples share of database/sql: dialects, transactions, migrations and
// opening a database by URL. It imports no driver.
//
//	db, dialect, err := sqldb.Open(ctx, "sqlite:/var/lib/shop/order.db")
//	err = sqldb.Migrate(ctx, db, dialect, "orders", []string{"CREATE TABLE orders (…)"})
//	err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
//		_, err := tx.ExecContext(ctx, dialect.Rebind("UPDATE orders SET status = ? WHERE id = ?"), s, id)
//		return err
//	})
//
// Times are stored as BIGINT milliseconds since the Unix epoch, so that a row
// reads the same on every database.
package sqldb
