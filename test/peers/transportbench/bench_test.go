package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be a server, as the program is.
func TestMain(m *testing.M) {
	if name := os.Getenv(serveVariable); name != "" {
		if err := serve(name, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	os.Exit(m.Run())
}

// Each server gives the order back, or the callers would refuse it.
func TestEveryServerAnswers(t *testing.T) {
	results, err := measure(candidates(), 1, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.cpu <= 0 || r.allocs < 1 {
			t.Errorf("%s: %v ns and %v allocations per request", r.name, r.cpu, r.allocs)
		}
	}
}

func TestEveryPromiseIsMeasured(t *testing.T) {
	const promises = 10
	all, bounds := candidates(), 0
	for _, r := range all {
		for _, b := range r.bounds {
			if !slices.ContainsFunc(all, func(other row) bool { return other.name == b.against }) {
				t.Errorf("%s: no row %q", r.name, b.against)
			}
			if b.most > 0 {
				bounds++
			}
		}
	}
	if bounds != promises {
		t.Errorf("%d bounds, want %d", bounds, promises)
	}
}

func TestChosenBringsWhatItIsComparedWith(t *testing.T) {
	all := []row{{name: "bare"}, {name: "peer"}, {name: "ours", bounds: []bound{{"bare", 1}}}}
	rows := chosen(all, regexp.MustCompile("^ours$"))
	if len(rows) != 2 || rows[0].name != "bare" || rows[1].name != "ours" {
		t.Errorf("chose %+v", rows)
	}
}

func TestReportJudges(t *testing.T) {
	reference := result{row: row{name: "bare"}, cpu: 100}
	for name, tt := range map[string]struct {
		bounds []bound
		cpu    float64
		broken int
	}{
		"within":      {[]bound{{"bare", 1.5}}, 150, 0},
		"too slow":    {[]bound{{"bare", 1.5}}, 151, 1},
		"twice":       {[]bound{{"bare", 1.5}, {"bare", 1.2}}, 151, 2},
		"stated only": {[]bound{{"bare", 0}}, 1000, 0},
		"nothing":     {nil, 1000, 0},
	} {
		var out bytes.Buffer
		broken := report(&out, []result{reference, {row: row{name: "ours", bounds: tt.bounds}, cpu: tt.cpu}})
		if broken != tt.broken || strings.Count(out.String(), "FAIL") != tt.broken {
			t.Errorf("%s: %d bounds broken, want %d:\n%s", name, broken, tt.broken, &out)
		}
	}
}

func TestBusyReportsAFailedCall(t *testing.T) {
	down := errors.New("down")
	n := 0
	load := busy([]func() error{func() error {
		if n++; n > 3 {
			return down
		}
		return nil
	}})
	if _, err := load(time.Minute); !errors.Is(err, down) {
		t.Errorf("load returned %v, want %v", err, down)
	}
	if n, err := busy([]func() error{func() error { return nil }})(time.Nanosecond); n < 1 || err != nil {
		t.Errorf("load returned %d, %v; want at least one call", n, err)
	}
}

func TestExitStatus(t *testing.T) {
	for args, want := range map[string]int{
		"-run absent": 2, "-rounds 0": 2, "-time 0s": 2, "-run [": 2, "stray": 2, "-unknown": 2, "-h": 0,
		"-run bare$ -rounds 1 -time 5ms": 0, "-run observed -rounds 1 -time 5ms -report-only": 0,
	} {
		var out bytes.Buffer
		if got := run(strings.Fields(args), &out, &out); got != want {
			t.Errorf("transportbench %s: status %d, want %d:\n%s", args, got, want, &out)
		}
	}
}
