package idempotency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/idempotency"
)

type order struct {
	SKU   string `json:"-"` // as a path parameter is
	Count int
	Try   int `idempotency:"-"`
}

type receipt struct {
	Number int64               `json:"number"`
	Price  float64             `json:"price"`
	At     time.Time           `json:"at"`
	Lines  map[string][]string `json:"lines"`
}

func newKeys(t *testing.T, cfg idempotency.Config) *idempotency.Keys {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = memory(t, idempotency.MemoryConfig{})
	}
	k, err := idempotency.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func withKey(ctx context.Context, key string) context.Context {
	return flow.WithIdempotencyKey(ctx, key)
}

// counter counts its runs and answers their number.
func counter(runs *atomic.Int64) transport.Func[order, int64] {
	return func(context.Context, order) (int64, error) { return runs.Add(1), nil }
}

func TestDuplicatesWaitAndGetTheFirstResult(t *testing.T) {
	t.Parallel()
	for name, processes := range map[string]int{"one process": 1, "two processes": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var runs atomic.Int64
				store := memory(t, idempotency.MemoryConfig{})
				var places []transport.Func[order, int64]
				for range processes {
					places = append(places, idempotency.Once(newKeys(t, idempotency.Config{Store: store}), "place",
						func(context.Context, order) (int64, error) {
							time.Sleep(8 * time.Second)
							return runs.Add(1), nil
						}))
				}
				start := time.Now()
				var all sync.WaitGroup
				for i := range 50 {
					all.Go(func() {
						n, err := places[i%processes](withKey(t.Context(), "k"), order{SKU: "blue", Try: i})
						if n != 1 || err != nil {
							t.Errorf("call %d: %d, %v", i, n, err)
						}
					})
				}
				all.Wait()
				if took := time.Since(start); processes == 1 && took != 8*time.Second || took > 9*time.Second {
					t.Errorf("the duplicates had their result after %v", took)
				}
			})
		})
	}
}

func TestReplayIsByteIdentical(t *testing.T) {
	t.Parallel()
	runs := 0
	first := func(context.Context, order) (*receipt, error) {
		runs++
		return &receipt{Number: 1<<62 + 1, Price: 0.1, At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
			Lines: map[string][]string{"a": {"<&>\u2028"}, "b": nil, "c": {}}}, nil
	}
	place := idempotency.Once(newKeys(t, idempotency.Config{}), "place", first)
	var answers [3][]byte
	for i := range answers {
		r, err := place(withKey(t.Context(), "k"), order{})
		if err != nil {
			t.Fatal(err)
		}
		if answers[i], err = json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		r.Lines["a"][0] = "changed by the caller" // must not reach the next one
	}
	if runs != 1 || !bytes.Equal(answers[0], answers[1]) || !bytes.Equal(answers[0], answers[2]) {
		t.Errorf("after %d runs:\n%s\n%s\n%s", runs, answers[0], answers[1], answers[2])
	}
}

func TestProtobufReplay(t *testing.T) {
	t.Parallel()
	want, err := structpb.NewStruct(map[string]any{"a": 1, "b": []any{"x", nil, true}, "c": map[string]any{"d": "e"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ request, response *structpb.Struct }{
		"full": {want, want}, "empty": {&structpb.Struct{}, &structpb.Struct{}}, "nil": {},
	} {
		runs := 0
		f := idempotency.Once(newKeys(t, idempotency.Config{}), "place", func(context.Context, *structpb.Struct) (*structpb.Struct, error) {
			runs++
			return tt.response, nil
		})
		for range 2 {
			request, _ := proto.Clone(tt.request).(*structpb.Struct)
			got, err := f(withKey(t.Context(), "k"), request)
			if err != nil || !proto.Equal(got, tt.response) || (got == nil) != (tt.response == nil) || runs != 1 {
				t.Errorf("%s: %v, %v after %d runs", name, got, err, runs)
			}
		}
	}
}

func TestAnotherRequestWithTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		place := idempotency.Once(newKeys(t, idempotency.Config{}), "place", func(context.Context, order) (int64, error) {
			time.Sleep(time.Second)
			return runs.Add(1), nil
		})
		ctx := withKey(t.Context(), "k")
		go func() { _, _ = place(ctx, order{SKU: "blue"}) }()
		synctest.Wait()
		for _, when := range []string{"while it runs", "afterwards"} {
			start := time.Now()
			_, err := place(ctx, order{SKU: "red"})
			e := transport.AsError(err)
			if !errors.Is(err, idempotency.ErrReused) || e.StatusCode() != http.StatusUnprocessableEntity || e.Reason != "IDEMPOTENCY_KEY_REUSED" {
				t.Errorf("%s: %v", when, err)
			}
			if time.Since(start) != 0 {
				t.Errorf("%s: it waited %v", when, time.Since(start))
			}
			time.Sleep(time.Second)
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs", n)
		}
	})
}

