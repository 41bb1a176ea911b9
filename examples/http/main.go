// Command http shows what a typed HTTP server does beside calling functions: it serves an API with a deprecated
// version, answers 304 and 412, streams events until it drains, and describes itself.
//
//	go run ./examples/http
//
// It starts a server on a free port, visits it, prints what it saw, and stops.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Note is what the API is about. Its revision is its entity tag.
type Note struct {
	Text     string `json:"text" doc:"what it says"`
	Revision int    `json:"revision"`
}

// ETag serves conditional requests.
func (n Note) ETag() string { return fmt.Sprintf(`"%d"`, n.Revision) }

// EventID lets a client of the stream go on where it left off.
func (n Note) EventID() string { return fmt.Sprint(n.Revision) }

type getNote struct{}

type putNote struct {
	Match string `header:"If-Match"`
	Text  string `json:"text"`
}

// Validate is asked before the function is called.
func (p *putNote) Validate() error {
	if p.Text == "" {
		return errors.New("a note says something")
	}
	return nil
}

type watchNote struct {
	After int `header:"Last-Event-ID"`
}

// notes holds one note.
type notes struct {
	mu      sync.Mutex
	note    Note
	changed chan struct{} // closed with the next change
}

func (n *notes) get(context.Context, getNote) (Note, error) {
	now, _ := n.look()
	return now, nil
}

func (n *notes) put(_ context.Context, req putNote) (Note, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := httpx.CheckMatch(req.Match, n.note.ETag()); err != nil {
		return Note{}, err
	}
	n.note = Note{Text: req.Text, Revision: n.note.Revision + 1}
	close(n.changed)
	n.changed = make(chan struct{})
	return n.note, nil
}

func (n *notes) watch(ctx context.Context, req watchNote) iter.Seq2[Note, error] {
	return func(yield func(Note, error) bool) {
		for seen := req.After; ; {
			now, changed := n.look()
			if now.Revision > seen {
				if seen = now.Revision; !yield(now, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (n *notes) look() (Note, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.note, n.changed
}

func run(ctx context.Context, out io.Writer) (err error) {
	s, err := httpx.NewServer(httpx.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	n := &notes{note: Note{Text: "buy tea", Revision: 1}, changed: make(chan struct{})}
	httpx.Handle(s, "GET /v2/note", n.get, httpx.Doc("Read the note"))
	httpx.Handle(s, "PUT /v2/note", n.put, httpx.Doc("Change the note"), httpx.Answers(transport.FailedPrecondition))
	httpx.Stream(s, "GET /v2/note/changes", n.watch, httpx.Doc("Follow the note"))
	old := s.Group("/v1", httpx.Deprecated(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), "https://example.com/v2"))
	httpx.Handle(old, "GET /note", n.get)
	s.MountOpenAPI("/docs", httpx.APIInfo{Title: "Notes", Version: "2"})

	if err := s.Listen(ctx); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	v := &visitor{ctx: ctx, out: out, base: "http://" + s.Addr()}
	err = v.visit(s.Drain)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, s.Shutdown(ctx), <-served)
}

// visitor is a client that prints what it sees.
type visitor struct {
	ctx  context.Context
	out  io.Writer
	base string
}

func (v *visitor) visit(drain func()) error {
	fmt.Fprintln(v.out, "1. A note, and again with the tag it came with:")
	v.ask("GET", "/v2/note", "")
	v.ask("GET", "/v2/note", "", "If-None-Match", `"1"`)
	fmt.Fprintln(v.out, "2. The old version of the API says that it is old:")
	v.ask("GET", "/v1/note", "")
	fmt.Fprintln(v.out, "3. Two change it, the second without having seen the first:")
	v.ask("PUT", "/v2/note", `{"text":"buy coffee"}`, "If-Match", `"1"`)
	v.ask("PUT", "/v2/note", `{"text":"buy cocoa"}`, "If-Match", `"1"`)
	v.ask("PUT", "/v2/note", `{"text":""}`)
	fmt.Fprintln(v.out, "4. Somebody follows it, until the server drains:")
	if err := v.follow(drain); err != nil {
		return err
	}
	fmt.Fprintln(v.out, "5. And it describes itself:")
	return v.describe()
}

func (v *visitor) send(method, path, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(v.ctx, method, v.base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return http.DefaultClient.Do(req)
}

func (v *visitor) ask(method, path, body string, header ...string) {
	resp, err := v.send(method, path, body, header...)
	if err != nil {
		fmt.Fprintf(v.out, "   %v\n", err)
		return
	}
	defer resp.Body.Close()
	line := fmt.Sprintf("   %s %s: %d", method, path, resp.StatusCode)
	for _, name := range []string{"ETag", "Deprecation"} {
		if value := resp.Header.Get(name); value != "" {
			line += fmt.Sprintf(", %s %s", name, value)
		}
	}
	fmt.Fprintln(v.out, line)
}

func (v *visitor) follow(drain func()) error {
	resp, err := v.send("GET", "/v2/note/changes", "", "Last-Event-ID", "1")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if lines.Text() == "" {
			continue
		}
		fmt.Fprintf(v.out, "   %s\n", lines.Text())
		if strings.HasPrefix(lines.Text(), "data:") {
			drain()
		}
	}
	return nil
}

func (v *visitor) describe() error {
	resp, err := v.send("GET", "/docs/openapi.json", "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fmt.Fprintf(v.out, "   OpenAPI 3.1, %t\n", strings.Contains(string(text), `"openapi":"3.1.0"`))
	return err
}
