package auth_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
)

// looseStore finds a key whatever the digest, as a store with a bug may.
type looseStore struct {
	key auth.APIKey
	err error
}

func (s looseStore) FindAPIKey(context.Context, auth.Digest) (auth.APIKey, bool, error) {
	return s.key, s.err == nil, s.err
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		key, digest := auth.NewAPIKey("shop_")
		late, lateDigest := auth.NewAPIKey("")
		store := auth.StaticAPIKeys(
			auth.APIKey{Digest: digest, Principal: flow.Principal{Subject: "ann", Scopes: []string{"read"}}},
			auth.APIKey{Digest: lateDigest, Principal: flow.Principal{Subject: "bob"}, ExpiresAt: time.Now().Add(time.Minute)},
		)
		known := auth.APIKey{Digest: digest, Principal: flow.Principal{Subject: "ann"}}
		for _, tt := range []struct {
			name   string
			cfg    auth.APIKeysConfig
			target string
			values []string
			after  time.Duration
			who    string
			want   error
		}{
			{"good", auth.APIKeysConfig{Store: store}, "/", []string{key}, 0, "ann", nil},
			{"none", auth.APIKeysConfig{Store: store}, "/", nil, 0, "", auth.ErrMissing},
			{"empty", auth.APIKeysConfig{Store: store}, "/", []string{""}, 0, "", auth.ErrInvalid},
			{"wrong", auth.APIKeysConfig{Store: store}, "/", []string{key + "x"}, 0, "", auth.ErrInvalid},
			{"digest for key", auth.APIKeysConfig{Store: store}, "/", []string{digest.String()}, 0, "", auth.ErrInvalid},
			{"two", auth.APIKeysConfig{Store: store}, "/", []string{key, key}, 0, "", auth.ErrInvalid},
			{"large", auth.APIKeysConfig{Store: store}, "/", []string{strings.Repeat("x", 1025)}, 0, "", auth.ErrInvalid},
			{"query not asked for", auth.APIKeysConfig{Store: store}, "/?key=" + key, nil, 0, "", auth.ErrMissing},
			{"query", auth.APIKeysConfig{Store: store, Query: "key"}, "/?key=" + key, nil, 0, "ann", nil},
			{"query and header", auth.APIKeysConfig{Store: store, Query: "key"}, "/?key=" + key, []string{key}, 0, "", auth.ErrInvalid},
			{"another header", auth.APIKeysConfig{Store: store, Header: "X-Token"}, "/", []string{key}, 0, "", auth.ErrMissing},
			{"in time", auth.APIKeysConfig{Store: store}, "/", []string{late}, time.Minute - time.Nanosecond, "bob", nil},
			{"late", auth.APIKeysConfig{Store: store}, "/", []string{late}, time.Minute, "", auth.ErrExpired},
			{"store with a bug", auth.APIKeysConfig{Store: looseStore{key: known}}, "/", []string{"guess"}, 0, "", auth.ErrInvalid},
		} {
			time.Sleep(time.Until(start.Add(tt.after)))
			r := httptest.NewRequest("GET", tt.target, nil)
			for _, v := range tt.values {
				r.Header.Add("X-Api-Key", v)
			}
			id, err := must(auth.NewAPIKeys(tt.cfg)).Authenticate(t.Context(), auth.FromHTTP(r))
			if id.Subject != tt.who || !errors.Is(err, tt.want) {
				t.Errorf("%s: got %q, %v", tt.name, id.Subject, err)
			}
			if err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), late)) {
				t.Errorf("%s: the key is in the error", tt.name)
			}
		}
	})
}

func TestAPIKeysAreUndecidedWithoutTheirStore(t *testing.T) {
	t.Parallel()
	a := must(auth.NewAPIKeys(auth.APIKeysConfig{Store: looseStore{err: errors.New("database is away")}}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Api-Key", "x")
	_, err := a.Authenticate(t.Context(), auth.FromHTTP(r))
	if e := transport.AsError(err); e.Code != transport.Unavailable || strings.Contains(e.Message, "database") {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
	if _, err := auth.NewAPIKeys(auth.APIKeysConfig{}); err == nil || !strings.Contains(err.Error(), "Store") {
		t.Errorf("got %v", err)
	}
}

func TestDigestsAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	key, digest := auth.NewAPIKey("shop_")
	if !strings.HasPrefix(key, "shop_") || len(key) < 30 {
		t.Errorf("key of %d characters", len(key))
	}
	if got, err := auth.ParseDigest(digest.String()); got != digest || err != nil || auth.DigestOf(key) != digest {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "00", strings.Repeat("g", 64), digest.String() + "00"} {
		if _, err := auth.ParseDigest(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	if other, _ := auth.NewAPIKey("shop_"); other == key {
		t.Error("the same key twice")
	}
}
