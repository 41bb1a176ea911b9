package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/internal/groupcommit"
	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/saga"
)

// Dialect says which database the statements are written for.
type Dialect = sqldb.Dialect

// The dialects.
const (
	SQLite     = sqldb.SQLite
	PostgreSQL = sqldb.PostgreSQL
)

// Config configures a [Store].
type Config struct {
	// DB is the journal's database. Required; the caller closes it. Local steps
	// write in it too.
	DB *sql.DB
	// Dialect of DB. Required.
	Dialect Dialect
	// TablePrefix of the tables saga, saga_log and saga_node. Default
	// [saga.DefaultTablePrefix].
	TablePrefix string
}

// Store is a [saga.Store] on database/sql. It is safe for concurrent use.
type Store struct {
	db      *sql.DB
	dialect Dialect
	prefix  string
	q       queries
	commits *groupcommit.Committer[appended]
}

var _ saga.Store = (*Store)(nil)

type appended struct {
	entry  saga.Entry
	status saga.Status
}

// maxBatch bounds how many records one commit carries.
const maxBatch = 256

type queries struct {
	join, renew, leave                 string
	create, log, advance, owned        string
	orphans, takeOver, record, journal string
	count                              string
}

// New returns a store; call [Store.Migrate] before its first use.
func New(cfg Config) (*Store, error) {
	if cfg.DB == nil {
		return nil, errors.New("sqlstore: new: Config.DB is nil: open a database first")
	}
	if err := cfg.Dialect.Validate(); err != nil {
		return nil, fmt.Errorf("sqlstore: new: %w", err)
	}
	if err := sqldb.ValidPrefix(cfg.TablePrefix); err != nil {
		return nil, fmt.Errorf("sqlstore: new: %w", err)
	}
	if cfg.TablePrefix == "" {
		cfg.TablePrefix = saga.DefaultTablePrefix
	}
	s := &Store{db: cfg.DB, dialect: cfg.Dialect, prefix: cfg.TablePrefix}
	s.commits = groupcommit.New(maxBatch, s.flush)

	sagas, entries, nodes := cfg.TablePrefix+"saga", cfg.TablePrefix+"saga_log", cfg.TablePrefix+"saga_node"
	rebind := cfg.Dialect.Rebind
	const columns = "id, name, version, hash, status, node, node_epoch, epoch, seq, error, header, created_at, updated_at"
	s.q = queries{
		join: rebind("INSERT INTO " + nodes + " (node, epoch, lease_until) VALUES (?, 1, ?)" +
			" ON CONFLICT (node) DO UPDATE SET epoch = " + nodes + ".epoch + 1, lease_until = excluded.lease_until RETURNING epoch"),
		renew:  rebind("UPDATE " + nodes + " SET lease_until = ? WHERE node = ? AND epoch = ?"),
		leave:  rebind("UPDATE " + nodes + " SET lease_until = 0 WHERE node = ? AND epoch = ?"),
		create: rebind("INSERT INTO " + sagas + " (" + columns + ") VALUES (" + sqldb.Placeholders(13) + ") ON CONFLICT DO NOTHING"),
		log: rebind("INSERT INTO " + entries + " (id, seq, epoch, kind, step, name, unknown, error, body, at) VALUES (" +
			sqldb.Placeholders(10) + ")"),
		advance: rebind("UPDATE " + sagas + " SET seq = ?, status = ?, error = CASE WHEN ? <> '' THEN ? ELSE error END, updated_at = ?" +
			" WHERE id = ? AND epoch = ? AND seq = ?"),
		owned: rebind("SELECT id FROM " + sagas + " WHERE node = ? AND node_epoch = ? AND status IN ('running', 'compensating')" +
			" ORDER BY created_at, id LIMIT ?"),
		orphans: rebind("SELECT s.id FROM " + sagas + " s LEFT JOIN " + nodes + " n ON n.node = s.node" +
			" WHERE s.status IN ('running', 'compensating') AND (n.node IS NULL OR n.lease_until < ? OR n.epoch <> s.node_epoch)" +
			" ORDER BY s.created_at, s.id LIMIT ?"),
		takeOver: rebind("UPDATE " + sagas + " SET node = ?, node_epoch = ?, epoch = epoch + 1, seq = seq + 1, updated_at = ?" +
			" WHERE id = ? AND epoch = ? AND seq = ? AND status IN ('running', 'compensating')"),
		record:  rebind("SELECT " + columns + " FROM " + sagas + " WHERE id = ?"),
		journal: rebind("SELECT seq, epoch, kind, step, name, unknown, error, body, at FROM " + entries + " WHERE id = ? ORDER BY seq"),
		count:   "SELECT status, COUNT(*) FROM " + sagas + " GROUP BY status",
	}
	return s, nil
}