func TestKeysOfTwoScopesNeverMeet(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	keys := newKeys(t, idempotency.Config{})
	place, cancel := idempotency.Once(keys, "place", counter(&runs)), idempotency.Once(keys, "cancel", counter(&runs))
	lace := idempotency.Once(keys, "lace", counter(&runs))
	as := func(subject string) context.Context {
		return withKey(flow.WithPrincipal(t.Context(), flow.Principal{Subject: subject}), "k")
	}
	for range 2 {
		for i, call := range []func() (int64, error){
			func() (int64, error) { return place(as("ann"), order{}) },
			func() (int64, error) { return place(as("bob"), order{Count: 1}) },
			func() (int64, error) { return cancel(as("bob"), order{Count: 2}) },
			func() (int64, error) { return place(as(""), order{}) },
			func() (int64, error) { return place(withKey(as("ann"), "kk"), order{}) },
			func() (int64, error) { return lace(as("annp"), order{}) }, // spelt alike
		} {
			if n, err := call(); n != int64(i+1) || err != nil {
				t.Errorf("call %d got the result of call %d, %v", i+1, n, err)
			}
		}
	}
}

func TestWithoutAKey(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	place := idempotency.Once(newKeys(t, idempotency.Config{}), "place", counter(&runs))
	for i := range 2 {
		if n, err := place(t.Context(), order{}); n != int64(i+1) || err != nil {
			t.Errorf("call %d: %d, %v", i, n, err)
		}
	}
	place = idempotency.Once(newKeys(t, idempotency.Config{Required: true}), "place", counter(&runs))
	_, err := place(t.Context(), order{})
	if e := transport.AsError(err); !errors.Is(err, idempotency.ErrMissing) || e.StatusCode() != 400 || !e.NotExecuted() || runs.Load() != 2 {
		t.Errorf("required: %v after %d runs", err, runs.Load())
	}
}

type temporary struct{ error }

func (temporary) Retryable() bool { return true }

func TestOnlyDefinitiveErrorsAreKept(t *testing.T) {
	t.Parallel()
	refused := transport.Errorf(transport.FailedPrecondition, "OUT_OF_STOCK", "none left").WithDomain("orders").
		WithResource("sku", "blue").WithViolations(transport.Violation{Pointer: "/sku", Detail: "gone"})
	unseen := transport.Errorf(transport.FailedPrecondition, "X", "x")
	unseen.Details.NotExecuted = true
	for name, tt := range map[string]struct {
		err  error
		kept bool
	}{
		"refused":          {refused.WithCause(errors.New("secret")), true},
		"wrapped":          {fmt.Errorf("place: %w", refused), true},
		"own status":       {refused.WithStatus(http.StatusUnprocessableEntity), true},
		"invalid":          {transport.Invalid(transport.Violation{Pointer: "/a"}), true},
		"not found":        {transport.Errorf(transport.NotFound, "", "no"), true},
		"exists":           {transport.Errorf(transport.AlreadyExists, "", "no"), true},
		"denied":           {transport.Errorf(transport.PermissionDenied, "", "no"), true},
		"out of range":     {transport.Errorf(transport.OutOfRange, "", "no"), true},
		"unauthenticated":  {transport.Errorf(transport.Unauthenticated, "", "no"), false},
		"unavailable":      {transport.Errorf(transport.Unavailable, "", "no"), false},
		"aborted":          {transport.Errorf(transport.Aborted, "", "no"), false},
		"exhausted":        {transport.Errorf(transport.ResourceExhausted, "", "no"), false},
		"internal":         {transport.Errorf(transport.Internal, "", "no"), false},
		"unknown":          {transport.Errorf(transport.Unknown, "", "no"), false},
		"data loss":        {transport.Errorf(transport.DataLoss, "", "no"), false},
		"plain":            {errors.New("no"), false},
		"deadline":         {context.DeadlineExceeded, false},
		"canceled":         {context.Canceled, false},
		"not executed":     {unseen, false},
		"says it may pass": {temporary{refused}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			store := memory(t, idempotency.MemoryConfig{})
			place := idempotency.Once(newKeys(t, idempotency.Config{Store: store}), "place", func(context.Context, order) (int, error) {
				runs++
				return 0, tt.err
			})
			_, first := place(withKey(t.Context(), "k"), order{})
			if first != tt.err {
				t.Fatalf("the first caller got %v", first)
			}
			_, second := place(withKey(t.Context(), "k"), order{})
			if !tt.kept {
				if runs != 2 || store.Len() != 0 {
					t.Errorf("%d runs, %d entries: the key was not freed", runs, store.Len())
				}
				return
			}
			if runs != 1 || strings.Contains(second.Error(), "secret") {
				t.Errorf("%v after %d runs", second, runs)
			}
			want, got := transport.AsError(tt.err), transport.AsError(second)
			wantBody, _ := json.Marshal(want)
			gotBody, _ := json.Marshal(got)
			if !errors.Is(second, want) || got.StatusCode() != want.StatusCode() || !bytes.Equal(gotBody, wantBody) ||
				!proto.Equal(got.GRPCStatus().Proto(), want.GRPCStatus().Proto()) {
				t.Errorf("replayed %s, want %s", gotBody, wantBody)
			}
		})
	}
}

