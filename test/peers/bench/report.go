package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// report writes the table and returns how many bounds are broken.
func report(w io.Writer, results []result) (broken int) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "operation\tns\tns, two goroutines\tB\tallocs\tratio\tagainst\tbound\t")
	group := ""
	for _, r := range results {
		if r.group != group {
			group = r.group
			fmt.Fprintf(table, "%s\t\t\t\t\t\t\t\t\n", group)
		}
		fmt.Fprintf(table, "  %s\t%.1f\t%.1f\t%.0f\t%.1f\t", r.name, r.serial.cpu, r.parallel, r.serial.bytes, r.serial.allocs)
		reference, ok := find(results, group, r.against)
		if !ok {
			fmt.Fprintln(table, "\t\t\t")
			continue
		}
		ratio := r.serial.cpu / reference.serial.cpu
		fmt.Fprintf(table, "%.3f\t%s\t", ratio, r.against)
		if r.bound == 0 {
			fmt.Fprintln(table, "\t")
			continue
		}
		verdict := "ok"
		if !(ratio <= r.bound) || excess(r) {
			verdict = "FAIL"
			broken++
		}
		fmt.Fprintf(table, "≤ %.3g%s\t%s\n", r.bound, promised(r), verdict)
	}
	table.Flush()
	return broken
}

func promised(r result) string {
	if r.allocs == anyNumber {
		return ""
	}
	return fmt.Sprintf(", ≤ %.0f allocs", r.allocs)
}

// excess leaves room for the allocations of the runtime itself, which are counted
// too but are not whole ones per operation.
func excess(r result) bool { return r.allocs != anyNumber && r.serial.allocs > r.allocs+0.1 }

func find(results []result, group, name string) (result, bool) {
	for _, r := range results {
		if name != "" && r.group == group && r.name == name {
			return r, true
		}
	}
	return result{}, false
}
