package auth

import "context"

// KeySet finds keys for a [Verifier]. [StaticKeys] and [RemoteKeys] are key sets.
type KeySet interface {
	// Find returns the keys whose id is kid, and every key when kid is "". None and
	// no error means that there is no such key; an error means that nobody knows,
	// and the request is answered UNAVAILABLE. The caller does not change the slice.
	Find(ctx context.Context, kid string) ([]Key, error)
}

// StaticKeys is a [KeySet] that never changes.
type StaticKeys struct{ index keyIndex }

// NewStaticKeys returns a set of at least one key. Several keys may share an id.
func NewStaticKeys(keys ...Key) (*StaticKeys, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, configError("static keys", "len(keys)", len(keys), "must be between 1 and 128", "pass the keys of the issuer")
	}
	for _, k := range keys {
		if k.isZero() {
			return nil, configError("static keys", "key", k, "is the zero Key", "make keys with NewKey, ParsePEM or ParseJWK")
		}
	}
	return &StaticKeys{index: newKeyIndex(keys)}, nil
}

// Find implements [KeySet]. It never fails and does not allocate.
func (s *StaticKeys) Find(_ context.Context, kid string) ([]Key, error) {
	return s.index.find(kid), nil
}

// keyIndex is immutable.
type keyIndex struct {
	all  []Key
	byID map[string][]Key
}

func newKeyIndex(keys []Key) keyIndex {
	x := keyIndex{all: append([]Key(nil), keys...), byID: make(map[string][]Key, len(keys))}
	for _, k := range keys {
		x.byID[k.ID()] = append(x.byID[k.ID()], k)
	}
	return x
}

// find treats a key without an id as one that may be meant by any.
func (x *keyIndex) find(kid string) []Key {
	if kid == "" {
		return x.all
	}
	if keys := x.byID[kid]; len(keys) > 0 {
		return keys
	}
	return x.byID[""]
}
