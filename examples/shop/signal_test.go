package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/flow"
)

// child is a shop in a process of its own.
type child struct {
	cmd         *exec.Cmd
	edge, ready string // URLs of the gateway and of its readiness
	log         string
}

func startChild(t *testing.T, data string, args ...string) *child {
	t.Helper()
	c := &child{log: filepath.Join(t.TempDir(), "shop.log")}
	c.cmd = exec.Command(buildShop(t), append([]string{"-addr", "127.0.0.1:0", "-data", data, "-log", c.log, "-v", "warn"}, args...)...)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		switch {
		case len(fields) == 2 && fields[0] == "gateway" && strings.HasSuffix(fields[1], "/api/products"):
			c.edge = strings.TrimSuffix(fields[1], "/api/products")
		case len(fields) == 2 && fields[0] == "gateway" && strings.HasSuffix(fields[1], "/metrics"):
			c.ready = strings.TrimSuffix(fields[1], "metrics") + "ready"
		case strings.HasPrefix(scanner.Text(), "Ctrl-C"):
			return c
		}
	}
	t.Fatalf("the shop did not open: %v\n%s", scanner.Err(), readFile(c.log))
	return nil
}

func readFile(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[:min(len(data), 8000)])
}

// load is what clients see of a shop that is told to stop.
type load struct {
	edge   string
	client *http.Client
	// brutal says that the shop is killed, so that answers may be cut off or never come.
	brutal bool

	mu       sync.Mutex
	accepted map[string]bool // ids of the orders that were answered
	lost     map[string]bool // idempotency keys of the orders that were not
	wrong    []string
	refused  time.Time // first time nobody was there any more
	answered atomic.Int64
}

func newLoad() *load {
	return &load{
		client:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
		accepted: map[string]bool{}, lost: map[string]bool{},
	}
}

// request sends the n-th request: some place an order, and a third of those wait for its outcome.
func (l *load) request(n int) {
	const every = 5
	method, path, body := "GET", "/api/products", ""
	key := ""
	if n%every == 0 {
		method, path, body = "POST", "/api/orders", wish("tok_visa", "sku-tea", "DE")
		key = flow.NewID()
	}
	req, err := http.NewRequest(method, l.edge+path, strings.NewReader(body))
	if err != nil {
		l.failf("%v", err)
		return
	}
	if key != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
	}
	if n%(3*every) == 0 {
		req.Header.Set("Prefer", "wait=2")
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if key != "" {
			l.lost[key] = true
		}
		if errors.Is(err, syscall.ECONNREFUSED) && l.refused.IsZero() {
			l.refused = time.Now()
		}
		if !l.brutal && !untouched(err) {
			l.wrong = append(l.wrong, err.Error())
		}
		return
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	switch {
	case err != nil && l.brutal:
		return
	case err != nil:
		l.failf("%s %s: an answer was cut off: %v", method, path, err)
	case resp.StatusCode >= 500 && l.brutal:
		return // a shop that was just killed may be slow to come back; what it answers that way it did not promise
	case resp.StatusCode >= 400:
		l.failf("%s %s = %d %s", method, path, resp.StatusCode, data)
	case !json.Valid(data):
		l.failf("%s %s: an answer is no JSON: %s", method, path, data)
	case key != "":
		var o orderView
		if err := json.Unmarshal(data, &o); err != nil {
			l.failf("%s %s: %v", method, path, err)
		}
		l.mu.Lock()
		l.accepted[o.ID] = true
		l.mu.Unlock()
	}
	l.answered.Add(1)
}

// untouched reports whether err is what a client sees of a connection that the shop took no byte from: refused, or
// taken by the kernel and closed with the listener. That no such request was handled after all is checked in the end.
func untouched(err error) bool {
	for _, target := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF} {
		if errors.Is(err, target) {
			return true
		}
	}
	return strings.Contains(err.Error(), "server closed idle connection") // net/http exports no name for it
}

