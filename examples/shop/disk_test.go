package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/flow"
)

// TestADiskThatCannotSync makes every fsync of the order service fail for longer than its leases, then some of them
// while orders come in, then those of the payment service, then all of them until the process is killed. Each time the clients are told, nothing is
// half-done, and the service goes on by itself when the disk does.
func TestADiskThatCannotSync(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace, which makes the fsyncs of a process fail")
	}
	s := openTorn(t, &supervisor{exe: buildShop(t), options: options{db: "sqlite:"}})
	all := func(t *testing.T) (end func()) {
		t.Helper()
		return s.failSync(t, strace, "order", "error=EIO")
	}

	t.Run("for longer than the leases", func(t *testing.T) { s.outage(t, all) })
	t.Run("now and then", func(t *testing.T) {
		stop := sendOrders(t.Context(), s.url, rand.New(rand.NewPCG(1, 1)))
		after(t, 300*time.Millisecond)
		end := s.failSync(t, strace, "order", "error=EIO:when=2+3") // counted for each thread
		after(t, 5*time.Second)
		end()
		sent := stop()
		s.green(t)
		t.Logf("%d orders: green", sent)
	})
	t.Run("of a service that the order needs", func(t *testing.T) {
		end := s.failSync(t, strace, "payment", "error=EIO")
		id := s.once(t, flow.NewID())
		after(t, 2*time.Second)
		end()
		var o orderView
		s.await(t, "the order is settled", func() bool {
			s.edge().do(t, "GET", "/api/orders/"+id, "").decode(t, &o)
			return o.Status != "pending"
		})
		if o.Status != "confirmed" {
			t.Errorf("the order is %s (%s): it was given up instead of waiting for the disk", o.Status, o.Reason)
		}
		s.green(t)
	})
	t.Run("until it dies", func(t *testing.T) {
		// What could not be synced may be in the file all the same, and be there for good after the restart.
		for range 3 {
			end := all(t)
			key := s.refused(t)
			p := s.process("order")
			before := p.count()
			if err := p.signal(os.Kill); err != nil {
				t.Fatal(err)
			}
			end()
			s.await(t, "order starts again", func() bool { return p.count() > before })
			s.once(t, key)
		}
		s.green(t)
	})
}

