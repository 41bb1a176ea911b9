package flow_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/flow"
)

func full() context.Context {
	ctx := flow.WithCorrelationID(context.Background(), "corr")
	ctx = flow.WithCausationID(ctx, "cause")
	ctx = flow.WithIdempotencyKey(ctx, "came-in")
	ctx = flow.WithOutgoingIdempotencyKey(ctx, "goes-out")
	ctx = flow.WithSaga(ctx, "saga-1", 7)
	return flow.WithPrincipal(ctx, flow.Principal{Subject: "ann", Scopes: []string{"orders:read", "orders:write"}, Roles: []string{"clerk"}})
}

func carriers() map[string]func() flow.Carrier {
	return map[string]func() flow.Carrier{
		"http":  func() flow.Carrier { return flow.HTTPHeader{} },
		"grpc":  func() flow.Carrier { return flow.GRPCMetadata{} },
		"event": func() flow.Carrier { return flow.EventHeader{} },
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := carrier()
			flow.Inject(full(), c)
			got := flow.Extract(context.Background(), c)
			if flow.CorrelationID(got) != "corr" || flow.CausationID(got) != "cause" {
				t.Errorf("ids = %q, %q", flow.CorrelationID(got), flow.CausationID(got))
			}
			if flow.IdempotencyKey(got) != "goes-out" {
				t.Errorf("incoming key = %q, want the sender's outgoing one", flow.IdempotencyKey(got))
			}
			if k := flow.OutgoingIdempotencyKey(got); k != "" {
				t.Errorf("an incoming key was set to go out again: %q", k)
			}
			if id, epoch, ok := flow.Saga(got); id != "saga-1" || epoch != 7 || !ok {
				t.Errorf("saga = %q %d %t", id, epoch, ok)
			}
			p, ok := flow.PrincipalFrom(got)
			want := flow.Principal{Subject: "ann", Scopes: []string{"orders:read", "orders:write"}, Roles: []string{"clerk"}}
			if !ok || cmp.Diff(want, p) != "" {
				t.Errorf("principal: %s", cmp.Diff(want, p))
			}
		})
	}
}

func TestPublicIgnoresWhatStrangersSay(t *testing.T) {
	t.Parallel()
	for name, carrier := range carriers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := carrier()
			flow.Inject(full(), c)
			got := flow.ExtractPublic(context.Background(), c)
			if flow.CorrelationID(got) != "corr" || flow.IdempotencyKey(got) != "goes-out" {
				t.Errorf("public values lost: %q, %q", flow.CorrelationID(got), flow.IdempotencyKey(got))
			}
			if _, ok := flow.PrincipalFrom(got); ok {
				t.Error("a stranger's principal was believed")
			}
			if _, _, ok := flow.Saga(got); ok {
				t.Error("a stranger's saga was believed")
			}
			if flow.CausationID(got) != "" {
				t.Error("a stranger's causation id was believed")
			}
		})
	}
}

func TestExtractDropsUnfitValues(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"newline":   "a\nforged=1",
		"control":   "a\x00b",
		"non-ascii": "señor",
		"too long":  strings.Repeat("x", 257),
	}
	for name, value := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := flow.HTTPHeader{}
			for _, f := range flow.Fields() {
				c.Set(f, value)
			}
			ctx := flow.Extract(context.Background(), c)
			p, ok := flow.PrincipalFrom(ctx)
			_, _, saga := flow.Saga(ctx)
			if flow.CorrelationID(ctx) != "" || flow.CausationID(ctx) != "" || flow.IdempotencyKey(ctx) != "" || ok || saga {
				t.Errorf("kept an unfit value: %q %q %q %v %t", flow.CorrelationID(ctx), flow.CausationID(ctx), flow.IdempotencyKey(ctx), p, saga)
			}
		})
	}
}

func TestExtractReplacesWhatTheContextHeld(t *testing.T) {
	t.Parallel()
	got := flow.Extract(full(), flow.HTTPHeader{})
	if _, _, ok := flow.Saga(got); ok || flow.CorrelationID(got) != "" || flow.OutgoingIdempotencyKey(got) != "" {
		t.Error("values of another call survived the extraction")
	}
}

func TestFieldNames(t *testing.T) {
	t.Parallel()
	for _, f := range flow.Fields() {
		if http.CanonicalHeaderKey(f.HTTP()) != f.HTTP() {
			t.Errorf("%q is not in canonical form, so http.Header.Get would miss it", f.HTTP())
		}
		if strings.ToLower(f.GRPC()) != f.GRPC() {
			t.Errorf("%q: metadata keys are lower-case", f.GRPC())
		}
		if strings.Trim(f.Event(), "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(f.Event()) > 20 {
			t.Errorf("%q is no CloudEvents attribute name", f.Event())
		}
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := flow.NewID()
		if len(id) != 36 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%q is no UUIDv7", id)
		}
		if seen[id] {
			t.Fatalf("%q came twice", id)
		}
		seen[id] = true
	}
}

func FuzzExtract(f *testing.F) {
	f.Add("id", "saga", "1", "ann", "a b")
	f.Add("\r\nX: y", "", "-1", "\x7f", "")
	f.Fuzz(func(t *testing.T, id, saga, epoch, subject, scopes string) {
		c := flow.EventHeader{}
		c.Set(flow.Correlation, id)
		c.Set(flow.SagaID, saga)
		c.Set(flow.SagaEpoch, epoch)
		c.Set(flow.Subject, subject)
		c.Set(flow.Scopes, scopes)
		ctx := flow.Extract(context.Background(), c)

		again := flow.EventHeader{}
		flow.Inject(ctx, again)
		back := flow.Extract(context.Background(), again)
		if flow.CorrelationID(back) != flow.CorrelationID(ctx) {
			t.Errorf("correlation id changed on the second hop")
		}
		p, _ := flow.PrincipalFrom(ctx)
		q, _ := flow.PrincipalFrom(back)
		if p.Subject != q.Subject || !slices.Equal(p.Scopes, q.Scopes) {
			t.Errorf("principal changed on the second hop: %v, %v", p, q)
		}
		for _, v := range again {
			if strings.ContainsAny(v, "\r\n\x00") {
				t.Errorf("a control byte went out: %q", v)
			}
		}
	})
}
