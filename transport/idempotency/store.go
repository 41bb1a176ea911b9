package idempotency

import (
	"context"
	"errors"
	"time"
)

// Store remembers which keys are being worked on and what came of them. What it
// holds for an id is either a claim, which lasts as long as its lease, or a record,
// which lasts as long as it was told to keep it; afterwards the id is free again, as
// if it had never been seen. Each method is one atomic step and safe for concurrent
// use, by any number of processes unless the store says otherwise. Package
// idempotencytest tells whether an implementation holds all that.
//
// Ids and owners are short printable ASCII and belong into a store as they are.
// Records are opaque and never empty.
type Store interface {
	// Claim gives a free id to the owner of the claim, and otherwise tells what is
	// there. After an error it is not certain whether the claim was made.
	Claim(ctx context.Context, id string, claim Claim) (Entry, error)

	// Keep holds on to id for d from now. A record turns the claim of owner into
	// that record, or replaces the one owner has left before; without one it prolongs
	// the claim. It answers [ErrLost] when id is not the owner's, or no longer.
	Keep(ctx context.Context, id, owner string, record []byte, d time.Duration) error

	// Release frees id if it is claimed by owner and has no record. There being
	// nothing to free is no error.
	Release(ctx context.Context, id, owner string) error
}

// Claim is a wish to be the one who works on an id.
type Claim struct {
	Owner       string // unique to one run
	Fingerprint Fingerprint
	Lease       time.Duration // how long the claim lasts; whole milliseconds
}

// Entry is what a store holds for an id after [Store.Claim].
type Entry struct {
	Claimed     bool        // it is the caller's; the rest is not set
	Fingerprint Fingerprint // of the request that claimed it
	Record      []byte      // nil while somebody works on it; the caller must not change it
}

// Fingerprint is the SHA-256 of a request.
type Fingerprint [32]byte

// ErrLost says that a claim has run out, or that somebody else has it by now.
var ErrLost = errors.New("idempotency: the claim is lost")
