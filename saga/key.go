package saga

import (
	"context"
	"strings"

	"github.com/armature-go/armature/flow"
)

const undoSuffix = "/undo"

// Op is the direction of a call to a participant.
type Op uint8

// The directions.
const (
	OpDo Op = iota + 1
	OpUndo
)

// String returns "do" or "undo".
func (o Op) String() string {
	if o == OpUndo {
		return "undo"
	}
	return "do"
}

// KeyFrom returns the idempotency key of the step that ctx belongs to, the
// same for the step and its undo and for every attempt: "<saga id>/<step>".
// Outside a step it is "".
func KeyFrom(ctx context.Context) string {
	base, _ := ParseKey(flow.OutgoingIdempotencyKey(ctx))
	return base
}

// ParseKey splits a key that arrived at a participant into the step's key and
// the direction: "order-42/charge/undo" is the undo of "order-42/charge".
func ParseKey(key string) (base string, op Op) {
	if base, ok := strings.CutSuffix(key, undoSuffix); ok {
		return base, OpUndo
	}
	return key, OpDo
}

func withStep(ctx context.Context, id string, epoch int64, step string, op Op) context.Context {
	key := id + "/" + step
	if op == OpUndo {
		key += undoSuffix
	}
	return flow.WithOutgoingIdempotencyKey(flow.WithSaga(ctx, id, epoch), key)
}
