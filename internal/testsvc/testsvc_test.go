package testsvc_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/internal/testsvc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestPostgresGivesEachTestItsOwnEmptyDatabase(t *testing.T) {
	t.Parallel()
	urls := [2]string{testsvc.Postgres(t), testsvc.Postgres(t)}
	if urls[0] == urls[1] {
		t.Fatalf("the same database twice: %s", urls[0])
	}
	for _, url := range urls {
		db := open(t, url)
		// The same table in both proves that neither sees the other.
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE things (id BIGINT)"); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPostgresDropsTheDatabaseAtTheEnd(t *testing.T) {
	t.Parallel()
	var gone string
	t.Run("user", func(t *testing.T) { gone = testsvc.Postgres(t) })
	if gone == "" {
		t.Skip("no server")
	}
	db := open(t, gone)
	defer db.Close()
	if err := db.PingContext(t.Context()); err == nil {
		t.Errorf("database %s is still there", gone)
	}
}

func TestLocatePostgres(t *testing.T) {
	t.Parallel()
	const nowhere = "127.0.0.1:1"
	tests := map[string]struct {
		env  string
		want string
	}{
		"nothing found":         {"", "initdb and postgres not found"},
		"environment not a URL": {"host=localhost", "must be a URL"},
		"environment is silent": {"postgres://postgres@127.0.0.1:1/postgres", "does not answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := testsvc.LocatePostgres(tt.env, nowhere, []string{t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// TestHelperKilled is the child of TestPrivateServerDiesWithItsProcess.
func TestHelperKilled(t *testing.T) {
	report := os.Getenv("TESTSVC_REPORT")
	if report == "" {
		t.Skip("a helper of TestPrivateServerDiesWithItsProcess")
	}
	if err := os.WriteFile(report+".tmp", []byte(testsvc.Postgres(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(report+".tmp", report); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done() // until killed
}

func TestPrivateServerDiesWithItsProcess(t *testing.T) {
	t.Parallel()
	if os.Getenv(testsvc.EnvPostgresURL) != "" {
		t.Skip("the environment names a server, so no private one is started")
	}
	own := testsvc.Postgres(t) // skips where there is none
	if strings.Contains(own, "@127.0.0.1:5432/") {
		t.Skip("the standard port answers, so no private one is started")
	}
	report := filepath.Join(t.TempDir(), "report")
	child := exec.Command(os.Args[0], "-test.run=^TestHelperKilled$")
	child.Env = append(os.Environ(), "TESTSVC_REPORT="+report)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var url string
	eventually(t, "the child has a database", func() bool {
		text, err := os.ReadFile(report)
		url = string(text)
		return err == nil
	})
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed"
	eventually(t, "the server is gone", func() bool {
		db := open(t, url)
		defer db.Close()
		err := db.PingContext(t.Context())
		return err != nil && strings.Contains(err.Error(), "refused")
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestSQLiteNamesAFileOfTheTestsOwn(t *testing.T) {
	t.Parallel()
	first, second := testsvc.SQLite(t), testsvc.SQLite(t)
	if !strings.HasPrefix(first, "sqlite:/") || first == second {
		t.Errorf("got %q and %q, want two absolute sqlite: URLs", first, second)
	}
}
