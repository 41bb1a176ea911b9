package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	slow    = 300 * time.Millisecond
	maxBody = 64 << 10
)

// books is a ledger with what it means: the effect of each key and what was undone. The mutex is held over the fsync,
// which makes requests of one key, and of one server, one after the other.
type books struct {
	dice *dice

	mu     sync.Mutex
	ledger *ledger
	byKey  map[string]Entry
	undone map[string]string // key of the thing -> key of what undid it
	downs  map[string]int
}

func newBooks(l *ledger, entries []Entry, d *dice) *books {
	b := &books{dice: d, ledger: l, byKey: map[string]Entry{}, undone: map[string]string{}, downs: map[string]int{}}
	for _, e := range entries {
		b.remember(e)
	}
	return b
}

func (b *books) remember(e Entry) {
	b.byKey[e.Key] = e
	if e.Of != "" {
		b.undone[e.Of] = e.Key
	}
}

var (
	errReused    = errors.New("the key was used for something else")
	errUnknown   = errors.New("nothing was done under that key")
	errUndone    = errors.New("it was undone already under another key")
	errTooMuch   = errors.New("more than there was")
	errNotNow    = errors.New("not now")
	errLedgerOut = errors.New("the ledger cannot be written")
)

// record makes e happen once: fresh says that this call did it, got is the effect of the key. For an undo, want is the
// kind of thing that e.Of must name. downFor is how many calls of the key are turned away first.
func (b *books) record(e Entry, want Kind, downFor int) (got Entry, fresh bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first, ok := b.byKey[e.Key]; ok {
		if first.Ref != e.Ref || first.Of != e.Of || first.Amount != e.Amount || first.Currency != e.Currency || first.Template != e.Template || first.To != e.To {
			return first, false, errReused
		}
		return first, false, nil
	}
	if b.downs[e.Key] < downFor {
		b.downs[e.Key]++
		return Entry{}, false, errNotNow
	}
	if want != "" {
		thing, ok := b.byKey[e.Of]
		switch {
		case !ok || thing.Kind != want || thing.Ref != e.Ref:
			return Entry{}, false, errUnknown
		case b.undone[e.Of] != "":
			return Entry{}, false, errUndone
		case e.Amount > thing.Amount || e.Currency != thing.Currency:
			return Entry{}, false, errTooMuch
		}
	}
	e.Time = time.Now().UTC()
	if err := b.ledger.append(e); err != nil {
		return Entry{}, false, errors.Join(errLedgerOut, err)
	}
	delete(b.downs, e.Key)
	b.remember(e)
	return e, true, nil
}

// post is the frame of every request: key, body, random faults, effect, answer. read turns the body into an effect and
// says how the server behaves for it.
func post[Body any](b *books, status int, read func(Body) (effect, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			problem(w, http.StatusBadRequest, "IDEMPOTENCY_KEY_MISSING", "send an Idempotency-Key header")
			return
		}
		var body Body
		if err := decode(w, r, &body); err != nil {
			problem(w, http.StatusBadRequest, "BAD_BODY", err.Error())
			return
		}
		eff, err := read(body)
		if err != nil {
			problem(w, http.StatusBadRequest, "BAD_BODY", err.Error())
			return
		}
		luck := b.dice.roll()
		if !wait(r.Context(), luck.delay+eff.delay) {
			return
		}
		if luck.failBefore {
			problem(w, http.StatusServiceUnavailable, "UNAVAILABLE", "not now")
			return
		}
		eff.entry.Key = key
		got, fresh, err := b.record(eff.entry, eff.undoes, eff.downFor)
		switch {
		case errors.Is(err, errNotNow):
			problem(w, http.StatusServiceUnavailable, "UNAVAILABLE", err.Error())
		case errors.Is(err, errReused):
			problem(w, http.StatusConflict, "IDEMPOTENCY_KEY_REUSED", err.Error())
		case errors.Is(err, errUnknown):
			problem(w, http.StatusNotFound, "NOT_FOUND", err.Error())
		case errors.Is(err, errUndone):
			problem(w, http.StatusConflict, "ALREADY_UNDONE", err.Error())
		case errors.Is(err, errTooMuch):
			problem(w, http.StatusUnprocessableEntity, "TOO_MUCH", err.Error())
		case err != nil:
			problem(w, http.StatusInternalServerError, "INTERNAL", errLedgerOut.Error())
		case luck.failAfter, fresh && eff.loseAnswer:
			problem(w, http.StatusInternalServerError, "INTERNAL", "the answer was lost")
		case got.Kind == Decline:
			problem(w, http.StatusPaymentRequired, "CARD_DECLINED", "the card was declined")
		case got.Kind == Rejection:
			problem(w, http.StatusUnprocessableEntity, "UNSHIPPABLE", "nobody goes there")
		default:
			writeJSON(w, "application/json", status, answerOf(got))
		}
	}
}

// effect is what a request asks for and how the server behaves about it.
type effect struct {
	entry      Entry
	undoes     Kind
	delay      time.Duration
	downFor    int
	loseAnswer bool
}

type answer struct {
	ID       string `json:"id"`
	Tracking string `json:"tracking,omitempty"`
}

// answerOf follows from the key alone, so that a repeat after a restart answers the same.
func answerOf(e Entry) answer {
	sum := sha256.Sum256([]byte(e.Key))
	tail := hex.EncodeToString(sum[:8])
	prefix := map[Kind]string{Charge: "ch_", Refund: "re_", Shipment: "sh_", Cancellation: "ca_", Mail: "ma_"}[e.Kind]
	a := answer{ID: prefix + tail}
	if e.Kind == Shipment {
		a.Tracking = "TRK" + tail
	}
	return a
}

func decode(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func problem(w http.ResponseWriter, status int, reason, detail string) {
	writeJSON(w, "application/problem+json", status, map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "reason": reason, "detail": detail,
	})
}

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// wait is false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dice decide the random faults of one server.
type dice struct {
	faults Faults
	mu     sync.Mutex
	rand   *rand.Rand
}

type luck struct {
	delay                 time.Duration
	failBefore, failAfter bool
}

func newDice(f Faults, stream uint64) *dice {
	return &dice{faults: f, rand: rand.New(rand.NewPCG(f.Seed, stream))}
}

func (d *dice) roll() luck {
	if d.faults.FailBefore == 0 && d.faults.FailAfter == 0 && d.faults.Delay == 0 {
		return luck{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := luck{failBefore: d.rand.Float64() < d.faults.FailBefore, failAfter: d.rand.Float64() < d.faults.FailAfter}
	if d.faults.Delay > 0 {
		l.delay = time.Duration(d.rand.Int64N(int64(d.faults.Delay)))
	}
	return l
}
