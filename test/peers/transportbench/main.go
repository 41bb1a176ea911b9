// Transportbench measures what a request costs a server of packages httpx and grpcx,
// next to bare net/http, bare grpc-go and the peers, and fails when that has become
// more than promised.
//
//	go run ./transportbench                  # the table; exit status 1 when a bound is broken
//	go run ./transportbench -report-only     # the table, exit status 0
//	go run ./transportbench -run 'http: '    # only the servers that match, and what they are compared with
//
// Each server is a process of its own that stays up for the whole run; the callers are
// in this one. They call the servers in turns, each round in another order, so that
// whatever else the machine does falls on all of them alike. What counts is the CPU
// time of the server's process, user and system, garbage collection included, per
// request. The table shows medians over the rounds, and every bound is a ratio of two
// medians of the same run, in which the speed of the machine cancels out.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"time"
)

func main() {
	if name := os.Getenv(serveVariable); name != "" {
		if err := serve(name, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "transportbench: serve", name+":", err)
			os.Exit(2)
		}
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 1 for a broken bound, 2 for a run that cannot be.
func run(args []string, stdout, stderr io.Writer) int {
	hush()
	flags := flag.NewFlagSet("transportbench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		rounds     = flags.Int("rounds", 7, "interleaved `rounds`")
		slice      = flags.Duration("time", time.Second, "how `long` a server is called in a round")
		only       = flags.String("run", "", "measure the servers that match `regexp`")
		reportOnly = flags.Bool("report-only", false, "exit with 0 even when a bound is broken")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	pattern, err := regexp.Compile(*only)
	if err != nil || *rounds < 1 || *slice <= 0 || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "transportbench: bad arguments:", args, err)
		return 2
	}
	rows := chosen(candidates(), pattern)
	if len(rows) == 0 {
		fmt.Fprintf(stderr, "transportbench: no server matches %q\n", *only)
		return 2
	}
	fmt.Fprintf(stdout, "%s %s/%s, %d processors, medians of %d interleaved rounds of %v, CPU time of the server\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds, *slice)
	results, err := measure(rows, *rounds, *slice)
	if err != nil {
		fmt.Fprintln(stderr, "transportbench:", err)
		return 2
	}
	broken := report(stdout, results)
	switch {
	case broken == 0:
		fmt.Fprintln(stdout, "\nevery bound holds")
		return 0
	case *reportOnly:
		fmt.Fprintf(stdout, "\nbounds broken: %d (report only)\n", broken)
		return 0
	}
	fmt.Fprintf(stdout, "\nbounds broken: %d\n", broken)
	return 1
}

// chosen returns the rows that match and those they are compared with.
func chosen(all []row, pattern *regexp.Regexp) []row {
	wanted := map[string]bool{}
	for _, r := range all {
		if pattern.MatchString(r.name) {
			wanted[r.name] = true
			for _, b := range r.bounds {
				wanted[b.against] = true
			}
		}
	}
	var rows []row
	for _, r := range all {
		if wanted[r.name] {
			rows = append(rows, r)
		}
	}
	return rows
}