func TestAPanicFreesTheKey(t *testing.T) {
	t.Parallel()
	store := memory(t, idempotency.MemoryConfig{})
	place := idempotency.Once(newKeys(t, idempotency.Config{Store: store}), "place", func(context.Context, order) (int, error) { panic("boom") })
	for range 2 {
		func() {
			defer func() {
				if p := recover(); p != "boom" {
					t.Errorf("recovered %v", p)
				}
			}()
			_, _ = place(withKey(t.Context(), "k"), order{})
		}()
	}
	if store.Len() != 0 {
		t.Error("the key is still claimed")
	}
}

// failed is a response that says so itself, in the way of go-kit.
type failed struct{ err error }

func (f failed) Failed() error { return f.err }

func TestFailedResponses(t *testing.T) {
	t.Parallel()
	notFound := transport.Errorf(transport.NotFound, "NO_ORDER", "no such order")
	for _, tt := range []struct {
		err  error
		runs int
	}{{notFound, 1}, {errors.New("database is down"), 2}} {
		runs := 0
		e := idempotency.Middleware[failed](newKeys(t, idempotency.Config{}), "get")(func(context.Context, any) (any, error) {
			runs++
			return failed{tt.err}, nil
		})
		for i := range 2 {
			response, err := e(withKey(t.Context(), "k"), order{})
			if f, ok := response.(failed); ok {
				err = f.err
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("call %d: %v, want %v", i, err, tt.err)
			}
		}
		if runs != tt.runs {
			t.Errorf("%v: %d runs, want %d", tt.err, runs, tt.runs)
		}
	}
}

func TestResultsThatCannotBeKept(t *testing.T) {
	t.Parallel()
	for name, response := range map[string]any{
		"huge":   []any{strings.Repeat("x", 1000)},
		"opaque": []any{func() {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			var lines strings.Builder
			f := idempotency.Once(newKeys(t, idempotency.Config{MaxBytes: 100, Logger: slog.New(slog.NewTextHandler(&lines, nil))}), "place",
				func(context.Context, order) (box, error) {
					runs++
					return box{response}, nil
				})
			if _, err := f(withKey(t.Context(), "k"), order{}); err != nil {
				t.Fatalf("the first caller: %v", err)
			}
			_, err := f(withKey(t.Context(), "k"), order{})
			if !errors.Is(err, idempotency.ErrUnreplayable) || transport.AsError(err).StatusCode() != 409 || runs != 1 {
				t.Errorf("its duplicate: %v after %d runs", err, runs)
			}
			if !strings.Contains(lines.String(), "not kept") {
				t.Errorf("nobody was told: %s", lines.String())
			}
		})
	}
}

type box struct{ V any }

