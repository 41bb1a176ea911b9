package platform

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/saga"
	"github.com/armature-go/armature/transport"
)

// Reasons of the errors this package makes.
const (
	// ReasonKeyMissing: the call came without an idempotency key (INVALID_ARGUMENT).
	ReasonKeyMissing = "IDEMPOTENCY_KEY_MISSING"
	// ReasonUndone: the call came after its own undo (ABORTED); nothing was done and nothing will be.
	ReasonUndone = "UNDONE"
)

// Key is the idempotency key of the call in ctx, split into the effect it names and whether to do or to undo it.
func Key(ctx context.Context) (base string, op saga.Op, err error) {
	key := flow.IdempotencyKey(ctx)
	if key == "" {
		return "", 0, transport.Errorf(transport.InvalidArgument, ReasonKeyMissing, "the call needs an idempotency key")
	}
	base, op = saga.ParseKey(key)
	return base, op, nil
}

// answer is what the barrier remembers of a call.
type answer[T any] struct {
	Value   T        `json:"value"`
	Refusal *refusal `json:"refusal,omitempty"`
}

type refusal struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Once runs fn at most once per idempotency key of the call in ctx, in one transaction with its mark; a repeat gets the
// first answer. T travels as JSON. A refusal of fn (a *transport.Error with FAILED_PRECONDITION) takes back what fn did in
// the transaction and is remembered as the answer: a delayed first attempt cannot succeed after a repeat was refused.
// The undo of a key that was never done runs no fn and answers T's zero value.
func Once[T any](ctx context.Context, s *Store, fn func(ctx context.Context, tx *sql.Tx) (T, error)) (T, error) {
	var got answer[T]
	base, op, err := Key(ctx)
	if err != nil {
		return got.Value, err
	}
	err = s.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		data, err := s.Barrier.Do(ctx, tx, base, op, func(ctx context.Context) ([]byte, error) {
			first, err := attempt(ctx, tx, fn)
			if err != nil {
				return nil, err
			}
			return json.Marshal(first)
		})
		if err != nil || len(data) == 0 {
			return err
		}
		if err := json.Unmarshal(data, &got); err != nil {
			return fmt.Errorf("platform: read the answer kept for %s: %w", base, err)
		}
		return nil
	})
	var zero T
	switch {
	case errors.Is(err, saga.ErrUndone):
		return zero, transport.Errorf(transport.Aborted, ReasonUndone, "the call was undone before it arrived").WithCause(err)
	case err != nil:
		return zero, err
	case got.Refusal != nil:
		return zero, transport.Errorf(transport.FailedPrecondition, got.Refusal.Reason, "%s", got.Refusal.Message)
	}
	return got.Value, nil
}

// attempt runs fn behind a savepoint, so that a refusal leaves the transaction usable and clean.
func attempt[T any](ctx context.Context, tx *sql.Tx, fn func(ctx context.Context, tx *sql.Tx) (T, error)) (answer[T], error) {
	if _, err := tx.ExecContext(ctx, `SAVEPOINT attempt`); err != nil {
		return answer[T]{}, fmt.Errorf("platform: mark the attempt: %w", err)
	}
	value, err := fn(ctx, tx)
	var refused *transport.Error
	if errors.As(err, &refused) && refused.Code == transport.FailedPrecondition {
		if _, err := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT attempt`); err != nil {
			return answer[T]{}, fmt.Errorf("platform: take back the attempt: %w", err)
		}
		return answer[T]{Refusal: &refusal{Reason: refused.Reason, Message: refused.Message}}, nil
	}
	if err != nil {
		return answer[T]{}, err
	}
	if _, err := tx.ExecContext(ctx, `RELEASE SAVEPOINT attempt`); err != nil {
		return answer[T]{}, fmt.Errorf("platform: keep the attempt: %w", err)
	}
	return answer[T]{Value: value}, nil
}
