package redisstore

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/armature-go/armature/transport/idempotency"
)

var (
	//go:embed claim.lua
	claimSource string
	//go:embed keep.lua
	keepSource string
	//go:embed release.lua
	releaseSource string

	claimScript   = redis.NewScript(claimSource)
	keepScript    = redis.NewScript(keepSource)
	releaseScript = redis.NewScript(releaseSource)
)

// Client is what the store needs of a Redis client; every client of go-redis has it.
// Those of go-redis must be made with ContextTimeoutEnabled.
type Client = redis.Scripter

// Config describes a [Store]. Only Client is required.
type Config struct {
	// Client is not closed by the store.
	Client Client

	// Prefix stands in front of every key in Redis. "" means "armature:idempotency:".
	Prefix string
}

// Store is an [idempotency.Store] in Redis. Safe for concurrent use. It has no
// goroutine and needs no closing.
type Store struct {
	client Client
	prefix string
}

// New returns a store. It does not talk to Redis.
func New(cfg Config) (*Store, error) {
	bad := func(value any, rule, fix string) error {
		return fmt.Errorf("redisstore: configure store: Client = %v: %s; %s", value, rule, fix)
	}
	switch {
	case cfg.Client == nil:
		return nil, bad(nil, "must be set", "use redis.NewClient")
	case ignoresContext(cfg.Client):
		return nil, bad("ContextTimeoutEnabled false", "must keep to deadlines", "make it with ContextTimeoutEnabled: true")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "armature:idempotency:"
	}
	return &Store{client: cfg.Client, prefix: cfg.Prefix}, nil
}

// ignoresContext knows the clients of go-redis, whose reads outlast a context unless
// told otherwise.
func ignoresContext(client Client) bool {
	switch c := client.(type) {
	case *redis.Client:
		return !c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return !c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return !c.Options().ContextTimeoutEnabled
	default:
		return false
	}
}

func (s *Store) keys(id string) []string { return []string{s.prefix + id} }

// Claim is [idempotency.Store.Claim].
func (s *Store) Claim(ctx context.Context, id string, claim idempotency.Claim) (idempotency.Entry, error) {
	reply, err := claimScript.Run(ctx, s.client, s.keys(id), claim.Owner, claim.Fingerprint[:], claim.Lease.Milliseconds()).Slice()
	if err != nil {
		return idempotency.Entry{}, fmt.Errorf("redisstore: claim key: %w", err)
	}
	entry, ok := read(reply)
	if !ok {
		return idempotency.Entry{}, fmt.Errorf("redisstore: claim key: what is stored under %q is no entry", s.prefix+id)
	}
	return entry, nil
}

// read also refuses what somebody else has written under the same key.
func read(reply []any) (entry idempotency.Entry, ok bool) {
	if len(reply) == 1 {
		return idempotency.Entry{Claimed: true}, true
	}
	if len(reply) != 3 {
		return entry, false
	}
	print, ok := reply[1].(string)
	if !ok || len(print) != len(entry.Fingerprint) {
		return entry, false
	}
	copy(entry.Fingerprint[:], print)
	if record, ok := reply[2].(string); ok {
		entry.Record = []byte(record)
	}
	return entry, true
}

// Keep is [idempotency.Store.Keep].
func (s *Store) Keep(ctx context.Context, id, owner string, record []byte, d time.Duration) error {
	kept, err := keepScript.Run(ctx, s.client, s.keys(id), owner, d.Milliseconds(), record).Int()
	if err != nil {
		return fmt.Errorf("redisstore: keep key: %w", err)
	}
	if kept == 0 {
		return idempotency.ErrLost
	}
	return nil
}

// Release is [idempotency.Store.Release].
func (s *Store) Release(ctx context.Context, id, owner string) error {
	if err := releaseScript.Run(ctx, s.client, s.keys(id), owner).Err(); err != nil {
		return fmt.Errorf("redisstore: release key: %w", err)
	}
	return nil
}
