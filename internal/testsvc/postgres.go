package testsvc

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the "pgx" driver of database/sql
)

// The environment variables that steer this package.
const (
	// EnvPostgresURL names a server on which databases may be created and dropped.
	EnvPostgresURL = "ARMATURE_POSTGRES_URL"
	// EnvRequire set to 1 turns a missing server from a skip into a failure.
	EnvRequire = "ARMATURE_REQUIRE_SERVICES"
)

// Postgres returns the URL of a database of its own for t: new, empty, and
// dropped when t ends. Safe for parallel tests; the first call of a process may
// take seconds (it starts the server), later ones some ten milliseconds.
func Postgres(t testing.TB) string {
	t.Helper()
	server, err := postgres()
	if err != nil {
		missing(t, fmt.Sprintf("testsvc: no PostgreSQL: %v (run make services, or set %s)", err, EnvPostgresURL))
	}
	return createDatabase(t, server)
}

func missing(t testing.TB, line string) {
	t.Helper()
	if os.Getenv(EnvRequire) == "1" {
		t.Fatal(line)
	}
	t.Skip(line)
}

// One server per process: initdb costs seconds, a database on it milliseconds.
var postgres = sync.OnceValues(func() (string, error) {
	return locatePostgres(os.Getenv(EnvPostgresURL), "127.0.0.1:5432", binaryFolders())
})

// locatePostgres returns the URL of a server's maintenance database.
func locatePostgres(env, loopback string, folders []string) (string, error) {
	if env != "" {
		u, err := url.Parse(env)
		if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
			return "", fmt.Errorf("%s must be a URL like postgres://user@host:5432/postgres", EnvPostgresURL)
		}
		if err := ping(env, 5*time.Second); err != nil {
			return "", fmt.Errorf("%s names a server that does not answer: %w", EnvPostgresURL, err)
		}
		return env, nil
	}
	if standard := "postgres://postgres@" + loopback + "/postgres?sslmode=disable"; ping(standard, time.Second) == nil {
		return standard, nil
	}
	return startPostgres(folders)
}

func ping(server string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	db, err := sql.Open("pgx", server)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.PingContext(ctx)
}

func createDatabase(t testing.TB, server string) string {
	t.Helper()
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand aborts the process instead
	name := "armature_test_" + hex.EncodeToString(random[:])
	run := func(statement string) error {
		// t.Context is already cancelled when the cleanup runs.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		db, err := sql.Open("pgx", server)
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.ExecContext(ctx, statement)
		return err
	}
	if err := run("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		t.Fatalf("testsvc: create database %s: %v", name, err)
	}
	t.Cleanup(func() {
		// FORCE: a test that crashed may have left connections.
		if err := run("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("testsvc: drop database %s: %v", name, err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("testsvc: parse server address: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

// binaryFolders lists where packagers put initdb and postgres, newest first
// within one packager.
func binaryFolders() []string {
	var folders []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(real))
		}
		folders = append(folders, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                      // Debian, Ubuntu
		"/usr/pgsql-*/bin",                               // Red Hat
		"/opt/homebrew/opt/postgresql*/bin",              // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",                 // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin", // Homebrew on Linux
	} {
		found, _ := filepath.Glob(pattern) // the patterns are constant and valid
		for i := len(found) - 1; i >= 0; i-- {
			folders = append(folders, found[i])
		}
	}
	return folders
}

func startPostgres(folders []string) (string, error) {
	for _, folder := range folders {
		if !executable(filepath.Join(folder, "initdb")) || !executable(filepath.Join(folder, "postgres")) {
			continue
		}
		var err error
		// The free port may be taken by another process between the look and the start.
		for range 3 {
			var server string
			if server, err = startChild(folder); err == nil {
				return server, nil
			}
		}
		return "", err
	}
	return "", errors.New("initdb and postgres not found")
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // an address without a name waits for nobody
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// awaitReady polls because the server tells its readiness in no other portable way.
func awaitReady(ready func() error, limit time.Duration, exited func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if cause := exited(); cause != nil {
			return cause
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
