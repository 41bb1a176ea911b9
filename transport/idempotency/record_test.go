package idempotency_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/idempotency"
)

// A record of whatever bytes is refused, or is an error that a server can send, and
// is the same after it was written and read again.
func FuzzDecodeRecord(f *testing.F) {
	for _, e := range []*transport.Error{
		transport.Errorf(transport.NotFound, "NO_ORDER", "no such order"),
		transport.Invalid(transport.Violation{Pointer: "/a", Detail: "b"}).WithStatus(413).WithRetryAfter(time.Second),
		{},
	} {
		record, err := idempotency.EncodeError(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record)
	}
	f.Add([]byte{1, '{', '}'})
	f.Add([]byte{2})
	f.Add([]byte{4})
	f.Fuzz(func(t *testing.T, record []byte) {
		again, e, err := idempotency.DecodeRecord(record)
		if err != nil || e == nil {
			return
		}
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		third, e2, err := idempotency.DecodeRecord(again)
		if err != nil {
			t.Fatalf("%x was read, and what it is written as is not: %x: %v", record, again, err)
		}
		if body2, _ := json.Marshal(e2); !bytes.Equal(body, body2) || !bytes.Equal(again, third) {
			t.Errorf("%s became %s", body, body2)
		}
	})
}

type base struct{ ID string }

type hidden struct{ n int }

type loop struct{ Next *loop }

func TestFingerprintTellsRequestsApart(t *testing.T) {
	t.Parallel()
	one, two := 1, 2
	text, err := structpb.NewStruct(map[string]any{"a": "b", "c": "d"})
	if err != nil {
		t.Fatal(err)
	}
	type embedding struct {
		base
		*order
	}
	seen := make(map[idempotency.Fingerprint]int)
	for i, request := range []any{
		nil, 1, int64(1), uint8(1), 1.0, true, false, "", "1", complex(1, 2), complex(2, 1),
		[]string{"a", "b"}, []string{"ab"}, []string{}, []byte("ab"), [2]byte{'a', 'c'}, [1]int{1},
		&one, &two, (*int)(nil), struct{}{},
		order{SKU: "a"}, order{SKU: "b"}, order{SKU: "a", Count: 1},
		embedding{base: base{"1"}}, embedding{base: base{"2"}}, embedding{base{"1"}, &order{SKU: "a"}},
		map[string]int{"a": 1, "b": 2}, map[string]int{"a": 2, "b": 1}, map[string]any{"a": nil}, map[base]string{{"1"}: "x"},
		time.Unix(1, 0), time.Unix(1, 1), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		*big.NewInt(1), big.NewInt(2), struct{ V *big.Int }{big.NewInt(3)}, struct{ V big.Int }{*big.NewInt(3)},
		&url.URL{Host: "a"}, url.URL{Host: "b"}, text, &structpb.Struct{},
	} {
		p, err := idempotency.FingerprintOf(request)
		if err != nil {
			t.Errorf("%d, %#v: %v", i, request, err)
		}
		if other, ok := seen[p]; ok {
			t.Errorf("requests %d and %d look alike", other, i)
		}
		seen[p] = i
	}
}

func TestFingerprintOfEqualRequests(t *testing.T) {
	t.Parallel()
	many := func() map[string]any {
		m := make(map[string]any)
		for i := range 100 {
			m[strings.Repeat("k", i)] = []any{i, map[int]bool{i: true, -1: false}}
		}
		return m
	}
	seven, seventh := 7, 7
	for name, pair := range map[string][2]any{
		"maps":      {many(), many()},
		"pointers":  {&seven, &seventh},
		"ignored":   {order{SKU: "a", Try: 1}, order{SKU: "a", Try: 2}},
		"times":     {time.Now().Round(0).UTC(), time.Time{}},
		"nil slice": {[]int(nil), []int{}},
	} {
		if first, ok := pair[0].(time.Time); ok {
			pair[1] = first.Add(0)
		}
		a, errA := idempotency.FingerprintOf(pair[0])
		b, errB := idempotency.FingerprintOf(pair[1])
		if a != b || errA != nil || errB != nil {
			t.Errorf("%s differ: %v %v", name, errA, errB)
		}
	}
}

// Refusing beats calling two different requests the same.
func TestFingerprintRefuses(t *testing.T) {
	t.Parallel()
	cycle := new(loop)
	cycle.Next = cycle
	for name, request := range map[string]any{
		"a function": struct{ F func() }{func() {}},
		"a channel":  make(chan int),
		"a stream":   struct{ R any }{strings.NewReader("body")},
		"all hidden": hidden{1},
		"a cycle":    cycle,
	} {
		if p, err := idempotency.FingerprintOf(request); err == nil {
			t.Errorf("%s: %x", name, p)
		}
	}
}
