package main

import (
	"bytes"
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `1. A note, and again with the tag it came with:
   GET /v2/note: 200, ETag "1"
   GET /v2/note: 304, ETag "1"
2. The old version of the API says that it is old:
   GET /v1/note: 200, ETag "1", Deprecation @1767225600
3. Two change it, the second without having seen the first:
   PUT /v2/note: 200, ETag "2"
   PUT /v2/note: 412
   PUT /v2/note: 422
4. Somebody follows it, until the server drains:
   id: 2
   data: {"text":"buy coffee","revision":2}
   retry: 1000
5. And it describes itself:
   OpenAPI 3.1, true
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