// Migrate creates the store's tables, or brings them up to date.
func (s *Store) Migrate(ctx context.Context) error {
	p, bytes := s.prefix, s.dialect.Bytes()
	return sqldb.Migrate(ctx, s.db, s.dialect, p+"saga", []string{
		"CREATE TABLE " + p + "saga (id TEXT PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, hash BIGINT NOT NULL," +
			" status TEXT NOT NULL, node TEXT NOT NULL, node_epoch BIGINT NOT NULL, epoch BIGINT NOT NULL, seq BIGINT NOT NULL," +
			" error TEXT NOT NULL, header TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
		"CREATE INDEX " + p + "saga_open ON " + p + "saga (node, node_epoch) WHERE status IN ('running', 'compensating')",
		"CREATE TABLE " + p + "saga_log (id TEXT NOT NULL, seq BIGINT NOT NULL, epoch BIGINT NOT NULL, kind TEXT NOT NULL," +
			" step INTEGER NOT NULL, name TEXT NOT NULL, unknown INTEGER NOT NULL, error TEXT NOT NULL, body " + bytes + "," +
			" at BIGINT NOT NULL, PRIMARY KEY (id, seq))",
		"CREATE TABLE " + p + "saga_node (node TEXT PRIMARY KEY, epoch BIGINT NOT NULL, lease_until BIGINT NOT NULL)",
	})
}

// Join implements [saga.Store]. Leases are told by the clocks of the nodes,
// which must agree to well within the lease time; a clock that is wrong costs
// needless takeovers, never a doubled record.
func (s *Store) Join(ctx context.Context, node string, ttl time.Duration) (epoch int64, err error) {
	row := s.db.QueryRowContext(ctx, s.q.join, node, time.Now().Add(ttl).UnixMilli())
	if err := row.Scan(&epoch); err != nil {
		return 0, fmt.Errorf("sqlstore: join: %w", err)
	}
	return epoch, nil
}

// Renew implements [saga.Store].
func (s *Store) Renew(ctx context.Context, node string, epoch int64, ttl time.Duration) error {
	return s.lease(ctx, "renew", s.q.renew, time.Now().Add(ttl).UnixMilli(), node, epoch)
}

// Leave implements [saga.Store].
func (s *Store) Leave(ctx context.Context, node string, epoch int64) error {
	return s.lease(ctx, "leave", s.q.leave, node, epoch)
}

func (s *Store) lease(ctx context.Context, what, query string, args ...any) error {
	if err := one(s.db.ExecContext(ctx, query, args...)); err != nil {
		return fmt.Errorf("sqlstore: %s: %w", what, err)
	}
	return nil
}

// one returns ErrFenced unless exactly one row was changed.
func one(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return saga.ErrFenced
	}
	return nil
}

// Create implements [saga.Store].
func (s *Store) Create(ctx context.Context, tx *sql.Tx, r saga.Record, body []byte) error {
	if tx == nil {
		return s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return s.Create(ctx, tx, r, body) })
	}
	header, err := json.Marshal(r.Header)
	if err != nil {
		return fmt.Errorf("sqlstore: create: %w", err)
	}
	at := r.Created.UnixMilli()
	err = one(tx.ExecContext(ctx, s.q.create, r.ID, r.Name, r.Version, r.Hash, string(r.Status), r.Node, r.NodeEpoch, r.Epoch, r.Seq,
		r.Error, string(header), at, at))
	if errors.Is(err, saga.ErrFenced) {
		return saga.ErrExists
	}
	if err == nil {
		err = s.write(ctx, tx, saga.Entry{SagaID: r.ID, Seq: 1, Epoch: r.Epoch, Kind: saga.EntryStarted, Step: -1, Body: body, Time: r.Created})
	}
	if err != nil {
		return fmt.Errorf("sqlstore: create: %w", err)
	}
	return nil
}

// InTx implements [saga.Store].
func (s *Store) InTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	return sqldb.InTx(ctx, s.db, fn)
}

// Append implements [saga.Store]. Concurrent calls share a commit.
func (s *Store) Append(ctx context.Context, e saga.Entry, status saga.Status) error {
	return s.commits.Do(ctx, appended{e, status})
}

// flush writes one batch. A fenced record does not spoil the rest; any other
// error spoils the batch, and then nobody knows what was committed.
func (s *Store) flush(ctx context.Context, batch []appended) []error {
	errs := make([]error, len(batch))
	err := s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for i, a := range batch {
			err := s.AppendTx(ctx, tx, a.entry, a.status)
			if err != nil && !errors.Is(err, saga.ErrFenced) {
				return err
			}
			errs[i] = err
		}
		return nil
	})
	if err != nil {
		return []error{err}
	}
	return errs
}

