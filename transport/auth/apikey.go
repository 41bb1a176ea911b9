package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/armature-go/armature/flow"
)

// Digest is the SHA-256 of an API key, which is all that is stored of one. A plain
// hash is enough because keys are random, as those of [NewAPIKey] are; it would not
// do for passwords.
type Digest [sha256.Size]byte

// DigestOf returns the digest of an API key.
func DigestOf(key string) Digest { return sha256.Sum256([]byte(key)) }

// ParseDigest reads what [Digest.String] writes.
func ParseDigest(text string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("auth: parse digest: %d characters, not %d hexadecimal ones", len(text), 2*len(d))
	}
	copy(d[:], b)
	return d, nil
}

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// NewAPIKey returns a new key with 130 random bits, to be shown to its owner once, and
// its digest, to be stored. prefix makes leaked keys easy to find, as in "shop_".
func NewAPIKey(prefix string) (key string, digest Digest) {
	key = prefix + rand.Text()
	return key, DigestOf(key)
}

// APIKey is what is known of a key.
type APIKey struct {
	Digest    Digest
	Principal flow.Principal
	ExpiresAt time.Time // zero: never
}

// APIKeyStore finds API keys.
type APIKeyStore interface {
	// FindAPIKey returns the key with that digest; ok is false when there is none or
	// it was withdrawn. An error means that nobody knows, and the request is answered
	// UNAVAILABLE. Looking a digest up by index is no risk: who guesses keys cannot
	// choose their digests.
	FindAPIKey(ctx context.Context, d Digest) (key APIKey, ok bool, err error)
}

// StaticAPIKeys returns a store that never changes. Of two keys with one digest the
// last one counts.
func StaticAPIKeys(keys ...APIKey) APIKeyStore {
	s := make(staticAPIKeys, len(keys))
	for _, k := range keys {
		s[k.Digest] = k
	}
	return s
}

type staticAPIKeys map[Digest]APIKey

// FindAPIKey never fails.
func (s staticAPIKeys) FindAPIKey(_ context.Context, d Digest) (APIKey, bool, error) {
	k, ok := s[d]
	return k, ok, nil
}

// APIKeysConfig describes [APIKeys].
type APIKeysConfig struct {
	// Store finds the keys. Required.
	Store APIKeyStore

	// Header is the HTTP header or gRPC metadata key that holds the key. Default
	// "X-Api-Key".
	Header string

	// Query is the parameter of the URL that may hold the key where there is no
	// header. Default none, because URLs end up in logs and histories.
	Query string
}

// APIKeys recognises callers by an API key. It costs a SHA-256 and what the store
// costs.
type APIKeys struct{ cfg APIKeysConfig }

// maxAPIKey bounds what is hashed for a stranger.
const maxAPIKey = 1 << 10

// NewAPIKeys returns an authenticator.
func NewAPIKeys(cfg APIKeysConfig) (*APIKeys, error) {
	if cfg.Store == nil {
		return nil, configError("API keys", "Store", "nil", "is required", "use StaticAPIKeys or a table of your own")
	}
	if cfg.Header == "" {
		cfg.Header = "X-Api-Key"
	}
	return &APIKeys{cfg: cfg}, nil
}

// Authenticate implements [Authenticator].
func (a *APIKeys) Authenticate(ctx context.Context, r Request) (Identity, error) {
	values := r.Values(a.cfg.Header)
	if a.cfg.Query != "" {
		values = slices.Concat(values, r.Query(a.cfg.Query))
	}
	switch {
	case len(values) == 0:
		return Identity{}, fail(FaultMissing, "")
	case len(values) > 1:
		return Identity{}, fail(FaultMalformed, "more than one API key")
	case values[0] == "":
		return Identity{}, fail(FaultMalformed, "empty API key")
	case len(values[0]) > maxAPIKey:
		return Identity{}, fail(FaultOversized, "API key")
	}
	d := DigestOf(values[0])
	k, ok, err := a.cfg.Store.FindAPIKey(ctx, d)
	switch {
	case err != nil:
		return Identity{}, undecided(ctx, fmt.Errorf("auth: find API key: %w", err))
	case !ok || subtle.ConstantTimeCompare(k.Digest[:], d[:]) != 1:
		return Identity{}, fail(FaultUnknownKey, "API key")
	case !k.ExpiresAt.IsZero() && !time.Now().Before(k.ExpiresAt):
		return Identity{}, fail(FaultExpired, "API key")
	}
	return Identity{Principal: k.Principal}, nil
}

var _ Authenticator = (*APIKeys)(nil)
