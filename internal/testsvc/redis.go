package testsvc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// EnvRedisURL names a Redis server on which keys may be made.
const EnvRedisURL = "ARMATURE_REDIS_URL"

// Redis returns the URL of a server that other tests use too: take keys under a
// RedisPrefix.
func Redis(t testing.TB) string {
	t.Helper()
	server, err := sharedRedis()
	if err != nil {
		missing(t, fmt.Sprintf("testsvc: no Redis: %v (run make services, or set %s)", err, EnvRedisURL))
	}
	return server
}

// RedisPrefix returns a prefix for keys of t alone, which are deleted from server
// when t ends.
func RedisPrefix(t testing.TB, server string) string {
	t.Helper()
	prefix := "armature_test_" + strings.ToLower(rand.Text()) + ":"
	t.Cleanup(func() {
		if err := deleteKeys(server, prefix); err != nil {
			t.Errorf("testsvc: delete keys of %s: %v", prefix, err)
		}
	})
	return prefix
}

var sharedRedis = sync.OnceValues(func() (string, error) {
	return locateRedis(os.Getenv(EnvRedisURL), "127.0.0.1:6379", redisBinary())
})

func locateRedis(env, loopback, binary string) (string, error) {
	if env != "" {
		if _, err := redis.ParseURL(env); err != nil {
			return "", fmt.Errorf("%s must be a URL like redis://host:6379/0", EnvRedisURL)
		}
		if err := pingRedis(env, 5*time.Second, ""); err != nil {
			return "", fmt.Errorf("%s names a server that does not answer: %w", EnvRedisURL, err)
		}
		return env, nil
	}
	if standard := "redis://" + loopback; pingRedis(standard, time.Second, "") == nil {
		return standard, nil
	}
	server, address, err := privateRedis(binary)
	if err != nil {
		return "", err
	}
	holdOpen(server)
	return address, nil
}

func redisBinary() string {
	for _, name := range []string{
		"redis-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server",
		"/home/linuxbrew/.linuxbrew/bin/redis-server",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func privateRedis(binary string) (*child, string, error) {
	if binary == "" {
		return nil, "", errors.New("redis-server not found")
	}
	var err error
	// The free port may be taken by another process between the look and the start.
	for range 3 {
		var (
			port   int
			server *child
		)
		if port, err = freePort(); err != nil {
			return nil, "", err
		}
		if server, err = startRedis(binary, port); err == nil {
			return server, fmt.Sprintf("redis://127.0.0.1:%d", port), nil
		}
	}
	return nil, "", err
}

// RedisChild is a server of one test, which may kill it and start it again.
type RedisChild struct {
	URL    string
	server *child
}

// RedisServer starts a private server for t, stopped when t ends. It is empty
// after each start. Its methods are not for concurrent use.
func RedisServer(t testing.TB) *RedisChild {
	t.Helper()
	server, address, err := privateRedis(redisBinary())
	if err != nil {
		missing(t, fmt.Sprintf("testsvc: no private Redis: %v (run make services)", err))
	}
	r := &RedisChild{URL: address, server: server}
	t.Cleanup(r.Kill)
	return r
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (r *RedisChild) Kill() {
	if r.server != nil {
		r.server.stop()
		r.server = nil
	}
}

// Start starts the server again on the same port.
func (r *RedisChild) Start(t testing.TB) {
	t.Helper()
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatalf("testsvc: parse server address: %v", err)
	}
	var port int
	if _, err := fmt.Sscanf(u.Port(), "%d", &port); err != nil {
		t.Fatalf("testsvc: parse port: %v", err)
	}
	if r.server, err = startRedis(redisBinary(), port); err != nil {
		t.Fatalf("testsvc: start Redis again: %v", err)
	}
}

// pingRedis reports whether a server answers, and from folder if that is given.
func pingRedis(server string, limit time.Duration, folder string) error {
	return withRedis(server, limit, func(ctx context.Context, client *redis.Client) error {
		if folder == "" {
			return client.Ping(ctx).Err()
		}
		got, err := client.ConfigGet(ctx, "dir").Result()
		if err == nil && got["dir"] != folder {
			err = fmt.Errorf("port was taken by a server in %s", got["dir"])
		}
		return err
	})
}

func deleteKeys(server, prefix string) error {
	return withRedis(server, time.Minute, func(ctx context.Context, client *redis.Client) error {
		keys := client.Scan(ctx, 0, prefix+"*", 1000).Iterator()
		for keys.Next(ctx) {
			if err := client.Del(ctx, keys.Val()).Err(); err != nil {
				return err
			}
		}
		return keys.Err()
	})
}

func withRedis(server string, limit time.Duration, do func(context.Context, *redis.Client) error) error {
	options, err := redis.ParseURL(server)
	if err != nil {
		return err
	}
	options.ContextTimeoutEnabled, options.MaxRetries, options.DialTimeout = true, -1, limit
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client := redis.NewClient(options)
	defer client.Close()
	return do(ctx, client)
}
