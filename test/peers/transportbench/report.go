package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// report writes the table, one line per bound, and returns how many are broken.
func report(w io.Writer, results []result) (broken int) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "server\tµs/request\tallocs\tratio\tagainst\tbound\t")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%.2f\t%.0f\t", r.name, r.cpu/1e3, r.allocs)
		if len(r.bounds) == 0 {
			fmt.Fprintln(table, "\t\t\t")
		}
		for i, b := range r.bounds {
			if i > 0 {
				fmt.Fprint(table, "\t\t\t")
			}
			at := slices.IndexFunc(results, func(other result) bool { return other.name == b.against })
			ratio := r.cpu / results[at].cpu
			verdict := ""
			switch {
			case b.most == 0:
			case ratio <= b.most:
				verdict = fmt.Sprintf("≤ %.2f\tok", b.most)
			default:
				verdict = fmt.Sprintf("≤ %.2f\tFAIL", b.most)
				broken++
			}
			fmt.Fprintf(table, "%.3f\t%s\t%s\n", ratio, b.against, verdict)
		}
	}
	table.Flush()
	return broken
}