// What somebody else, or an older release, has left in the store never runs anything.
func TestPoisonedRecords(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{
		"empty":             "",
		"unknown kind":      "\x09{}",
		"not JSON":          "\x01{",
		"another type":      "\x01{\"number\":\"text\"}",
		"nil with a tail":   "\x02x",
		"short error":       "\x03\x01",
		"error, no proto":   "\x03\x01\x90\xff\xff",
		"error that is OK":  "\x03\x01\x90",
		"error of status 0": "\x03\x00\x00\x08\x05",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := idempotency.Once(newKeys(t, idempotency.Config{Store: poisoned(record)}), "place", func(context.Context, order) (receipt, error) {
				t.Error("it ran")
				return receipt{}, nil
			})
			if r, err := f(withKey(t.Context(), "k"), order{}); !errors.Is(err, idempotency.ErrUnreplayable) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// poisoned answers each claim with one record, for whatever request.
type poisoned string

func (p poisoned) Claim(_ context.Context, _ string, c idempotency.Claim) (idempotency.Entry, error) {
	return idempotency.Entry{Fingerprint: c.Fingerprint, Record: []byte(p)}, nil
}
func (poisoned) Keep(context.Context, string, string, []byte, time.Duration) error { return nil }
func (poisoned) Release(context.Context, string, string) error                     { return nil }

func TestReplayIsMarked(t *testing.T) {
	t.Parallel()
	var marked []any
	keys := newKeys(t, idempotency.Config{OnReplay: func(_ context.Context, response any) {
		marked = append(marked, response)
		if r, ok := response.(*receipt); ok {
			r.Number = -1
		}
	}})
	good := idempotency.Once(keys, "good", func(context.Context, order) (*receipt, error) { return &receipt{Number: 7}, nil })
	bad := idempotency.Once(keys, "bad", func(context.Context, order) (*receipt, error) {
		return nil, transport.Errorf(transport.NotFound, "", "no")
	})
	for _, want := range []int64{7, -1, -1} {
		if r, err := good(withKey(t.Context(), "k"), order{}); err != nil || r.Number != want {
			t.Errorf("%+v, %v, want %d", r, err, want)
		}
	}
	for range 2 {
		_, _ = bad(withKey(t.Context(), "k"), order{})
	}
	if len(marked) != 3 || marked[2] != nil {
		t.Errorf("the hook saw %v", marked)
	}
}

func TestWaitIsBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		wait, deadline, want time.Duration
		err                  error
	}{
		"Wait":           {3 * time.Second, time.Minute, 3 * time.Second, idempotency.ErrInProgress},
		"the context":    {time.Minute, 2 * time.Second, 2 * time.Second, context.DeadlineExceeded},
		"not at all":     {-1, time.Minute, 0, idempotency.ErrInProgress},
		"by the default": {0, time.Minute, 10 * time.Second, idempotency.ErrInProgress},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				place := idempotency.Once(newKeys(t, idempotency.Config{Wait: tt.wait}), "place", func(context.Context, order) (int, error) {
					time.Sleep(time.Hour)
					return 1, nil
				})
				go func() { _, _ = place(withKey(t.Context(), "k"), order{}) }()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(withKey(t.Context(), "k"), tt.deadline)
				defer cancel()
				start := time.Now()
				_, err := place(ctx, order{})
				if !errors.Is(err, tt.err) || time.Since(start) != tt.want {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				if e := transport.AsError(err); e.Code != transport.DeadlineExceeded && (!e.Retryable() || e.StatusCode() != 409) {
					t.Errorf("%v", e)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// A duplicate takes over from a first call that ends without a result.
func TestADuplicateRunsWhenTheFirstIsCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		place := idempotency.Once(newKeys(t, idempotency.Config{}), "place", func(ctx context.Context, _ order) (int, error) {
			runs++
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(2 * time.Second):
				return runs, nil
			}
		})
		gone, leave := context.WithTimeout(withKey(t.Context(), "k"), time.Second)
		defer leave()
		go func() {
			if _, err := place(gone, order{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first: %v", err)
			}
		}()
		synctest.Wait()
		if n, err := place(withKey(t.Context(), "k"), order{}); n != 2 || err != nil {
			t.Errorf("the duplicate: %d, %v", n, err)
		}
	})
}

// One with a dead owner: it has claimed, and nothing comes of it.
func TestTheOwnerDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Memory: memory(t, idempotency.MemoryConfig{})}
		dead, alive := newKeys(t, idempotency.Config{Store: store, Timeout: time.Second}), newKeys(t, idempotency.Config{Store: store.Memory, Wait: time.Minute})
		block := make(chan struct{})
		go func() { // a process that loses the store is all that others see of one that died
			_, _ = idempotency.Once(dead, "place", func(context.Context, order) (int, error) { <-block; return 1, nil })(withKey(t.Context(), "k"), order{})
		}()
		synctest.Wait()
		store.fail(errors.New("gone"))
		start := time.Now()
		n, err := idempotency.Once(alive, "place", func(context.Context, order) (int, error) { return 2, nil })(withKey(t.Context(), "k"), order{})
		if took := time.Since(start); n != 2 || err != nil || took < 30*time.Second || took > 31*time.Second {
			t.Errorf("%d, %v after %v, want the heir's result when the lease of 30s is over", n, err, took)
		}
		close(block)
		synctest.Wait()
		time.Sleep(2 * time.Second)
	})
}