func (l *load) failf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// run sends 200 requests a second until ctx ends and waits for all answers.
func (l *load) run(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var under sync.WaitGroup
	for n := 0; ctx.Err() == nil; n++ {
		under.Go(func() { l.request(n) })
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	under.Wait()
}

// unready returns the first time at which the shop said that it was not ready, or zero when ctx ended before it did.
func unready(ctx context.Context, url string) time.Time {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for ctx.Err() == nil {
		if resp, err := client.Get(url); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable {
				return time.Now()
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return time.Time{}
}

func TestTwentySIGTERMsUnderLoadLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and stops the shop twenty times")
	}
	t.Parallel()
	data, l := t.TempDir(), newLoad()
	for round := range 20 {
		// Longer than usual, because whoever polls readiness here shares the processors with everybody else.
		c := startChild(t, data, "-drain-delay", "500ms")
		l.edge, l.refused = c.edge, time.Time{}
		ctx, cancel := context.WithCancel(t.Context())
		var observers sync.WaitGroup
		var notReady time.Time
		observers.Go(func() { l.run(ctx) })
		observers.Go(func() { notReady = unready(ctx, c.ready) })

		select {
		case <-time.After(100*time.Millisecond + rand.N(400*time.Millisecond)):
		case <-t.Context().Done():
		}
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		err := c.cmd.Wait()
		cancel()
		observers.Wait()
		switch {
		case err != nil:
			t.Fatalf("round %d: the shop ended with %v\n%s", round, err, readFile(c.log))
		case notReady.IsZero():
			t.Errorf("round %d: readiness never went off", round)
		case l.refused.IsZero():
			t.Errorf("round %d: nobody was refused after the end", round)
		case !notReady.Before(l.refused):
			t.Errorf("round %d: not ready %s after the first refusal", round, notReady.Sub(l.refused))
		}
		if len(l.wrong) > 0 {
			t.Fatalf("round %d: %d wrong answers: %s\n%s", round, len(l.wrong), strings.Join(l.wrong[:min(len(l.wrong), 5)], "\n"), readFile(c.log))
		}
	}
	if l.answered.Load() < 20*20 {
		t.Errorf("only %d requests were answered: this was no load", l.answered.Load())
	}

	s := openShop(t, options{data: data})
	s.audit(t, true)
	ids, keys := placed(t, s.books.Databases["order"])
	for id := range l.accepted {
		if !ids[id] {
			t.Errorf("order %s was answered and is not there", id)
		}
	}
	for key := range l.lost {
		if keys[key] {
			t.Errorf("the request with key %s was read and never answered", key)
		}
	}
	t.Logf("%d answers, %d orders accepted, %d requests never taken", l.answered.Load(), len(l.accepted), len(l.lost))
}

func TestKillingTheProcessLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills the shop several times")
	}
	t.Parallel()
	data, l := t.TempDir(), newLoad()
	l.brutal = true
	for range 5 {
		c := startChild(t, data)
		l.edge = c.edge
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		want := len(l.accepted) + 3 // before anybody else looks
		clients.Go(func() { l.run(ctx) })
		l.await(t, want)
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait()
		cancel()
		clients.Wait()
	}
	if len(l.wrong) > 0 || len(l.accepted) == 0 {
		t.Errorf("%d orders accepted; wrong answers: %v", len(l.accepted), l.wrong)
	}
	s := openShop(t, options{data: data})
	s.audit(t, true)
	ids, _ := placed(t, s.books.Databases["order"])
	for id := range l.accepted {
		if !ids[id] {
			t.Errorf("order %s was answered and is not there", id)
		}
	}
	t.Logf("%d orders accepted, %d orders in the end", len(l.accepted), len(ids))
}

// await returns once want orders were accepted, and then some, so that it is at a random moment of the next.
func (l *load) await(t *testing.T, want int) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; {
		l.mu.Lock()
		n := len(l.accepted)
		l.mu.Unlock()
		switch {
		case n >= want:
			<-time.After(rand.N(200 * time.Millisecond))
			return
		case time.Now().After(limit):
			t.Fatalf("%d orders were accepted within half a minute, want %d", n, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func placed(t *testing.T, url string) (ids, keys map[string]bool) {
	t.Helper()
	db, _, err := armature.OpenDB(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func(db *sql.DB) { _ = db.Close() }(db)
	rows, err := db.QueryContext(t.Context(), "SELECT id, idempotency_key FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	ids, keys = map[string]bool{}, map[string]bool{}
	for rows.Next() {
		var id, key string
		if err := rows.Scan(&id, &key); err != nil {
			t.Fatal(err)
		}
		ids[id], keys[key] = true, true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ids, keys
}

func TestASecondSignalEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	c := startChild(t, t.TempDir(), "-drain-delay", "1m")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if unready(ctx, c.ready).IsZero() {
		t.Fatal("readiness never went off")
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("the shop ended with %v, want exit code 143", err)
	}
}

func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"an unknown flag":     {[]string{"-nope"}, "-nope"},
		"an unknown command":  {[]string{"stop"}, `"stop"`},
		"an unknown broker":   {[]string{"-broker", "smoke:"}, "smoke:"},
		"an unknown database": {[]string{"-db", "punchcards:"}, "punchcards:"},
		"an unknown level":    {[]string{"-v", "loud"}, "loud"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"-data", t.TempDir(), "-addr", "127.0.0.1:0"}, test.args...)
			if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("run(%q) = %v, want an error that names %s", test.args, err, test.says)
			}
		})
	}
	t.Run("a taken address", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		args := []string{"-data", t.TempDir(), "-addr", taken.Addr().String()}
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "bind http") {
			t.Errorf("run = %v, want an error about the address", err)
		}
	})
	var help strings.Builder
	if err := run(t.Context(), []string{"-h"}, &help, io.Discard); err != nil || !strings.Contains(help.String(), "-addr") {
		t.Errorf("-h = %v, %q", err, help.String())
	}
}