// TestADiskThatIsFull fills the disk of the order service for longer than its leases and makes room again.
func TestADiskThatIsFull(t *testing.T) {
	program, disk := buildShop(t), smallDisk(t)
	s := openTorn(t, &supervisor{exe: program, options: options{
		data: t.TempDir(),
		database: func(ctx context.Context, service string) (string, error) {
			if service == "order" {
				return "sqlite:" + filepath.Join(disk, "order.db"), nil
			}
			return platform.DatabaseURL(ctx, "sqlite:", filepath.Dir(disk), service)
		},
	}})
	s.outage(t, func(t *testing.T) (end func()) {
		t.Helper()
		ballast := filepath.Join(disk, "ballast")
		fill(t, ballast)
		return func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// outage places orders before, during and after a fault of the order service's disk that begin begins.
func (s *torn) outage(t *testing.T, begin func(t *testing.T) (end func())) {
	t.Helper()
	p := s.process("order")
	lives := p.count()
	stop := sendOrders(t.Context(), s.url, rand.New(rand.NewPCG(2, 2))) // so that some are halfway when it begins
	after(t, 500*time.Millisecond)
	earlier := s.once(t, flow.NewID())

	end := begin(t)
	keys := []string{s.refused(t)}
	before := s.written(t)
	read := 0
	for deadline := time.Now().Add(12 * time.Second); time.Now().Before(deadline); after(t, 500*time.Millisecond) { // the leases are 10 s
		keys = append(keys, s.refused(t))
		// The gateway's breaker may be open: it does not tell reading from writing.
		if a := s.edge().do(t, "GET", "/api/orders/"+earlier, ""); a.status == http.StatusOK {
			read++
		} else if a.status != http.StatusServiceUnavailable {
			t.Errorf("GET of an order = %d %s", a.status, a.body)
		}
	}
	if read == 0 {
		t.Error("no order could be read, although reading needs no room")
	}
	if now := s.written(t); now != before {
		t.Errorf("something was written while nothing could be: %s, then %s", before, now)
	}
	end()

	for _, key := range keys {
		s.once(t, key)
	}
	sent := stop()
	s.green(t)
	if p.count() != lives {
		t.Errorf("the order service was started %d times instead of going on", p.count()-lives)
	}
	t.Logf("%d requests refused, %d answered from what is there, %d other orders: green", len(keys), read, sent)
}

func (s *torn) edge() *opened { return &opened{url: s.url} }

// refused places orders until one cannot be stored, and returns its key. A disk without room can take some more, as long
// as they fit where others were.
func (s *torn) refused(t *testing.T) (key string) {
	t.Helper()
	var a answer
	s.await(t, "an order is refused", func() bool {
		key = flow.NewID()
		a = s.edge().do(t, "POST", "/api/orders", wish("tok_visa", "sku-tea", "DE"), "Idempotency-Key", key)
		return a.status != http.StatusCreated && a.status != http.StatusAccepted
	})
	var problem struct {
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}
	kind := a.header.Get("Content-Type")
	if err := json.Unmarshal(a.body, &problem); err != nil || a.status < 500 || kind != "application/problem+json" ||
		problem.Status != a.status || problem.Detail == "" {
		t.Fatalf("POST /api/orders on a broken disk = %d %s %s, want a 5xx problem document", a.status, kind, a.body)
	}
	text := strings.ToLower(string(a.body))
	for _, inside := range []string{"sql", "i/o ", "disk", "commit", "transaction", "insert", "127.0.0.1", "localhost", s.data, ".db"} {
		if strings.Contains(text, strings.ToLower(inside)) {
			t.Errorf("strangers are told %q: %s", inside, a.body)
		}
	}
	return key
}

// once places the order of a key until it is taken, and again, and returns its id.
func (s *torn) once(t *testing.T, key string) (id string) {
	t.Helper()
	body := wish("tok_visa", "sku-tea", "DE")
	var first, second orderView
	for _, into := range []*orderView{&first, &second} {
		s.await(t, "the order of key "+key+" is taken", func() bool {
			a := s.edge().do(t, "POST", "/api/orders", body, "Idempotency-Key", key)
			if a.status >= 500 { // a breaker may still make up its mind
				return false
			}
			a.decode(t, into)
			return true
		})
	}
	if first.ID == "" || first.ID != second.ID {
		t.Errorf("one key is the orders %q and %q", first.ID, second.ID)
	}
	return first.ID
}

// await polls ok for half a minute.
func (s *torn) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); after(t, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within half a minute: %s", what)
		}
	}
}

// written describes everything the order service has committed. The outbox is left out: to forget a message that has been
// published may fit into room that the log of the database has already.
func (s *torn) written(t *testing.T) string {
	t.Helper()
	db, _, err := armature.OpenDB(t.Context(), s.books.Databases["order"]+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var out []string
	for _, query := range []string{
		"COUNT(*) || '/' || SUM(updated_at) FROM orders", "COUNT(*) FROM order_items", "COUNT(*) || '/' || SUM(seq) FROM armature_saga",
		"COUNT(*) FROM armature_saga_log",
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), "SELECT "+query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		out = append(out, got)
	}
	return strings.Join(out, " ")
}

// failSync makes fsyncs of a service fail as how says, until end is called.
func (s *torn) failSync(t *testing.T, strace, name, how string) (end func()) {
	t.Helper()
	cmd := exec.Command(strace, "-f", "-p", strconv.Itoa(s.process(name).pid()),
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+how)
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	end = sync.OnceFunc(func() {
		// The kernel lets go of what it held. Asked to end in good order it can wait for threads that were killed.
		_ = cmd.Process.Kill()
		<-ended
	})
	t.Cleanup(end)
	lines := bufio.NewReader(says)
	line, err := lines.ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait() // it was killed
		close(ended)
	}()
	switch {
	case strings.Contains(line, "attached"):
	case strings.Contains(line, "ermitted"), strings.Contains(line, "enied"), strings.Contains(line, "not implemented"):
		t.Skipf("strace may not look into other processes here: %s", line)
	default:
		t.Fatalf("strace: %q, %v", line, err)
	}
	return end
}

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// smallDisk is a folder with a file system of its own. SQLite's log of changes alone takes four mebibytes of it before it
// is used again from its beginning.
func smallDisk(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux, to mount a small disk")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("may not mount a small disk here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// fill takes all the room there is.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(fmt.Errorf("fill the disk: %w", err))
	}
}
