package audit

import (
	"fmt"
	"io"
	"strings"
)

// Report is what an audit found.
type Report struct{ Lines []Line }

// Line is one check.
type Line struct {
	Name string
	// Figures are what was compared.
	Figures string
	// Wrong says what does not hold, one sentence each; empty when the check holds.
	Wrong []string
}

// OK reports whether the check holds.
func (l Line) OK() bool { return len(l.Wrong) == 0 }

// Green reports whether every check holds.
func (r *Report) Green() bool {
	for _, l := range r.Lines {
		if !l.OK() {
			return false
		}
	}
	return len(r.Lines) > 0
}

// maxWrong keeps a broken shop's report readable.
const maxWrong = 5

// Print writes one line a check, with what is wrong below it, and the verdict as last line.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	for _, l := range r.Lines {
		mark := "ok  "
		if !l.OK() {
			mark = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %-34s %s\n", mark, l.Name, l.Figures)
		for i, wrong := range l.Wrong {
			if i == maxWrong {
				fmt.Fprintf(&b, "        and %d more\n", len(l.Wrong)-maxWrong)
				break
			}
			fmt.Fprintf(&b, "        %s\n", wrong)
		}
	}
	verdict := "red"
	if r.Green() {
		verdict = "green"
	}
	fmt.Fprintf(&b, "audit: %s\n", verdict)
	_, err := io.WriteString(w, b.String())
	return err
}
