package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Kind is what an effect was.
type Kind string

// Kinds of effects. A decline and a rejection are answers that must stay the same, so they are in the ledger too.
const (
	Charge       Kind = "charge"
	Decline      Kind = "decline"
	Refund       Kind = "refund"
	Shipment     Kind = "shipment"
	Rejection    Kind = "rejection"
	Cancellation Kind = "cancellation"
	Mail         Kind = "mail"
)

// Names of the ledgers in Config.Dir.
const (
	CardLedger    = "card.jsonl"
	CarrierLedger = "carrier.jsonl"
	MailLedger    = "mail.jsonl"
)

// Entry is one effect: one line of a ledger.
type Entry struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Key is the idempotency key the effect was asked for under.
	Key string `json:"key"`
	// Ref is the order's id.
	Ref string `json:"ref"`
	// Of is the key of what a refund or a cancellation undoes.
	Of string `json:"of,omitempty"`
	// Amount is in minor units of Currency.
	Amount   int64  `json:"amount,omitempty"`
	Currency string `json:"currency,omitempty"`
	To       string `json:"to,omitempty"`
	Template string `json:"template,omitempty"`
}

// ReadLedger reads the effects of one ledger, oldest first. It may run beside the simulator that writes it: an
// unfinished last line is not read. A missing file has no effects. A line that does not parse is an error that names it.
func ReadLedger(path string) ([]Entry, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sim: read ledger: %w", err)
	}
	entries, _, err := parseLedger(data)
	if err != nil {
		return nil, fmt.Errorf("sim: read ledger %s: %w", path, err)
	}
	return entries, nil
}

// parseLedger reads the finished lines and says how many bytes they are.
func parseLedger(data []byte) (entries []Entry, size int64, err error) {
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	size = int64(len(data))
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		data = rest
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		if e.Key == "" || e.Kind == "" {
			return nil, 0, fmt.Errorf("line %d: kind or key is missing", n)
		}
		entries = append(entries, e)
	}
	return entries, size, nil
}

// ledger is an open ledger; its owner serialises the calls.
type ledger struct {
	file   *os.File
	size   int64
	broken error
}

func openLedger(path string) (_ *ledger, _ []Entry, err error) {
	file, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("sim: open ledger: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("sim: open ledger %s: %w", path, err), file.Close())
		}
	}()
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, err
	}
	entries, size, err := parseLedger(data)
	if err != nil {
		return nil, nil, err
	}
	if size < int64(len(data)) {
		if err := file.Truncate(size); err != nil {
			return nil, nil, err
		}
	}
	if err := file.Sync(); err != nil {
		return nil, nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, nil, err
	}
	return &ledger{file: file, size: size}, entries, nil
}

// append writes an entry through to the disk. After a failure nobody knows what the disk holds, so that every later
// append fails as well: a restart reads what is really there.
func (l *ledger) append(e Entry) error {
	if l.broken != nil {
		return l.broken
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("sim: encode entry: %w", err)
	}
	line = append(line, '\n')
	if _, err = l.file.WriteAt(line, l.size); err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.broken = fmt.Errorf("sim: append to ledger: %w", err)
		return l.broken
	}
	l.size += int64(len(line))
	return nil
}

func (l *ledger) close() error { return l.file.Close() }

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
