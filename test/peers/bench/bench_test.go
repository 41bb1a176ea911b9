package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A candidate that does not run the operation would win every comparison.
func TestEveryCandidateRunsTheOperation(t *testing.T) {
	ran := 0
	for _, r := range candidates(func(context.Context) error { ran++; return nil }) {
		if r.group == "rate limit, permit granted" {
			continue // asks for a permit and runs nothing
		}
		ran = 0
		const times = 50
		if err := loop(r, times); err != nil {
			t.Errorf("%s: %s: %v", r.group, r.name, err)
		}
		want := times
		if r.want != nil {
			want = 0 // turned away
		}
		if ran != want {
			t.Errorf("%s: %s: ran the operation %d times, want %d", r.group, r.name, ran, want)
		}
	}
}

// Every comparison must find what it is compared with, in its own group.
func TestEveryReferenceExists(t *testing.T) {
	const promises = 9
	bounds := 0
	rows := candidates(callee)
	for _, r := range rows {
		found := r.against == ""
		for _, other := range rows {
			found = found || other.group == r.group && other.name == r.against
		}
		if !found {
			t.Errorf("%s: %s: no row %q", r.group, r.name, r.against)
		}
		if r.bound > 0 {
			bounds++
			if r.against == "" {
				t.Errorf("%s: %s: a bound on nothing", r.group, r.name)
			}
		}
	}
	if bounds < promises {
		t.Errorf("%d bounds, want at least %d", bounds, promises)
	}
}

func TestReportJudges(t *testing.T) {
	reference := result{row: row{group: "g", name: "peer"}, serial: cost{cpu: 100}}
	tests := map[string]struct {
		of     result
		broken int
	}{
		"within":             {result{row: row{bound: 0.5}, serial: cost{cpu: 50}}, 0},
		"too slow":           {result{row: row{bound: 0.5}, serial: cost{cpu: 51}}, 1},
		"allocates":          {result{row: row{bound: 0.5}, serial: cost{cpu: 1, allocs: 1}}, 1},
		"as much as allowed": {result{row: row{bound: 0.5, allocs: 2}, serial: cost{cpu: 1, allocs: 2.05}}, 0},
		"allocations free":   {result{row: row{bound: 0.5, allocs: anyNumber}, serial: cost{cpu: 1, allocs: 9}}, 0},
		"stated only":        {result{row: row{}, serial: cost{cpu: 1000, allocs: 9}}, 0},
	}
	for name, tt := range tests {
		tt.of.group, tt.of.name, tt.of.against = "g", "ours", "peer"
		var out bytes.Buffer
		if got := report(&out, []result{reference, tt.of}); got != tt.broken || strings.Count(out.String(), "FAIL") != tt.broken {
			t.Errorf("%s: %d bounds broken, want %d:\n%s", name, got, tt.broken, &out)
		}
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{3: {9, 1, 3}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v, want %v", values, got, want)
		}
	}
}

func TestMeasureCountsAllocations(t *testing.T) {
	var kept atomic.Pointer[[64]byte]
	results, err := measure([]row{{name: "allocates", op: func() error { kept.Store(new([64]byte)); return nil }}}, 3, time.Millisecond)
	if err != nil || results[0].serial.allocs < 0.9 || results[0].serial.allocs > 1.5 || results[0].serial.bytes < 60 || results[0].serial.cpu <= 0 {
		t.Errorf("measured %+v, %v; want one allocation of 64 bytes", results, err)
	}
}

func TestMeasureRefusesAFailingCandidate(t *testing.T) {
	down := errors.New("down")
	if _, err := measure([]row{{name: "broken", op: func() error { return down }}}, 1, time.Millisecond); err == nil {
		t.Error("no error for a candidate whose operation fails")
	}
	if _, err := measure([]row{{name: "rejects", want: anyError, op: func() error { return nil }}}, 1, time.Millisecond); err == nil {
		t.Error("no error for a rejection that did not happen")
	}
}

func TestExitStatus(t *testing.T) {
	for args, want := range map[string]int{"-run nothing": 2, "-rounds 0": 2, "-time 0s": 2, "-run [": 2, "stray": 2, "-run floor -rounds 1 -time 1ms": 0} {
		var out bytes.Buffer
		if got := run(strings.Fields(args), &out, &out); got != want {
			t.Errorf("bench %s: status %d, want %d:\n%s", args, got, want, &out)
		}
	}
}

func TestBrokenBoundsFailTheRun(t *testing.T) {
	for _, tt := range []struct {
		broken     int
		reportOnly bool
		want       int
	}{{0, false, 0}, {2, false, 1}, {2, true, 0}} {
		if got := conclude(io.Discard, tt.broken, tt.reportOnly); got != tt.want {
			t.Errorf("%d bounds broken, report only %v: status %d, want %d", tt.broken, tt.reportOnly, got, tt.want)
		}
	}
}
