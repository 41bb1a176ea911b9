package idempotency

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// MemoryConfig bounds a [Memory]. The zero value is useful.
type MemoryConfig struct {
	// MaxEntries is how many keys are held. 0 means 100 000.
	MaxEntries int
	// MaxBytes is how large the records may be together. 0 means 64 MiB.
	MaxBytes int
}

// Memory is a [Store] for one process, which forgets everything with it: right for
// tests and for a service of one instance whose clients do not retry across its
// restarts. Where there is no more room it forgets the oldest records before their
// time, never a claim. It has no goroutine and needs no closing; a step costs well
// below a microsecond.
type Memory struct {
	cfg MemoryConfig

	mu      sync.Mutex
	entries map[string]*memoryEntry
	done    list.List // of ids with a record, oldest first
	bytes   int
}

type memoryEntry struct {
	owner       string
	fingerprint Fingerprint
	record      []byte
	until       time.Time
	place       *list.Element // in done; nil for a claim
}

// NewMemory returns an empty store.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	switch {
	case cfg.MaxEntries < 0:
		return nil, badConfig("memory", "MaxEntries", cfg.MaxEntries, "must not be negative", "use 0 for 100000")
	case cfg.MaxBytes < 0:
		return nil, badConfig("memory", "MaxBytes", cfg.MaxBytes, "must not be negative", "use 0 for 64 MiB")
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 100_000
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 64 << 20
	}
	return &Memory{cfg: cfg, entries: make(map[string]*memoryEntry)}, nil
}

var errFull = errors.New("idempotency: claim key: the memory store is full of claims: raise MaxEntries or admit fewer calls at once")

// Claim is [Store.Claim]. It fails when MaxEntries calls are under way.
func (m *Memory) Claim(_ context.Context, id string, claim Claim) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if e := m.entries[id]; e != nil {
		if now.Before(e.until) {
			return Entry{Fingerprint: e.fingerprint, Record: e.record}, nil
		}
		m.remove(id, e)
	}
	m.expire(now)
	if len(m.entries) >= m.cfg.MaxEntries && !m.removeOldest() {
		maps.DeleteFunc(m.entries, func(_ string, e *memoryEntry) bool { return !now.Before(e.until) })
		if len(m.entries) >= m.cfg.MaxEntries {
			return Entry{}, errFull
		}
	}
	m.entries[id] = &memoryEntry{owner: claim.Owner, fingerprint: claim.Fingerprint, until: now.Add(claim.Lease)}
	return Entry{Claimed: true}, nil
}

// Keep is [Store.Keep]. A record that is larger than MaxBytes is refused.
func (m *Memory) Keep(_ context.Context, id, owner string, record []byte, d time.Duration) error {
	if len(record) > m.cfg.MaxBytes {
		return fmt.Errorf("idempotency: keep record: %d bytes are more than MaxBytes = %d", len(record), m.cfg.MaxBytes)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e := m.entries[id]
	if e == nil || e.owner != owner || !now.Before(e.until) || (record == nil && e.record != nil) {
		return ErrLost
	}
	if record != nil {
		m.remove(id, e)
		for m.bytes+len(record) > m.cfg.MaxBytes && m.removeOldest() {
			continue
		}
		e.record, e.place = record, m.done.PushBack(id)
		m.entries[id] = e
		m.bytes += len(record)
	}
	e.until = now.Add(d)
	return nil
}

// Release is [Store.Release].
func (m *Memory) Release(_ context.Context, id, owner string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[id]; e != nil && e.owner == owner && e.record == nil {
		delete(m.entries, id)
	}
	return nil
}

// Len returns how many keys are held, some of which may have run out.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

func (m *Memory) remove(id string, e *memoryEntry) {
	delete(m.entries, id)
	if e.place != nil {
		m.done.Remove(e.place)
		m.bytes -= len(e.record)
		e.place = nil
	}
}

// oldest returns nil when there is no record.
func (m *Memory) oldest() (string, *memoryEntry) {
	front := m.done.Front()
	if front == nil {
		return "", nil
	}
	id, _ := front.Value.(string)
	return id, m.entries[id]
}

func (m *Memory) removeOldest() bool {
	id, e := m.oldest()
	if e != nil {
		m.remove(id, e)
	}
	return e != nil
}

// expire removes old records that have run out. One that is kept for longer than
// those behind it delays them, and harms nothing.
func (m *Memory) expire(now time.Time) {
	for {
		id, e := m.oldest()
		if e == nil || now.Before(e.until) {
			return
		}
		m.remove(id, e)
	}
}
