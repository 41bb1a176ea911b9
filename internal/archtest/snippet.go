package archtest

import "strings"

// Snippet is a Go program in a Markdown file.
type Snippet struct {
	Line int // of its first line
	Code string
}

// Snippets returns the blocks of a Markdown text that are fenced as
// "```go runnable": whole programs, which must compile.
func Snippets(markdown string) []Snippet {
	var out []Snippet
	var code strings.Builder
	start := 0
	for i, line := range strings.Split(markdown, "\n") {
		switch {
		case start == 0 && strings.TrimSpace(line) == "```go runnable":
			start = i + 2
		case start > 0 && strings.HasPrefix(line, "```"):
			out = append(out, Snippet{Line: start, Code: code.String()})
			code.Reset()
			start = 0
		case start > 0:
			code.WriteString(line + "\n")
		}
	}
	return out
}
