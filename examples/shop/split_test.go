package main

import (
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/play"
	"github.com/armature-go/armature/internal/testsvc"
)

// programFolder holds the program that buildShop made; TestMain removes it.
var programFolder string

// build makes the shop's program once: with failpoints, and without the race detector, which would slow its databases
// down some twenty times and is on in the tests that run the shop in their own process.
var build = sync.OnceValues(func() (program string, err error) {
	if programFolder, err = os.MkdirTemp("", "shop-program-"); err != nil {
		return "", err
	}
	program = filepath.Join(programFolder, "shop")
	if out, err := exec.Command("go", "build", "-tags", "failpoint", "-o", program, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
})

// buildShop returns the program that runs the shop, or one of its services, in a process of its own.
func buildShop(t *testing.T) string {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatalf("build the shop: %v", err)
	}
	return program
}

// torn is a split shop whose supervisor runs in this process.
type torn struct {
	*supervisor
	url  string
	logs *buffer
	stop func() error // once; the end of the test calls it otherwise
}

// supervisors counts those of this process.
var supervisors atomic.Int32

func openTorn(t *testing.T, sup *supervisor) *torn {
	t.Helper()
	if sup.data == "" {
		sup.data = t.TempDir()
	}
	logs := &buffer{}
	sup.addr, sup.options.logs = "127.0.0.1:0", logs
	sup.shutdownTimeout = 10 * time.Second
	sup.port = int(20000 + 50*supervisors.Add(1)) // apart from that of any other test
	if err := openSplit(t.Context(), sup); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- sup.run(ctx, func() { close(ready) }) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop the shop: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Logf("warnings and errors of the shop:\n%s", logs.worse())
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the shop did not open: %v\n%s", err, logs.worse())
	}
	return &torn{supervisor: sup, url: "http://" + sup.processes[len(sup.processes)-1].addr, logs: logs, stop: stop}
}

func (s *torn) process(name string) *process {
	i := slices.IndexFunc(s.processes, func(p *process) bool { return p.name == name })
	return s.processes[i]
}

// green waits for the shop to come to rest and fails the test unless its books are in order.
func (s *torn) green(t *testing.T) {
	t.Helper()
	greenBooks(t, s.books)
}

func greenBooks(t *testing.T, books audit.Config) {
	t.Helper()
	books.Settle, books.Still = 2*time.Minute, 20*time.Second
	report, err := audit.Run(t.Context(), books)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Green() {
		t.Fatalf("the audit is red:\n%s", describe(report))
	}
}

// sendOrders plays orders from all ways an order can go until stop is called, whatever becomes of the requests.
func sendOrders(ctx context.Context, url string, rng *rand.Rand) (stop func() (sent int)) {
	ctx, cancel := context.WithCancel(ctx)
	orders := play.Generate()
	rng.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	total := make(chan int, 1)
	go func() {
		sent := 0
		for i := 0; ctx.Err() == nil; i = (i + 40) % len(orders) {
			batch := orders[i:min(i+40, len(orders))]
			_, _ = play.Run(ctx, play.Config{
				Addr: url, Orders: batch, Concurrency: 4, Settle: time.Second,
				Audit: func(context.Context) (*audit.Report, error) { return &audit.Report{}, nil },
			})
			sent += len(batch)
		}
		total <- sent
	}()
	return func() int {
		cancel()
		return <-total
	}
}

