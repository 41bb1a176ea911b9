package saga

import (
	"context"
	"database/sql"
	"time"
)

// Status is where a saga stands.
type Status string

// The statuses. A parked saga waits for a person: see [Coordinator.Resume].
const (
	Running      Status = "running"
	Compensating Status = "compensating"
	Completed    Status = "completed"
	Compensated  Status = "compensated"
	Parked       Status = "parked"
)

// Finished reports whether nothing more will happen by itself.
func (s Status) Finished() bool { return s == Completed || s == Compensated || s == Parked }

// EntryKind says what a journal entry records.
type EntryKind string

// The kinds of entries.
const (
	EntryStarted    EntryKind = "started"
	EntryDone       EntryKind = "done"
	EntryAborted    EntryKind = "aborted"
	EntryUndone     EntryKind = "undone"
	EntryUndoFailed EntryKind = "undo-failed"
	EntryTakeover   EntryKind = "takeover"
	EntryParked     EntryKind = "parked"
	EntryResumed    EntryKind = "resumed"
)

// Entry is one record of a saga's journal. Seq counts from 1 without gaps.
type Entry struct {
	SagaID string
	Seq    int64
	Epoch  int64
	Kind   EntryKind
	// Step is the position of the step, or -1.
	Step int
	// Name is the step's name, the coordinator's node for a takeover, or "".
	Name string
	// Unknown says of an abort that the failing step may have happened, and of
	// a takeover that a coordinator before may have called the open step.
	Unknown bool
	// Error is why, for aborts, failed undos and parking.
	Error string
	// Body is the data of the saga after a step, as JSON.
	Body []byte
	// Time is when the entry was made, by the clock of the coordinator.
	Time time.Time
}

// Record is the head of a saga: what can be read without its journal.
type Record struct {
	ID      string
	Name    string
	Version int
	// Hash is the fingerprint of the definition it was started under.
	Hash   int64
	Status Status
	// Node and NodeEpoch are who runs it, Epoch how often it changed hands.
	Node      string
	NodeEpoch int64
	Epoch     int64
	// Seq is the newest entry's number.
	Seq int64
	// Error is why the saga was aborted or parked.
	Error string
	// Header carries trace context and correlation id of the one who started it.
	Header  map[string]string
	Created time.Time
	Updated time.Time
}

// Store is where sagas are kept. Implementations are safe for concurrent use
// by any number of coordinators in any number of processes; sqlstore is one.
type Store interface {
	// Join takes the name node for ttl and returns a new epoch for it. Whoever
	// held the name before is fenced out.
	Join(ctx context.Context, node string, ttl time.Duration) (epoch int64, err error)
	// Renew prolongs the lease, or answers ErrFenced.
	Renew(ctx context.Context, node string, epoch int64, ttl time.Duration) error
	// Leave ends the lease at once.
	Leave(ctx context.Context, node string, epoch int64) error

	// Create writes the record and its first entry, within tx when it is not
	// nil. It answers ErrExists for an id that is taken.
	Create(ctx context.Context, tx *sql.Tx, r Record, body []byte) error
	// Append writes e durably and sets the saga's status and error, provided
	// that the saga is at e.Epoch and e.Seq-1; otherwise it answers ErrFenced
	// and writes nothing.
	Append(ctx context.Context, e Entry, status Status) error
	// InTx runs fn in a transaction of the journal's database.
	InTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error
	// AppendTx is Append within tx.
	AppendTx(ctx context.Context, tx *sql.Tx, e Entry, status Status) error

	// Owned lists open sagas that this incarnation of node runs, oldest first.
	Owned(ctx context.Context, node string, nodeEpoch int64, limit int) (ids []string, err error)
	// Orphans lists open sagas whose node is gone, oldest first.
	Orphans(ctx context.Context, limit int) (ids []string, err error)
	// TakeOver makes node the owner of a saga that is still at the epoch and the
	// sequence number of r, at the next epoch, and writes the takeover entry, as
	// Unknown unless r.Node is "": a saga without a node was never run. When r
	// is out of date it answers ErrFenced.
	TakeOver(ctx context.Context, r Record, node string, nodeEpoch int64) error

	// Load returns a saga and its whole journal, or ErrNotFound.
	Load(ctx context.Context, id string) (Record, []Entry, error)
	// Count returns how many sagas stand at each status.
	Count(ctx context.Context) (map[Status]int, error)
}
