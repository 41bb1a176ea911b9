package idempotency_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/armature-go/armature/transport/idempotency"
)

// What a call costs beside its store, which is memory here.
func BenchmarkOnce(b *testing.B) {
	store, err := idempotency.NewMemory(idempotency.MemoryConfig{})
	if err != nil {
		b.Fatal(err)
	}
	keys, err := idempotency.New(idempotency.Config{Store: store})
	if err != nil {
		b.Fatal(err)
	}
	answer := &receipt{Number: 1, Price: 2, At: time.Unix(0, 0).UTC()}
	place := idempotency.Once(keys, "place", func(context.Context, *order) (*receipt, error) { return answer, nil })
	request := &order{SKU: "blue", Count: 1}
	run := func(name string, key func(i int) string) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				ctx := b.Context()
				if key := key(i); key != "" {
					ctx = withKey(ctx, key)
				}
				if _, err := place(ctx, request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("no key", func(int) string { return "" })
	run("first", func(i int) string { return "k" + strconv.Itoa(i) })
	run("replay", func(int) string { return "same" })
}

func BenchmarkMemory(b *testing.B) {
	store, err := idempotency.NewMemory(idempotency.MemoryConfig{MaxEntries: 1000})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	ctx, record := b.Context(), []byte("record")
	for i := 0; b.Loop(); i++ { // a claim and its record, with eviction
		id := strconv.Itoa(i)
		if _, err := store.Claim(ctx, id, idempotency.Claim{Owner: "o", Lease: time.Minute}); err != nil {
			b.Fatal(err)
		}
		if err := store.Keep(ctx, id, "o", record, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
