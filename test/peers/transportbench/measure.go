package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// serveVariable names the server that a process of this program is to be.
const serveVariable = "TRANSPORTBENCH_SERVE"

// row is one server and what is promised of it.
type row struct {
	name   string
	start  func() (addr string, err error) // in the child
	call   caller
	bounds []bound
}

// bound is the most a request may cost, as a multiple of what it costs another row.
type bound struct {
	against string
	most    float64 // 0: stated only
}

// caller opens connections to addr and returns a function that keeps them busy for a
// while and says how many calls were answered.
type caller func(addr string) (load func(time.Duration) (int, error), err error)

// usage is what a server's process has used so far.
type usage struct {
	cpu     time.Duration
	mallocs uint64
}

type result struct {
	row
	cpu    float64 // nanoseconds per request
	allocs float64 // per request, of the whole process
}

// serve is the life of a child: its first line is its address; then it answers each
// line with what it has used.
func serve(name string, in io.Reader, out io.Writer) error {
	hush()
	all := candidates()
	i := slices.IndexFunc(all, func(r row) bool { return r.name == name })
	if i < 0 {
		return fmt.Errorf("there is no such server")
	}
	addr, err := all[i].start()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, addr)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		u := used()
		fmt.Fprintln(out, int64(u.cpu), u.mallocs)
	}
	return nil
}

func used() usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // RUSAGE_SELF and a valid pointer leave nothing to fail
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), m.Mallocs}
}

// child is a server in a process of its own.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func spawn(name string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), serveVariable+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if _, err := fmt.Fscanln(c.out, &c.addr); err != nil {
		c.stop()
		return nil, fmt.Errorf("it does not say where it listens: %w", err)
	}
	return c, nil
}

func (c *child) stop() {
	c.in.Close()
	_ = c.cmd.Process.Kill() // it has nothing to lose
	_ = c.cmd.Wait()
}

func (c *child) usage() (u usage, err error) {
	if _, err = fmt.Fprintln(c.in); err != nil {
		return u, err
	}
	var cpu int64
	_, err = fmt.Fscanln(c.out, &cpu, &u.mallocs)
	u.cpu = time.Duration(cpu)
	return u, err
}

// measure calls every server once per round, after one round that warms it up.
func measure(rows []row, rounds int, slice time.Duration) ([]result, error) {
	type sample struct {
		child       *child
		load        func(time.Duration) (int, error)
		cpu, allocs []float64
	}
	samples := make([]sample, len(rows))
	for i, r := range rows {
		c, err := spawn(r.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		defer c.stop()
		load, err := r.call(c.addr)
		if err == nil {
			_, err = load(slice)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		samples[i] = sample{child: c, load: load}
	}
	for round := range rounds {
		for i := range rows {
			if round%2 == 1 { // neighbours change sides, so that none always follows the same
				i = len(rows) - 1 - i
			}
			i = (i + round*len(rows)/rounds) % len(rows)
			s := &samples[i]
			cost, err := once(s.child, s.load, slice)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rows[i].name, err)
			}
			s.cpu, s.allocs = append(s.cpu, cost.cpu), append(s.allocs, cost.allocs)
		}
	}
	results := make([]result, len(rows))
	for i, s := range samples {
		results[i] = result{row: rows[i], cpu: median(s.cpu), allocs: median(s.allocs)}
	}
	return results, nil
}

func once(c *child, load func(time.Duration) (int, error), slice time.Duration) (r result, err error) {
	before, err := c.usage()
	if err != nil {
		return r, err
	}
	n, err := load(slice)
	if err != nil {
		return r, err
	}
	after, err := c.usage()
	if err != nil {
		return r, err
	}
	r.cpu = float64(after.cpu-before.cpu) / float64(n)
	r.allocs = float64(after.mallocs-before.mallocs) / float64(n)
	return r, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
