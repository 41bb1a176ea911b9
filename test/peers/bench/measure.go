package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// row is one candidate and what is promised of it.
type row struct {
	group, name string
	op          func() error // one operation
	want        error        // what op returns, compared with ==, nil for success

	against string  // name of the row of the group that bound refers to
	bound   float64 // most CPU time as a multiple of against; 0: stated only
	allocs  float64 // most allocations per operation, if bound is set; anyNumber: no promise
}

const anyNumber = -1

// cost is what one operation takes.
type cost struct {
	cpu    float64 // nanoseconds
	allocs float64
	bytes  float64
}

type result struct {
	row
	serial   cost
	parallel float64 // nanoseconds of CPU of both goroutines together, per operation
}

// measure runs every row once per round.
func measure(rows []row, rounds int, slice time.Duration) ([]result, error) {
	type sample struct {
		n        int
		serial   []cost
		parallel []float64
	}
	samples := make([]sample, len(rows))
	for i, r := range rows {
		n, err := calibrate(r, slice)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", r.group, r.name, err)
		}
		samples[i].n = n
	}
	for round := range rounds {
		for i := range rows {
			i = (i + round*len(rows)/rounds) % len(rows)
			s := &samples[i]
			c, err := once(rows[i], s.n, 1)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", rows[i].group, rows[i].name, err)
			}
			s.serial = append(s.serial, c)
			if c, err = once(rows[i], s.n, 2); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", rows[i].group, rows[i].name, err)
			}
			s.parallel = append(s.parallel, c.cpu)
		}
	}
	results := make([]result, len(rows))
	for i, s := range samples {
		results[i] = result{row: rows[i], parallel: median(s.parallel), serial: cost{
			cpu:    median(each(s.serial, func(c cost) float64 { return c.cpu })),
			allocs: median(each(s.serial, func(c cost) float64 { return c.allocs })),
			bytes:  median(each(s.serial, func(c cost) float64 { return c.bytes })),
		}}
	}
	return results, nil
}

// calibrate returns how many operations take about slice. It also warms up.
func calibrate(r row, slice time.Duration) (int, error) {
	for n := 1; ; n *= 4 {
		c, err := once(r, n, 1)
		if err != nil {
			return 0, err
		}
		if took := time.Duration(c.cpu * float64(n)); took >= slice/8 || n >= 1<<30 {
			return max(2, int(float64(slice)/max(c.cpu, 0.1))), nil
		}
	}
}

// once runs n operations on as many goroutines as told.
func once(r row, n, goroutines int) (cost, error) {
	runtime.GC() // what the candidate before has left behind
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := cpu()
	var err error
	if goroutines == 1 {
		err = loop(r, n)
	} else {
		var wg sync.WaitGroup
		errs := make([]error, goroutines)
		for g := range goroutines {
			wg.Go(func() { errs[g] = loop(r, n/goroutines) })
		}
		wg.Wait()
		for _, e := range errs {
			if e != nil {
				err = e
			}
		}
	}
	took := cpu() - start
	runtime.ReadMemStats(&after)
	return cost{
		cpu:    float64(took) / float64(n),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, err
}

func loop(r row, n int) error {
	for range n {
		if err := r.op(); err != r.want && !(r.want == anyError && err != nil) {
			return fmt.Errorf("returned %v, want %v", err, r.want)
		}
	}
	return nil
}

// cpu returns the CPU time of this process so far.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // RUSAGE_SELF and a valid pointer leave nothing to fail
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func each(costs []cost, field func(cost) float64) []float64 {
	values := make([]float64, len(costs))
	for i, c := range costs {
		values[i] = field(c)
	}
	return values
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
