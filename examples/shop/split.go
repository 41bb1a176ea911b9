package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/discovery"
	"github.com/armature-go/armature/discovery/static"
	"github.com/armature-go/armature/examples/shop/audit"
	"github.com/armature-go/armature/examples/shop/sim"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

// Bounds of the supervisor.
const (
	firstRestart = 100 * time.Millisecond // doubled with each quick end of a process
	lastRestart  = 5 * time.Second
	steady       = time.Second // a process that lived this long begins again at firstRestart
	startLimit   = time.Minute
)

// ProcessesFile is the file of the data folder that names the process of each service.
const processesFile = "processes.json"

// supervisor is the shop as one process per service. It starts them again when they die, and hosts what is not a service:
// the broker and the companies outside.
type supervisor struct {
	options
	exe    string              // the program the children run; it is told its service as its first argument
	env    map[string][]string // more environment for the process of that name
	copies map[string]int      // of a service; 1 unless named here
	port   int                 // the last one that was given to a process; 0 begins somewhere

	log       *slog.Logger
	outside   *sim.Sim
	listen    string // of the broker
	mu        sync.Mutex
	server    *natsembed.Server
	processes []*process // in the order of their dependencies
	books     audit.Config
}

// process is one service in an operating-system process of its own.
type process struct {
	name        string // unique; the service's name where there is one copy
	service     string
	addr, admin string
	args        []string

	mu       sync.Mutex
	cmd      *exec.Cmd
	stopping bool
	starts   int
	ended    chan struct{} // closed when it will not be started again
}

// openSplit prepares everything that is not a service, and starts no process yet.
func openSplit(ctx context.Context, sup *supervisor) (err error) {
	if sup.broker != "" && sup.broker != "nats+embedded:" {
		return fmt.Errorf(`shop: -split needs a broker that processes can share: -broker %s is not one, use "nats+embedded:"`, sup.broker)
	}
	if sup.exe == "" {
		if sup.exe, err = os.Executable(); err != nil {
			return fmt.Errorf("shop: find the program to run: %w", err)
		}
	}
	if err := sup.prepare(); err != nil {
		return err
	}
	if sup.log, err = sup.logger("supervisor"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sup.release(context.WithoutCancel(ctx)))
		}
	}()
	if sup.listen, err = sup.freeAddr(); err != nil {
		return err
	}
	if sup.server, err = sup.embedded(ctx, sup.listen); err != nil {
		return err
	}
	if sup.outside, err = sup.openOutside(); err != nil {
		return err
	}
	sup.books = audit.Config{Databases: map[string]string{}, Ledgers: sup.ledgers()}
	for _, svc := range append(behindTheEdge(), service{name: gatewayName}) {
		for i := range max(sup.copies[svc.name], 1) {
			p := &process{name: svc.name, service: svc.name, ended: make(chan struct{})}
			if sup.copies[svc.name] > 1 {
				p.name = fmt.Sprintf("%s-%d", svc.name, i+1)
			}
			if p.admin, err = sup.freeAddr(); err != nil {
				return err
			}
			if p.addr = sup.addr; svc.name != gatewayName {
				p.addr, err = sup.freeAddr()
			} else if _, port, _ := net.SplitHostPort(sup.addr); port == "0" {
				// The port has to be the same after a restart.
				p.addr, err = sup.freeAddr()
			}
			if err != nil {
				return err
			}
			sup.processes = append(sup.processes, p)
		}
		if svc.name != gatewayName {
			if sup.books.Databases[svc.name], err = sup.database(ctx, svc.name); err != nil {
				return err
			}
		}
	}
	sup.arm()
	return audit.WriteConfig(filepath.Join(sup.data, audit.FileName), sup.books)
}

// arm tells every process its arguments, once all addresses are known.
func (sup *supervisor) arm() {
	var instances []discovery.Instance
	for _, p := range sup.processes {
		instances = append(instances, discovery.Instance{Service: p.service, Addr: p.addr})
	}
	urls := sup.outside.URLs()
	for _, p := range sup.processes {
		p.args = []string{
			p.service, "-guard", "-addr", p.addr, "-admin", p.admin, "-node", p.name, "-data", sup.data,
			"-broker", "nats://" + sup.listen, "-registry", static.URL(instances...),
			"-card", urls.Card, "-carrier", urls.Carrier, "-mail", urls.Mail,
			"-drain-delay", sup.drainDelay.String(), "-shutdown-timeout", sup.shutdownTimeout.String(),
		}
		if sup.level != nil {
			p.args = append(p.args, "-v", sup.level.Level().String())
		}
	}
}

// Ports of the processes, which have to be the same after a restart. They lie below those that systems give to outgoing
// connections: one of these could take the port of a process that is being started again.
const (
	lowestPort  = 24000
	highestPort = 32000
)

// freeAddr returns a loopback address that nobody listens on.
func (sup *supervisor) freeAddr() (string, error) {
	if sup.port == 0 {
		sup.port = lowestPort + rand.IntN(highestPort-lowestPort-1000)
	}
	for range 1000 {
		sup.port++
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(sup.port))) //nolint:noctx // an address without a name waits for nobody
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("shop: find a free port: a thousand up to %d are taken", sup.port)
}