// after waits for d, or for the end of the test.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// number reads a figure that a longer run raises.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestKillsLoseNothing kills services at random while orders are placed, freezes others, takes the broker away, and
// audits. SHOP_SEED repeats a run, SHOP_KILLS makes it longer.
func TestKillsLoseNothing(t *testing.T) {
	program := buildShop(t)
	for _, tt := range []struct {
		name  string
		kills int
		db    func(*testing.T) string
	}{
		{"sqlite", 20, func(*testing.T) string { return "sqlite:" }},
		{"postgres", 10, func(t *testing.T) string { return testsvc.Postgres(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kills := number(t, "SHOP_KILLS", tt.kills)
			seed := uint64(number(t, "SHOP_SEED", int(time.Now().UnixNano()&0xffffff)))
			fmt.Printf("%s: seed %d\n", t.Name(), seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			s := openTorn(t, &supervisor{exe: program, options: options{db: tt.db(t), database: ownServer(t, tt.name)}})
			stop := sendOrders(t.Context(), s.url, rand.New(rand.NewPCG(seed, 1)))

			victims := []string{"order", "payment", "inventory", "shipping", "notification"}
			var freezes, restarts int
			var thaw sync.WaitGroup
			for killed := 0; killed < kills; {
				after(t, time.Duration(50+rng.IntN(400))*time.Millisecond)
				p := s.process(victims[rng.IntN(len(victims))])
				switch dice := rng.IntN(100); {
				case dice < 75:
					if p.signal(os.Kill) == nil {
						killed++
					}
				case dice < 93:
					frozen := time.Duration(100+rng.IntN(1400)) * time.Millisecond
					if p.signal(syscall.SIGSTOP) == nil {
						freezes++
						thaw.Go(func() {
							after(t, frozen)
							_ = p.signal(syscall.SIGCONT)
						})
					}
				default:
					restarts++
					if err := s.restartBroker(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			thaw.Wait()
			sent := stop()
			s.green(t)
			t.Logf("%d kills, %d freezes, %d restarts of the broker, %d orders: green", kills, freezes, restarts, sent)
		})
	}
}

// ownServer makes a database of its own for each service on the test's server.
func ownServer(t *testing.T, kind string) func(context.Context, string) (string, error) {
	if kind != "postgres" {
		return nil
	}
	urls := map[string]string{}
	for _, svc := range behindTheEdge() {
		urls[svc.name] = testsvc.Postgres(t)
	}
	return func(_ context.Context, name string) (string, error) { return urls[name], nil }
}

// TestTheProcessesDieWithTheirSupervisor kills the supervisor itself and opens the shop again on what it left.
func TestTheProcessesDieWithTheirSupervisor(t *testing.T) {
	data := t.TempDir()
	seed := uint64(number(t, "SHOP_SEED", int(time.Now().UnixNano()&0xffffff)))
	fmt.Printf("%s: seed %d\n", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range number(t, "SHOP_SUPERVISOR_KILLS", 3) {
		c := startChild(t, data, "-split")
		stop := sendOrders(t.Context(), c.edge, rng)
		after(t, time.Duration(300+rng.IntN(1500))*time.Millisecond)
		pids := processes(t, data)
		if len(pids) != len(behindTheEdge())+2 {
			t.Fatalf("round %d: %d processes are noted: %v", round, len(pids), pids)
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait()
		stop()
		for name, pid := range pids {
			for deadline := time.Now().Add(10 * time.Second); alive(pid); {
				if time.Now().After(deadline) {
					t.Fatalf("round %d: %s lives on without its supervisor", round, name)
				}
				after(t, 10*time.Millisecond)
			}
		}
	}
	c := startChild(t, data, "-split")
	books, err := audit.ReadConfig(filepath.Join(data, audit.FileName))
	if err != nil {
		t.Fatal(err)
	}
	greenBooks(t, books)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, readFile(c.log))
	}
}

func processes(t *testing.T, data string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, processesFile))
	if err != nil {
		t.Fatal(err)
	}
	var pids map[string]int
	if err := json.Unmarshal(text, &pids); err != nil {
		t.Fatal(err)
	}
	return pids
}

// alive reports whether pid is a process that is more than a zombie nobody has waited for.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// TestAKillAtEveryBoundary kills order, payment and shipping at every boundary between two durable writes that an order
// passes on its way, and audits after each. The boundaries are those that a first run passes.
func TestAKillAtEveryBoundary(t *testing.T) {
	program := buildShop(t)
	t.Run("paths", func(t *testing.T) {
		for _, name := range []string{"order", "payment", "shipping"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				killAtEveryBoundary(t, program, name)
			})
		}
	})
}

func killAtEveryBoundary(t *testing.T, program, name string) {
	s := openTorn(t, &supervisor{exe: program, env: map[string][]string{}, options: options{db: "sqlite:"}})
	trace := filepath.Join(t.TempDir(), "trace")
	s.rearm(t, name, "ARMATURE_FAILPOINT_TRACE="+trace)
	everyWay(t, s)
	s.green(t)
	boundaries := strings.Split(strings.TrimSpace(readFile(trace)), "\n")
	died, p := 0, s.process(name)
	for _, point := range boundaries {
		before := p.count()
		s.rearm(t, name, "ARMATURE_FAILPOINT="+point)
		everyWay(t, s)
		if p.count() > before+1 {
			died++ // timing decides how often a boundary such as a batch is passed
		}
		s.rearm(t, name)
		report, err := audit.Run(t.Context(), withSettle(s.books))
		if err != nil {
			t.Fatal(err)
		}
		if !report.Green() {
			t.Fatalf("%s died at %s, and the audit is red:\n%s", name, point, describe(report))
		}
	}
	t.Logf("%d boundaries, died at %d of them", len(boundaries), died)
	if died < len(boundaries)*3/4 {
		t.Errorf("only %d of %d boundaries were passed a second time", died, len(boundaries))
	}
}

func withSettle(c audit.Config) audit.Config {
	c.Settle, c.Still = time.Minute, 20*time.Second
	return c
}

// count is how often the process was started.
func (p *process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// rearm gives the next life of a process its environment, ends the present one in good order and waits for the next.
func (s *torn) rearm(t *testing.T, name string, env ...string) {
	t.Helper()
	p := s.process(name)
	s.setEnv(name, env)
	before := p.count()
	if err := p.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	for p.count() == before {
		after(t, 5*time.Millisecond)
	}
	s.setEnv(name, nil) // for the life after the next
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		t.Fatalf("%s with %v: %v", name, env, err)
	}
}

// everyWay sends an order for each way it can go, and waits until all are at rest.
func everyWay(t *testing.T, s *torn) {
	t.Helper()
	address := play.Address{Name: "Ada", Line1: "1 Main Street", City: "Berlin", Postcode: "10115", Country: "DE"}
	ice := address
	ice.Country = "AQ"
	order := play.Order{CustomerID: "cust-01", Items: []play.Item{{ProductID: "sku-tea", Quantity: 1}}, Card: "tok_visa", Address: address, Expect: play.Confirmed}
	refunded, declined, stuck := order, order, order
	refunded.Refund = true
	declined.Card, declined.Expect, declined.Reason = "tok_declined", play.Cancelled, "CARD_DECLINED"
	stuck.Address, stuck.Expect, stuck.Reason = ice, play.Cancelled, "UNSHIPPABLE"
	result, err := play.Run(t.Context(), play.Config{
		Addr: s.url, Orders: []play.Order{refunded, declined, stuck}, Concurrency: 3, Settle: time.Second,
		Audit: func(context.Context) (*audit.Report, error) { return &audit.Report{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Broken) > 0 {
		t.Errorf("orders did not end as expected: %v", result.Broken)
	}
}

// TestTwoOrderProcesses freezes one of two copies of the order service for longer than its lease and thaws it.
func TestTwoOrderProcesses(t *testing.T) {
	s := openTorn(t, &supervisor{
		exe: buildShop(t), copies: map[string]int{"order": 2},
		options: options{db: testsvc.Postgres(t), database: ownServer(t, "postgres")},
	})
	stop := sendOrders(t.Context(), s.url, rand.New(rand.NewPCG(1, 1)))
	for round := range number(t, "SHOP_FREEZES", 2) {
		p := s.process(fmt.Sprintf("order-%d", round%2+1))
		after(t, time.Second)
		if err := p.signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		after(t, 12*time.Second) // the lease is 10 s
		if err := p.signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	after(t, 2*time.Second)
	sent := stop()
	s.green(t)
	took := strings.Count(s.logs.all(), "saga taken over")
	t.Logf("%d orders, %d sagas taken over: green", sent, took)
	if took == 0 {
		t.Error("nothing was taken over, so nothing was tested")
	}
}

func (b *buffer) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestSplitRefusesABrokerThatCannotBeShared(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-split", "-broker", "memory:"}, {"order", "-broker", "memory:", "-data", t.TempDir()}} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "memory:") {
			t.Errorf("shop %v: %v", args, err)
		}
	}
}
