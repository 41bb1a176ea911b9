package testsvc_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/armature-go/armature/internal/testsvc"
)

func connect(t *testing.T, server string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(server)
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestRedisDeletesTheKeysOfATest(t *testing.T) {
	t.Parallel()
	server := testsvc.Redis(t)
	other := testsvc.RedisPrefix(t, server)
	client := connect(t, server)
	if err := client.Set(t.Context(), other+"kept", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	var key string
	t.Run("user", func(t *testing.T) {
		key = testsvc.RedisPrefix(t, server) + "thing"
		if err := client.Set(t.Context(), key, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	})
	if n := client.Exists(t.Context(), key).Val(); n != 0 {
		t.Errorf("%s is still there", key)
	}
	if n := client.Exists(t.Context(), other+"kept").Val(); n != 1 {
		t.Error("the key of another test is gone")
	}
}

func TestRedisServerIsKilledAndStartedOnTheSamePort(t *testing.T) {
	t.Parallel()
	server := testsvc.RedisServer(t)
	client := connect(t, server.URL)
	if err := client.Set(t.Context(), "key", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a killed server answers")
	}
	server.Start(t)
	if n, err := client.Exists(t.Context(), "key").Result(); err != nil || n != 0 {
		t.Errorf("after the start: %d keys, error %v", n, err)
	}
}

func TestLocateRedis(t *testing.T) {
	t.Parallel()
	const nowhere = "127.0.0.1:1"
	tests := map[string]struct {
		env  string
		want string
	}{
		"nothing found":         {"", "redis-server not found"},
		"environment not a URL": {"localhost", "must be a URL"},
		"environment is silent": {"redis://127.0.0.1:1", "does not answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := testsvc.LocateRedis(tt.env, nowhere, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
		})
	}
}