// run serves until ctx ends, calling ready once every process answers, and stops them in the reverse order.
func (sup *supervisor) run(ctx context.Context, ready func()) (err error) {
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		err = errors.Join(err, sup.stop(context.WithoutCancel(ctx)))
		stop()
		err = errors.Join(err, sup.release(context.WithoutCancel(ctx)))
	}()
	for _, p := range sup.processes {
		go sup.keep(alive, p)
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, p := range sup.processes {
		if err := p.awaitReady(starting); err != nil {
			if ctx.Err() != nil {
				return nil // told to stop while it started
			}
			return fmt.Errorf("shop: %s is not ready after %v: %w", p.name, startLimit, err)
		}
	}
	ready()
	<-ctx.Done()
	return nil
}

// keep starts p until it is told to stop, or its process ends by itself in good order.
func (sup *supervisor) keep(ctx context.Context, p *process) {
	defer close(p.ended)
	delay := firstRestart
	for {
		begin := time.Now()
		wait, err := sup.spawn(p)
		if err == nil {
			err = wait()
		}
		p.mu.Lock()
		stopping := p.stopping
		p.mu.Unlock()
		if stopping {
			return
		}
		if err == nil || time.Since(begin) > steady {
			delay = firstRestart
		}
		sup.log.Warn("process ended, starting it again", "process", p.name, "in", delay, "error", err)
		select {
		case <-time.After(delay/2 + rand.N(delay/2)):
		case <-ctx.Done():
			return
		}
		delay = min(2*delay, lastRestart)
	}
}

// spawn starts the process of p and returns how to wait for its end.
func (sup *supervisor) spawn(p *process) (wait func() error, err error) {
	cmd := exec.Command(sup.exe, p.args...) //nolint:noctx // it is told to stop in good order; a context would kill it
	sup.mu.Lock()
	cmd.Env = append(append(os.Environ(), sup.env[p.name]...), databaseVariable+"="+sup.books.Databases[p.service])
	sup.mu.Unlock()
	// Nothing is ever written to it: it ends with this process, and the child with it.
	guard, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	logs, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, errors.New("told to stop")
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.cmd = cmd
	p.starts++
	sup.note(p, cmd.Process.Pid)
	return func() error {
		sup.copyLines(logs)
		err := cmd.Wait()
		_ = guard.Close()
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		return err
	}, nil
}

// setEnv gives the next start of a process more environment.
func (sup *supervisor) setEnv(name string, env []string) {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	sup.env[name] = env
}

// copyLines passes a child's log on, a whole line at a time.
func (sup *supervisor) copyLines(r io.Reader) {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			_, _ = sup.logs.Write(line)
		}
		if err != nil {
			return
		}
	}
}

// note keeps the file that tells a person which process is which.
func (sup *supervisor) note(p *process, pid int) {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	pids := map[string]int{"supervisor": os.Getpid()}
	path := filepath.Join(sup.data, processesFile)
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &pids)
	}
	pids["supervisor"], pids[p.name] = os.Getpid(), pid
	data, err := json.MarshalIndent(pids, "", "  ")
	if err == nil {
		err = os.WriteFile(path+".new", append(data, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		sup.log.Warn("cannot note the process", "process", p.name, "error", err)
	}
}

// signal sends sig to the process, if there is one at this moment.
func (p *process) signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

func (p *process) awaitReady(ctx context.Context) error {
	last := errors.New("it did not answer yet")
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/ready", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/ready says %s", resp.Status)
		}
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(20 * time.Millisecond):
			last = err
		}
	}
}

// stop ends the processes, callers before those they call. One that does not stop in time is killed.
func (sup *supervisor) stop(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(sup.processes) {
		p.mu.Lock()
		p.stopping = true
		p.mu.Unlock()
		err := p.signal(syscall.SIGTERM)
		timer := time.NewTimer(sup.shutdownTimeout + sup.drainDelay + armature.DefaultShutdownTimeout)
		select {
		case <-p.ended:
		case <-ctx.Done():
		case <-timer.C:
			err = errors.Join(fmt.Errorf("shop: %s did not stop in time", p.name), p.signal(os.Kill))
			<-p.ended
		}
		timer.Stop()
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// restartBroker takes the broker away from all processes and gives it back on the same address.
func (sup *supervisor) restartBroker(ctx context.Context) error {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	if err := sup.server.Close(ctx); err != nil {
		return err
	}
	server, err := sup.embedded(ctx, sup.listen)
	if err != nil {
		return err
	}
	sup.server = server
	return nil
}

func (sup *supervisor) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, armature.DefaultShutdownTimeout)
	defer cancel()
	var errs []error
	if sup.server != nil {
		errs = append(errs, sup.server.Close(ctx))
	}
	if sup.outside != nil {
		errs = append(errs, sup.outside.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// describe tells a person what there is to do.
func (sup *supervisor) describe(out io.Writer, took time.Duration) {
	var names, admins []string
	for _, p := range sup.processes {
		names, admins = append(names, p.name), append(admins, p.admin)
	}
	edge := sup.processes[len(sup.processes)-1].addr
	printGuide(out, took, sup.data, edge, names, admins)
	fmt.Fprintf(out, "Each service is a process; kill -9 any of them. Their numbers are in %s\n", filepath.Join(sup.data, processesFile))
}
