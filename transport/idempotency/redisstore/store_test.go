package redisstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/idempotency"
	"github.com/armature-go/armature/transport/idempotency/idempotencytest"
	"github.com/armature-go/armature/transport/idempotency/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, server string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(server)
	if err != nil {
		t.Fatal(err)
	}
	options.ContextTimeoutEnabled = true
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newStore(t *testing.T, client *redis.Client, prefix string) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(redisstore.Config{Client: client, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConforms(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	client := connect(t, server)
	idempotencytest.Run(t, func(t *testing.T) idempotency.Store {
		return newStore(t, client, testsvc.RedisPrefix(t, server))
	})
}

// Nothing stays in Redis forever, whatever became of a call.
func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	client, prefix := connect(t, server), testsvc.RedisPrefix(t, server)
	s := newStore(t, client, prefix)
	ctx := t.Context()
	for _, id := range []string{"claim", "record"} {
		if _, err := s.Claim(ctx, id, idempotency.Claim{Owner: "o", Lease: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Keep(ctx, "record", "o", []byte{1}, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]time.Duration{"claim": time.Hour, "record": 2 * time.Hour} {
		if got := client.PTTL(ctx, prefix+id).Val(); got > want || got < want-time.Minute {
			t.Errorf("%s lives for %v, want %v", id, got, want)
		}
	}
}

func TestForeignValuesAreRefused(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	client, prefix := connect(t, server), testsvc.RedisPrefix(t, server)
	s := newStore(t, client, prefix)
	ctx := t.Context()
	if err := client.Set(ctx, prefix+"text", "x", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.HSet(ctx, prefix+"hash", "print", "short").Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"text", "hash"} {
		if e, err := s.Claim(ctx, id, idempotency.Claim{Owner: "o", Lease: time.Hour}); err == nil {
			t.Errorf("%s: %+v, want an error", id, e)
		}
	}
}

// Without Redis nothing runs, and with it everything does again.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	server := testsvc.RedisServer(t)
	s := newStore(t, connect(t, server.URL), "")
	keys, err := idempotency.New(idempotency.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	count := idempotency.Once(keys, "count", func(context.Context, struct{}) (int, error) {
		runs++
		return runs, nil
	})
	ctx := flow.WithIdempotencyKey(t.Context(), "key")
	if n, err := count(ctx, struct{}{}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	server.Kill()
	_, err = count(ctx, struct{}{})
	if e := transport.AsError(err); e.Reason != idempotency.ErrUnavailable.Reason || !e.NotExecuted() || runs != 1 {
		t.Errorf("without Redis: %v after %d runs", err, runs)
	}
	server.Start(t) // empty: the first result is forgotten, as documented
	if n, err := count(ctx, struct{}{}); n != 2 || err != nil {
		t.Errorf("with Redis again: %d, %v", n, err)
	}
	if n, err := count(ctx, struct{}{}); n != 2 || err != nil {
		t.Errorf("its repetition: %d, %v", n, err)
	}
}

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { _ = client.Close() })
	for want, cfg := range map[string]redisstore.Config{
		"Client = <nil>":                       {},
		"Client = ContextTimeoutEnabled false": {Client: client},
	} {
		if _, err := redisstore.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "redisstore: configure store: "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