// AppendTx implements [saga.Store].
func (s *Store) AppendTx(ctx context.Context, tx *sql.Tx, e saga.Entry, status saga.Status) error {
	err := one(tx.ExecContext(ctx, s.q.advance, e.Seq, string(status), e.Error, e.Error, e.Time.UnixMilli(), e.SagaID, e.Epoch, e.Seq-1))
	if err == nil {
		err = s.write(ctx, tx, e)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: append %s %d: %w", e.SagaID, e.Seq, err)
	}
	return nil
}

func (s *Store) write(ctx context.Context, tx *sql.Tx, e saga.Entry) error {
	unknown := 0
	if e.Unknown {
		unknown = 1
	}
	_, err := tx.ExecContext(ctx, s.q.log, e.SagaID, e.Seq, e.Epoch, string(e.Kind), e.Step, e.Name, unknown, e.Error, e.Body, e.Time.UnixMilli())
	return err
}

// Owned implements [saga.Store].
func (s *Store) Owned(ctx context.Context, node string, nodeEpoch int64, limit int) ([]string, error) {
	return s.ids(ctx, "owned", s.q.owned, node, nodeEpoch, limit)
}

// Orphans implements [saga.Store].
func (s *Store) Orphans(ctx context.Context, limit int) ([]string, error) {
	return s.ids(ctx, "orphans", s.q.orphans, time.Now().UnixMilli(), limit)
}

func (s *Store) ids(ctx context.Context, what, query string, args ...any) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", what, err)
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("sqlstore: %s: %w", what, err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlstore: %s: %w", what, err)
	}
	return ids, nil
}

// TakeOver implements [saga.Store].
func (s *Store) TakeOver(ctx context.Context, r saga.Record, node string, nodeEpoch int64) error {
	now := time.Now()
	err := s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := one(tx.ExecContext(ctx, s.q.takeOver, node, nodeEpoch, now.UnixMilli(), r.ID, r.Epoch, r.Seq)); err != nil {
			return err
		}
		return s.write(ctx, tx, saga.Entry{SagaID: r.ID, Seq: r.Seq + 1, Epoch: r.Epoch + 1, Kind: saga.EntryTakeover, Step: -1,
			Name: node, Unknown: r.Node != "", Time: now})
	})
	if err != nil {
		return fmt.Errorf("sqlstore: take over %s: %w", r.ID, err)
	}
	return nil
}

// Load implements [saga.Store].
func (s *Store) Load(ctx context.Context, id string) (saga.Record, []saga.Entry, error) {
	r, entries, err := s.load(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		err = saga.ErrNotFound
	}
	if err != nil {
		return r, nil, fmt.Errorf("sqlstore: load %s: %w", id, err)
	}
	return r, entries, nil
}

func (s *Store) load(ctx context.Context, id string) (r saga.Record, entries []saga.Entry, err error) {
	var status, header string
	var created, updated int64
	err = s.db.QueryRowContext(ctx, s.q.record, id).Scan(&r.ID, &r.Name, &r.Version, &r.Hash, &status, &r.Node, &r.NodeEpoch, &r.Epoch, &r.Seq,
		&r.Error, &header, &created, &updated)
	if err != nil {
		return r, nil, err
	}
	r.Status, r.Created, r.Updated = saga.Status(status), time.UnixMilli(created), time.UnixMilli(updated)
	if err := json.Unmarshal([]byte(header), &r.Header); err != nil {
		return r, nil, fmt.Errorf("header: %w", err)
	}
	rows, err := s.db.QueryContext(ctx, s.q.journal, id)
	if err != nil {
		return r, nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		e := saga.Entry{SagaID: id}
		var kind string
		var unknown int
		var at int64
		if err := rows.Scan(&e.Seq, &e.Epoch, &kind, &e.Step, &e.Name, &unknown, &e.Error, &e.Body, &at); err != nil {
			return r, nil, err
		}
		e.Kind, e.Unknown, e.Time = saga.EntryKind(kind), unknown != 0, time.UnixMilli(at)
		// The head was read a moment earlier; what came since is not of it.
		if e.Seq <= r.Seq {
			entries = append(entries, e)
		}
	}
	return r, entries, rows.Err()
}

// Count implements [saga.Store].
func (s *Store) Count(ctx context.Context) (map[saga.Status]int, error) {
	rows, err := s.db.QueryContext(ctx, s.q.count)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: count: %w", err)
	}
	defer func() { _ = rows.Close() }()
	counts := map[saga.Status]int{}
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return nil, fmt.Errorf("sqlstore: count: %w", err)
		}
		counts[saga.Status(status)] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlstore: count: %w", err)
	}
	return counts, nil
}
