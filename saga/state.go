package saga

import "fmt"

// state is what a journal adds up to. apply and decide are the whole protocol:
// they do no I/O and read no clock, so a test can drive them through every
// interleaving.
type state struct {
	steps []stepMeta

	seq     int64
	epoch   int64
	body    []byte
	status  Status
	done    []bool
	undone  []bool
	stuck   []bool // the undo was given up
	failing int    // the step that caused the abort, or -1
	unknown bool   // the failing step may have happened
	taken   bool   // a coordinator before this one may have called the open step
	reason  string
}

func newState(steps []stepMeta) *state {
	n := len(steps)
	return &state{
		steps: steps, status: Running, failing: -1,
		done: make([]bool, n), undone: make([]bool, n), stuck: make([]bool, n),
	}
}

// apply adds one entry. An entry that does not fit the steps means that the
// journal was written under another definition.
func (s *state) apply(e Entry) error {
	if e.Seq != s.seq+1 {
		return fmt.Errorf("entry %d follows entry %d", e.Seq, s.seq)
	}
	if e.Step >= 0 {
		if e.Step >= len(s.steps) || s.steps[e.Step].name != e.Name {
			return fmt.Errorf("entry %d is of step %d %q, which the definition does not have", e.Seq, e.Step, e.Name)
		}
	}
	s.seq, s.epoch = e.Seq, e.Epoch
	switch e.Kind {
	case EntryStarted:
		s.body = e.Body
	case EntryDone:
		s.done[e.Step], s.body, s.taken = true, e.Body, false
	case EntryAborted:
		s.failing, s.unknown, s.reason = e.Step, e.Unknown, e.Error
	case EntryUndone:
		s.undone[e.Step], s.stuck[e.Step] = true, false
	case EntryUndoFailed:
		s.stuck[e.Step], s.reason = true, e.Error
	case EntryTakeover:
		s.taken = s.taken || e.Unknown
	case EntryParked:
		s.reason = e.Error
	case EntryResumed:
		clear(s.stuck)
	default:
		return fmt.Errorf("entry %d is of an unknown kind %q", e.Seq, e.Kind)
	}
	s.status = s.statusAfter()
	if e.Kind == EntryParked {
		s.status = Parked
	}
	return nil
}

func (s *state) statusAfter() Status {
	if s.failing < 0 {
		if s.nextStep() == len(s.steps) {
			return Completed
		}
		return Running
	}
	if s.nextUndo() >= 0 {
		return Compensating
	}
	for _, stuck := range s.stuck {
		if stuck {
			return Parked
		}
	}
	return Compensated
}

// after returns the status that the saga will have once e is applied, so that
// the store can write both in one go.
func (s *state) after(e Entry) (Status, error) {
	next := *s
	next.done = append([]bool(nil), s.done...)
	next.undone = append([]bool(nil), s.undone...)
	next.stuck = append([]bool(nil), s.stuck...)
	if err := next.apply(e); err != nil {
		return "", err
	}
	return next.status, nil
}

type actionKind uint8

const (
	actionNone actionKind = iota
	actionDo
	actionUndo
)

// decide says what to do next.
func (s *state) decide() (actionKind, int) {
	switch s.status {
	case Running:
		return actionDo, s.nextStep()
	case Compensating:
		return actionUndo, s.nextUndo()
	default:
		return actionNone, -1
	}
}

func (s *state) nextStep() int {
	for i, done := range s.done {
		if !done {
			return i
		}
	}
	return len(s.steps)
}

// nextUndo is the last step that has, or may have, an effect left.
func (s *state) nextUndo() int {
	for i := len(s.steps) - 1; i >= 0; i-- {
		happened := s.done[i] || (i == s.failing && s.unknown)
		if happened && s.steps[i].hasUndo && !s.undone[i] && !s.stuck[i] {
			return i
		}
	}
	return -1
}

// openUndos names the steps whose effects are still there.
func (s *state) openUndos() []string {
	var names []string
	if s.failing < 0 {
		return nil
	}
	for i := len(s.steps) - 1; i >= 0; i-- {
		happened := s.done[i] || (i == s.failing && s.unknown)
		if happened && s.steps[i].hasUndo && !s.undone[i] {
			names = append(names, s.steps[i].name)
		}
	}
	return names
}
