package outbox_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/internal/sqldb"
	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/outbox"
)

// file is a broker that survives the process: a line per stored message.
type file struct{ *os.File }

func (f file) Publish(_ context.Context, topic string, msgs ...*messaging.Message) error {
	for _, m := range msgs {
		if _, err := fmt.Fprintf(f, "%s %s\n", m.Key, m.ID); err != nil {
			return err
		}
	}
	return nil
}

// TestHelperRelay is the process that TestKillDashNine kills.
func TestHelperRelay(t *testing.T) {
	url, sink := os.Getenv("OUTBOX_TEST_URL"), os.Getenv("OUTBOX_TEST_SINK")
	if url == "" {
		t.Skip("a helper of TestKillDashNine")
	}
	db, dialect, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f, err := os.OpenFile(sink, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	box, err := outbox.New(outbox.Config{Dialect: dialect, Publisher: file{f}, Batch: 10, Poll: 5 * time.Millisecond, Owner: "the only one"})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = box.Run(context.Background(), db) }()
	for i := 0; ; i++ {
		id := fmt.Sprintf("%d-%06d", os.Getpid(), i)
		key := fmt.Sprintf("%d/%d", os.Getpid(), i%3)
		err := box.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, sqlInsert(dialect), key, id); err != nil {
				return err
			}
			return box.Publish(ctx, tx, "orders", keyed(key, id)...)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sqlInsert(d sqldb.Dialect) string { return d.Rebind("INSERT INTO business (k, id) VALUES (?, ?)") }

// Whatever the moment of death: what committed was sent, what was sent had
// committed, and every key is in order once repetitions are dropped.
func TestKillDashNine(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		ctx := t.Context()
		if _, err := db.ExecContext(ctx, "CREATE TABLE business (k TEXT NOT NULL, id TEXT NOT NULL)"); err != nil {
			t.Fatal(err)
		}
		sink := filepath.Join(t.TempDir(), "sink")
		f, err := os.OpenFile(sink, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		box := newOutbox(t, db, file{f}, func(c *outbox.Config) { c.Owner = "the only one" })
		lines := func() []string {
			text, err := os.ReadFile(sink)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for s := bufio.NewScanner(strings.NewReader(string(text))); s.Scan(); {
				all = append(all, s.Text())
			}
			return all
		}
		for range 3 {
			child := exec.Command(os.Args[0], "-test.run=^TestHelperRelay$")
			child.Env = append(os.Environ(), "OUTBOX_TEST_URL="+db.url, "OUTBOX_TEST_SINK="+sink)
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			had := len(lines())
			eventually(t, "the child relays", func() bool { return len(lines()) > had+20 })
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = child.Wait() // "signal: killed"
		}
		run(t, box, db)
		awaitEmpty(t, box, db)

		committed := map[string]bool{}
		rows, err := db.QueryContext(ctx, "SELECT k, id FROM business")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var k, id string
			if err := rows.Scan(&k, &id); err != nil {
				t.Fatal(err)
			}
			committed[k+" "+id] = true
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		seen, last := map[string]bool{}, map[string]string{}
		for _, line := range lines() {
			if !committed[line] {
				t.Errorf("%q was sent and never committed", line)
			}
			if seen[line] {
				continue
			}
			seen[line] = true
			key, id, _ := strings.Cut(line, " ")
			if id <= last[key] {
				t.Errorf("key %s: %s after %s", key, id, last[key])
			}
			last[key] = id
		}
		for line := range committed {
			if !seen[line] {
				t.Errorf("%q was committed and never sent", line)
			}
		}
		if len(committed) < 60 {
			t.Errorf("only %d messages: the test proves little", len(committed))
		}
	})
}
