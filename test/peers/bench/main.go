// Bench measures package resilience against its peers and fails when it has
// become slower than promised.
//
//	go run ./bench                      # the table; exit status 1 when a bound is broken
//	go run ./bench -report-only         # the table, exit status 0
//	go run ./bench -run '^breaker'      # only the groups that match
//
// All candidates run interleaved, round by round and each round in another order,
// so that whatever else the machine does falls on all of them alike. What counts is
// the CPU time of the process, user and system, garbage collection included; the
// table shows medians over the rounds. Every bound is a ratio of two medians of the
// same run, in which the speed of the machine cancels out. How busy it is does not
// quite: candidates that allocate suffer more, so the stricter verdict on those is
// that of a quiet machine.
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
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 1 for a broken bound, 2 for a run that cannot be.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		rounds     = flags.Int("rounds", 7, "interleaved `rounds`")
		slice      = flags.Duration("time", 100*time.Millisecond, "CPU `time` of a candidate in a round")
		only       = flags.String("run", "", "measure the groups that match `regexp`")
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
		fmt.Fprintln(stderr, "bench: bad arguments:", args, err)
		return 2
	}
	var rows []row
	for _, r := range candidates(callee) {
		if pattern.MatchString(r.group) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		fmt.Fprintf(stderr, "bench: no group matches %q\n", *only)
		return 2
	}
	fmt.Fprintf(stdout, "%s %s/%s, %d processors, medians of %d interleaved rounds of %v, CPU time\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), *rounds, *slice)
	results, err := measure(rows, *rounds, *slice)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	return conclude(stdout, report(stdout, results), *reportOnly)
}

// conclude names the verdict and returns the exit status.
func conclude(w io.Writer, broken int, reportOnly bool) int {
	switch {
	case broken == 0:
		fmt.Fprintln(w, "\nevery bound holds")
		return 0
	case reportOnly:
		fmt.Fprintf(w, "\nbounds broken: %d (report only)\n", broken)
		return 0
	default:
		fmt.Fprintf(w, "\nbounds broken: %d\n", broken)
		return 1
	}
}
