package httpx_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// get is what a client of the examples sees.
func get(s http.Handler, path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

func ExampleNewServer() {
	s := must(httpx.NewServer(httpx.Config{Addr: "127.0.0.1:0"}))
	httpx.Handle(s, "GET /ping", func(context.Context, struct{}) (string, error) { return "pong", nil })
	ctx := context.Background()
	if err := s.Listen(ctx); err != nil {
		panic(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()

	client := &http.Client{Transport: new(http.Transport)}
	answer := must(client.Get("http://" + s.Addr() + "/ping"))
	answer.Body.Close()
	fmt.Println(answer.Status)
	fmt.Println(s.Shutdown(ctx), <-served)
	// Output:
	// 200 OK
	// <nil> <nil>
}

type progress struct {
	Percent int `json:"percent"`
}

// EventID lets a client that connects again say where it left off.
func (p progress) EventID() string { return fmt.Sprint(p.Percent) }

func ExampleStream() {
	type watchJob struct {
		Job   string `path:"job"`
		After int    `header:"Last-Event-ID"`
	}
	s := must(httpx.NewServer(httpx.Config{}))
	httpx.Stream(s, "GET /jobs/{job}/progress", func(_ context.Context, w watchJob) iter.Seq2[progress, error] {
		return func(yield func(progress, error) bool) {
			for percent := w.After + 50; percent <= 100; percent += 50 {
				if !yield(progress{percent}, nil) {
					return // the client has left, or the server drains
				}
			}
		}
	}, httpx.Heartbeat(20*time.Second))

	srv := httptest.NewServer(s)
	defer srv.Close()
	r := must(http.NewRequest(http.MethodGet, srv.URL+"/jobs/7/progress", nil))
	r.Header.Set("Last-Event-ID", "50")
	answer := must(srv.Client().Do(r))
	defer answer.Body.Close()
	fmt.Println(answer.Header.Get("Content-Type"))
	var text strings.Builder
	must(io.Copy(&text, answer.Body))
	fmt.Print(text.String())
	// Output:
	// text/event-stream
	// id: 100
	// data: {"percent":100}
}

func ExampleServer_Group() {
	s := must(httpx.NewServer(httpx.Config{}))
	retired := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	v1 := s.Group("/v1", httpx.Sunset(retired, ""), httpx.Timeout(time.Second))
	v2 := s.Group("/v2")
	hello := func(context.Context, struct{}) (string, error) { return "hello", nil }
	httpx.Handle(v1, "GET /hello", hello)
	httpx.Handle(v2, "GET /hello", hello)

	for _, path := range []string{"/v1/hello", "/v2/hello"} {
		answer := get(s, path)
		fmt.Printf("%s %d %q\n", path, answer.StatusCode, answer.Header.Get("Sunset"))
	}
	// Output:
	// /v1/hello 200 "Fri, 01 Jan 2027 00:00:00 GMT"
	// /v2/hello 200 ""
}

func ExampleAutoETag() {
	s := must(httpx.NewServer(httpx.Config{}))
	httpx.Handle(s, "GET /prices", func(context.Context, struct{}) (map[string]int, error) {
		return map[string]int{"apple": 30}, nil
	}, httpx.AutoETag())

	first := get(s, "/prices")
	second := get(s, "/prices", "If-None-Match", first.Header.Get("ETag"))
	fmt.Println(first.StatusCode, second.StatusCode, second.ContentLength)
	// Output: 200 304 -1
}

func ExampleCheckMatch() {
	current := `"7"`
	fmt.Println(httpx.CheckMatch(`"7"`, current))
	fmt.Println(transport.CodeOf(httpx.CheckMatch(`"6"`, current)))
	// Output:
	// <nil>
	// FAILED_PRECONDITION
}

func ExampleServer_MountOpenAPI() {
	type greet struct {
		Name string `path:"name" doc:"who is greeted"`
	}
	s := must(httpx.NewServer(httpx.Config{}))
	httpx.Handle(s, "GET /hello/{name}", func(_ context.Context, g greet) (string, error) { return "hello " + g.Name, nil },
		httpx.Doc("Greet somebody"), httpx.Answers(transport.NotFound))
	s.MountOpenAPI("/docs", httpx.APIInfo{Title: "Greetings", Version: "1"})

	description := get(s, "/docs/openapi.json")
	var text strings.Builder
	must(io.Copy(&text, description.Body))
	fmt.Println(description.Header.Get("Content-Type"), strings.Contains(text.String(), "Greet somebody"))
	page := get(s, "/docs")
	fmt.Println(page.Header.Get("Content-Type"))
	// Output:
	// application/json true
	// text/html; charset=utf-8
}