// As long as its process lives a call may take any time, even when its caller is gone.
func TestALongCallKeepsItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		store := memory(t, idempotency.MemoryConfig{})
		one, two := newKeys(t, idempotency.Config{Store: store}), newKeys(t, idempotency.Config{Store: store, Wait: 2 * time.Hour})
		slow := func(context.Context, order) (int64, error) {
			time.Sleep(time.Hour)
			return runs.Add(1), nil
		}
		ctx, cancel := context.WithCancel(withKey(t.Context(), "k"))
		go func() { _, _ = idempotency.Once(one, "place", slow)(ctx, order{}) }()
		synctest.Wait()
		cancel()
		if n, err := idempotency.Once(two, "place", slow)(withKey(t.Context(), "k"), order{}); n != 1 || err != nil {
			t.Errorf("%d, %v, want the result of the first", n, err)
		}
	})
}

// faulty is a store that can go away.
type faulty struct {
	*idempotency.Memory

	mu     sync.Mutex
	broken error
	keeps  int
}

func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

func (f *faulty) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *faulty) Claim(ctx context.Context, id string, c idempotency.Claim) (idempotency.Entry, error) {
	if err := f.err(); err != nil {
		return idempotency.Entry{}, err
	}
	return f.Memory.Claim(ctx, id, c)
}

func (f *faulty) Keep(ctx context.Context, id, owner string, record []byte, d time.Duration) error {
	f.mu.Lock()
	f.keeps++
	f.mu.Unlock()
	if err := f.err(); err != nil {
		return err
	}
	return f.Memory.Keep(ctx, id, owner, record, d)
}

func (f *faulty) Release(ctx context.Context, id, owner string) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Memory.Release(ctx, id, owner)
}

func TestACallThatLosesItsLeaseIsInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &faulty{Memory: memory(t, idempotency.MemoryConfig{})}
		place := idempotency.Once(newKeys(t, idempotency.Config{Store: store}), "place", func(ctx context.Context, _ order) (int, error) {
			store.fail(errors.New("no route"))
			<-ctx.Done()
			return 0, ctx.Err()
		})
		start := time.Now()
		_, err := place(withKey(t.Context(), "k"), order{})
		if took := time.Since(start); !errors.Is(err, idempotency.ErrInterrupted) || !transport.AsError(err).Retryable() || took != 30*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestNothingRunsWithoutItsStore(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	store := &faulty{broken: errors.New("dial tcp 10.0.0.1: refused")}
	_, err := idempotency.Once(newKeys(t, idempotency.Config{Store: store}), "place", counter(&runs))(withKey(t.Context(), "k"), order{})
	e := transport.AsError(err)
	if !errors.Is(err, idempotency.ErrUnavailable) || e.StatusCode() != 503 || !e.NotExecuted() || strings.Contains(e.Message, "10.0.0.1") || runs.Load() != 0 {
		t.Errorf("%v after %d runs", err, runs.Load())
	}
}

// mute is a store whose first claim is made and not answered.
type mute struct {
	*idempotency.Memory

	claims int
}

func (m *mute) Claim(ctx context.Context, id string, c idempotency.Claim) (idempotency.Entry, error) {
	e, err := m.Memory.Claim(ctx, id, c)
	if m.claims++; m.claims == 1 {
		return idempotency.Entry{}, errors.New("connection reset")
	}
	return e, err
}

func TestAClaimWhoseAnswerIsLostHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	place := idempotency.Once(newKeys(t, idempotency.Config{Store: &mute{Memory: memory(t, idempotency.MemoryConfig{})}, Wait: -1}), "place", counter(&runs))
	if _, err := place(withKey(t.Context(), "k"), order{}); !errors.Is(err, idempotency.ErrUnavailable) {
		t.Error(err)
	}
	if n, err := place(withKey(t.Context(), "k"), order{}); n != 1 || err != nil {
		t.Errorf("the next: %d, %v", n, err)
	}
}

// A store that comes back within Timeout loses nothing; one that does not costs the
// caller that time, and not the result.
func TestStoringIsTriedAgain(t *testing.T) {
	t.Parallel()
	for away, stored := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			store := &faulty{Memory: memory(t, idempotency.MemoryConfig{})}
			var lines strings.Builder
			var runs atomic.Int64
			place := idempotency.Once(newKeys(t, idempotency.Config{Store: store, Wait: time.Hour, Logger: slog.New(slog.NewTextHandler(&lines, nil))}), "place",
				func(context.Context, order) (int64, error) {
					if runs.Load() == 0 {
						store.fail(errors.New("no route"))
						time.AfterFunc(away, func() { store.fail(nil) })
					}
					return runs.Add(1), nil
				})
			start := time.Now()
			if n, err := place(withKey(t.Context(), "k"), order{}); n != 1 || err != nil || time.Since(start) > 5*time.Second {
				t.Errorf("away %v: %d, %v after %v", away, n, err, time.Since(start))
			}
			time.Sleep(time.Hour)
			want := int64(1)
			if !stored {
				want = 2
			}
			if n, err := place(withKey(t.Context(), "k"), order{}); n != want || err != nil {
				t.Errorf("away %v: its repetition: %d, %v", away, n, err)
			}
			if told := strings.Contains(lines.String(), "not stored"); told == stored {
				t.Errorf("away %v: log:\n%s", away, lines.String())
			}
		})
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		place := idempotency.Once(newKeys(t, idempotency.Config{}), "place", counter(&runs))
		for _, want := range []int64{1, 1, 2} {
			if n, err := place(withKey(t.Context(), "k"), order{}); n != want || err != nil {
				t.Errorf("%d, %v, want %d", n, err, want)
			}
			time.Sleep(12 * time.Hour)
		}
	})
}

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	store := memory(t, idempotency.MemoryConfig{})
	for want, cfg := range map[string]idempotency.Config{
		"Store":    {},
		"Lease":    {Store: store, Lease: time.Millisecond},
		"TTL":      {Store: store, TTL: time.Second},
		"Timeout":  {Store: store, Timeout: -1},
		"MaxBytes": {Store: store, MaxBytes: -1},
	} {
		if _, err := idempotency.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "idempotency: configure keys: "+want+" = ") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestMiddlewarePanicsOnMistakes(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, idempotency.Config{})
	for name, make := range map[string]func(){
		"no keys":      func() { idempotency.Middleware[int](nil, "place") },
		"no operation": func() { idempotency.Middleware[int](keys, "") },
		"interface":    func() { idempotency.Middleware[any](keys, "place") },
	} {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.HasPrefix(p, "idempotency: make middleware") {
					t.Errorf("%s: %s", name, p)
				}
			}()
			make()
		}()
	}
}

func TestFingerprintHook(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	place := idempotency.Once(newKeys(t, idempotency.Config{Fingerprint: func(_ context.Context, request any) ([]byte, error) {
		o, _ := request.(order)
		if o.SKU == "" {
			return nil, errors.New("no SKU")
		}
		return []byte(o.SKU), nil
	}}), "place", counter(&runs))
	ctx := withKey(t.Context(), "k")
	for _, o := range []order{{SKU: "a", Count: 1}, {SKU: "a", Count: 2}} {
		if n, err := place(ctx, o); n != 1 || err != nil {
			t.Errorf("%+v: %d, %v", o, n, err)
		}
	}
	if _, err := place(ctx, order{SKU: "b"}); !errors.Is(err, idempotency.ErrReused) {
		t.Error(err)
	}
	if _, err := place(ctx, order{}); transport.CodeOf(err) != transport.Internal || !transport.AsError(err).NotExecuted() {
		t.Error(err)
	}
}
