package outside_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/armature-go/armature/examples/shop/outside"
	"github.com/armature-go/armature/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type request struct {
	Ref string `json:"ref"`
}

type receipt struct {
	ID string `json:"id"`
}

func ExamplePost() {
	company := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"ch_%s"}`, r.Header.Get("Idempotency-Key"))
	}))
	defer company.Close()
	client, err := outside.New(outside.Config{Name: "card processor", URL: company.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	charge, err := outside.Post[request, receipt](client, "/charges")
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := charge(outside.WithKey(context.Background(), "place-1"), request{Ref: "1"})
	fmt.Println(got.ID, err)
	// Output: ch_place-1 <nil>
}

// company answers with the statuses it is told, the last one again and again, and keeps what it was asked.
type company struct {
	mu       sync.Mutex
	statuses []int
	keys     []string
	bodies   []string
}

func (c *company) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var body request
	_ = json.NewDecoder(r.Body).Decode(&body)
	c.keys, c.bodies = append(c.keys, r.Header.Get("Idempotency-Key")), append(c.bodies, body.Ref)
	status := c.statuses[0]
	if len(c.statuses) > 1 {
		c.statuses = c.statuses[1:]
	}
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d,"reason":"TOLD"}`, status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, `{"id":"ch_1"}`)
}

func post(t *testing.T, c *company) transport.Func[request, receipt] {
	t.Helper()
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	client, err := outside.New(outside.Config{Name: "company", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	post, err := outside.Post[request, receipt](client, "/charges")
	if err != nil {
		t.Fatal(err)
	}
	return post
}

func TestPost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		statuses []int
		asked    int
		refused  int // the status of a definitive no
		fails    bool
	}{
		"an answer":                          {statuses: []int{201}, asked: 1},
		"a lost answer is asked for again":   {statuses: []int{500, 201}, asked: 2},
		"so is one of a company that is off": {statuses: []int{503, 503, 201}, asked: 3},
		"three times at most":                {statuses: []int{500}, asked: 3, fails: true},
		"a no is not argued with":            {statuses: []int{402, 201}, asked: 1, refused: 402, fails: true},
		"nor after a lost answer":            {statuses: []int{500, 422, 201}, asked: 2, refused: 422, fails: true},
		"being asked to slow down is no no":  {statuses: []int{429, 201}, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &company{statuses: test.statuses}
			got, err := post(t, c)(outside.WithKey(t.Context(), "key-1"), request{Ref: "1"})
			if (err != nil) != test.fails || (!test.fails && got.ID != "ch_1") {
				t.Errorf("Post = %+v, %v", got, err)
			}
			for _, status := range []int{402, 422} {
				if refused := outside.Refused(err, status); refused != (status == test.refused) {
					t.Errorf("Refused(%v, %d) = %t", err, status, refused)
				}
			}
			if len(c.keys) != test.asked {
				t.Errorf("asked %d times, want %d", len(c.keys), test.asked)
			}
			for i := range c.keys {
				if c.keys[i] != "key-1" || c.bodies[i] != "1" {
					t.Errorf("attempt %d came with key %q and ref %q", i+1, c.keys[i], c.bodies[i])
				}
			}
		})
	}
}

func TestPostWithoutAKeyAsksNobody(t *testing.T) {
	t.Parallel()
	c := &company{statuses: []int{201}}
	if _, err := post(t, c)(t.Context(), request{Ref: "1"}); err == nil || !strings.Contains(err.Error(), "WithKey") {
		t.Errorf("Post = %v, want an error that names WithKey", err)
	}
	if len(c.keys) != 0 {
		t.Error("the company was asked")
	}
}

func TestNewRefusesNoURL(t *testing.T) {
	t.Parallel()
	if _, err := outside.New(outside.Config{Name: "carrier"}); err == nil || !strings.Contains(err.Error(), "URL") {
		t.Errorf("New = %v, want an error that names URL", err)
	}
}
