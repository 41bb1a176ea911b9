package messagingtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/messaging"
)

var errTest = errors.New("handler says no")

var tests = []test{
	{name: "every field of a message arrives", run: everyField},
	{name: "defaults are filled in and the caller's message is left alone", run: defaults},
	{name: "payloads arrive byte for byte", run: payloads},
	{name: "a thousand messages in one call arrive in order", run: manyInOneCall},
	{name: "each group gets each message", run: groups},
	{name: "subscriptions of one group share the messages", run: competing},
	{name: "messages published between Ensure and Subscribe arrive", run: ensureFirst},
	{name: "a new group starts with what is published after it", run: newGroup},
	{name: "names that not every broker accepts are refused", run: badNames},
	{name: "options out of range are refused", run: badOptions},
	{name: "a message with a wire header is refused", run: badHeader},
	{name: "a cancelled publish stores nothing and says so", run: cancelledPublish},
	{name: "publishing an ID again stores nothing", run: deduplicates, needs: func(c Config) bool { return c.Features.Deduplicates }},
	{name: "two messages with equal payload are two messages", run: equalPayload},
	{name: "handlers of different keys run at the same time", run: concurrency},
	{name: "one key is handled in order, retries included", run: orderPerKey},
	{name: "a key that waits for its retry does not hold up others", run: parkedKey},
	{name: "the order of a key holds between subscriptions", run: orderAcross, needs: func(c Config) bool { return c.Features.OrderAcrossSubscriptions }},
	{name: "a failing message is tried again and not lost", run: retry},
	{name: "delays grow and no failing message is tried hot", run: backoffGrows, virtual: true},
	{name: "RetryAfter sets the delay", run: retryAfter, virtual: true},
	{name: "a handler slower than the lease gets its message once", run: slowHandler, virtual: true},
	{name: "the last failure makes a dead letter that tells the story", run: deadLetter},
	{name: "Permanent makes a dead letter at once", run: permanent},
	{name: "Redrive brings dead letters back to their group alone", run: redrive},
	{name: "a panic is an error with a stack", run: panics},
	{name: "a handler that ends its goroutine blocks nothing", run: goexit},
	{name: "an error that was not executed does not count", run: notExecuted},
	{name: "Drop acknowledges", run: drop},
	{name: "Release gives the message back", run: release},
	{name: "Timeout cancels the handler", run: timeout},
	{name: "middleware wraps in order", run: middleware},
	{name: "what is held is bounded", run: bounded},
	{name: "a drain lets handlers finish and nothing comes again", run: drainFinishes},
	{name: "a drain gives back what was not started, in order", run: drainGivesBack},
	{name: "a drain cancels handlers at its deadline only", run: drainDeadline},
	{name: "draining one subscription leaves publishing and others alone", run: drainOne},
	{name: "Pause stops deliveries and Resume goes on", run: pause},
	{name: "the trace continues from publisher to handler", run: traces},
	{name: "a message with a trace of its own keeps it", run: ownTrace},
	{name: "flow values reach the handler", run: flowValues},
	{name: "Close drains, and ends everything", run: closing},
	{name: "typed events arrive and undecodable ones are dead letters", run: typed},
	{name: "messages and groups survive a restart", run: restart, needs: func(c Config) bool { return c.Restart != nil }},
}

func everyField(e *env) {
	sent := &messaging.Message{
		ID: flow.NewID(), Type: "order.placed", Source: "/shop/order", Subject: "order 1", Key: "kunde-ä%20\"7\"", ContentType: "text/plain; charset=utf-8",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC),
		Header: messaging.Header{
			"plain": "v", "with-dash": "a b", "Mixed_Case": "x", "unicode": "schön 日本", "lines": "a\r\nb: c", "percent": "100%41", "empty": "", "id": "not the id",
		},
		Data: []byte("hello"),
	}
	got := make(chan *messaging.Delivery, 1)
	e.subscribe("topic.one", "group.one", func(_ context.Context, d *messaging.Delivery) error { got <- d; return nil })
	e.publish("topic.one", sent)
	d := next(e, got, "the message")
	want := sent.Clone()
	m := d.Message.Clone()
	for _, name := range []string{"traceparent", "tracestate"} {
		delete(m.Header, name)
	}
	if !maps.Equal(m.Header, want.Header) {
		e.Errorf("headers are %q, want %q", m.Header, want.Header)
	}
	m.Header, want.Header = nil, nil
	if !reflect.DeepEqual(m, want) {
		e.Errorf("message is %+v, want %+v", m, want)
	}
	if d.Topic != "topic.one" || d.Group != "group.one" || d.Attempt != 1 || d.Redelivered {
		e.Errorf("delivery is %+v", d)
	}
}

func defaults(e *env) {
	got := make(chan *messaging.Message, 1)
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error { got <- d.Message; return nil })
	sent := &messaging.Message{Data: []byte("x")}
	before := time.Now()
	e.publish("topic", sent)
	m := next(e, got, "the message")
	if m.ID == "" || m.Type != "topic" || m.Source == "" || m.ContentType != "application/octet-stream" {
		e.Errorf("message is %+v", m)
	}
	if m.Time.Before(before.Add(-time.Second)) || m.Time.After(time.Now().Add(time.Second)) {
		e.Errorf("time is %s, want about %s", m.Time, before)
	}
	if !reflect.DeepEqual(sent, &messaging.Message{Data: []byte("x")}) {
		e.Errorf("the caller's message became %+v", sent)
	}
}

func payloads(e *env) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	sent := [][]byte{nil, {}, every, bytes.Repeat([]byte{0}, 3), bytes.Repeat([]byte("0123456789abcdef"), 32<<10)}
	got := newLog[[]byte]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error { got.add(d.Message.Data); return nil }, messaging.Concurrency(1))
	for _, data := range sent {
		e.publish("topic", &messaging.Message{Key: "k", Data: data})
	}
	for i, data := range got.wait(e, len(sent), "payloads") {
		if !bytes.Equal(data, sent[i]) {
			e.Errorf("payload %d has %d bytes, want %d equal ones", i, len(data), len(sent[i]))
		}
	}
}

func manyInOneCall(e *env) {
	const n = 1000
	var msgs []*messaging.Message
	var want []string
	for i := range n {
		msgs = append(msgs, keyed("k", "%d", i))
		want = append(want, fmt.Sprint(i))
	}
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	e.publish("topic", msgs...)
	if all := got.wait(e, n, "messages"); !slices.Equal(all, want) {
		e.Errorf("order is %v", all)
	}
}

func groups(e *env) {
	a, b := newLog[string](), newLog[string]()
	e.subscribe("topic", "a", collect(a))
	e.subscribe("topic", "b", collect(b))
	e.publish("topic", keyed("k", "1"), keyed("k", "2"))
	want := []string{"1", "2"}
	if all := a.wait(e, 2, "messages in group a"); !slices.Equal(all, want) {
		e.Errorf("group a got %v", all)
	}
	if all := b.wait(e, 2, "messages in group b"); !slices.Equal(all, want) {
		e.Errorf("group b got %v", all)
	}
}

func competing(e *env) {
	const n = 200
	got := newLog[string]()
	for range 3 {
		e.subscribe("topic", "group", collect(got))
	}
	for i := range n {
		e.publish("topic", text("%d", i))
	}
	got.wait(e, n, "messages")
	e.close()
	all := got.all()
	if len(all) != n {
		e.Errorf("%d deliveries of %d messages", len(all), n)
	}
	slices.Sort(all)
	if c := len(slices.Compact(all)); c != n {
		e.Errorf("%d of %d messages arrived", c, n)
	}
}

func ensureFirst(e *env) {
	e.ensure("topic", "group")
	e.ensure("topic", "group")
	e.publish("topic", keyed("k", "1"), keyed("k", "2"))
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	if all := got.wait(e, 2, "messages"); !slices.Equal(all, []string{"1", "2"}) {
		e.Errorf("got %v", all)
	}
}

func newGroup(e *env) {
	e.ensure("topic", "old")
	e.publish("topic", keyed("k", "before"))
	got := newLog[string]()
	e.subscribe("topic", "new", collect(got))
	e.publish("topic", keyed("k", "after"))
	if all := got.wait(e, 1, "message"); all[0] != "after" {
		e.Errorf("got %v", all)
	}
}

func badNames(e *env) {
	h := func(context.Context, *messaging.Delivery) error { return nil }
	for _, name := range []string{"", "a b", "a*", "a.>", ".a", "a.", "a..b", "ä", "a/b", "a=b", strings.Repeat("x", 201)} {
		if err := e.b.Publish(e.ctx(), name, text("x")); err == nil {
			e.Errorf("publish to %q succeeded", name)
		}
		if err := e.b.Ensure(e.ctx(), name, "g"); err == nil {
			e.Errorf("ensure of topic %q succeeded", name)
		}
		if _, err := e.b.Subscribe(e.ctx(), "t", name, h); err == nil {
			e.Errorf("subscribe as %q succeeded", name)
		}
	}
	if _, err := e.b.Subscribe(e.ctx(), "t", "g", nil); err == nil {
		e.Error("subscribe without a handler succeeded")
	}
}

func badOptions(e *env) {
	h := func(context.Context, *messaging.Delivery) error { return nil }
	for name, o := range map[string]messaging.SubscribeOption{
		"Concurrency": messaging.Concurrency(0),
		"MaxInFlight": messaging.MaxInFlight(7),
		"MaxAttempts": messaging.MaxAttempts(-1),
		"Backoff":     messaging.Backoff(2*time.Second, time.Second),
		"Timeout":     messaging.Timeout(-1),
	} {
		if _, err := e.b.Subscribe(e.ctx(), "t", "g", h, o); err == nil || !strings.Contains(err.Error(), name) {
			e.Errorf("%s: error is %v, want one that names the option", name, err)
		}
	}
}

func badHeader(e *env) {
	for _, name := range []string{"ce-id", "Nats-Msg-Id", "Content-Type", "", "a b", "a:b", "ä"} {
		err := e.b.Publish(e.ctx(), "topic", text("good"), &messaging.Message{Header: messaging.Header{name: "x"}})
		var failed *messaging.PublishError
		if !errors.As(err, &failed) || len(failed.Failed()) != 2 {
			e.Errorf("header %q: error is %v, want a PublishError for both messages", name, err)
		}
	}
}

func cancelledPublish(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := e.b.Publish(ctx, "topic", keyed("k", "lost"), keyed("k", "lost too"))
	var failed *messaging.PublishError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) || !slices.Equal(failed.Failed(), []int{0, 1}) {
		e.Errorf("error is %v", err)
	}
	e.publish("topic", keyed("k", "stored"))
	if all := got.wait(e, 1, "message"); all[0] != "stored" {
		e.Errorf("got %v", all)
	}
}

func deduplicates(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	m := keyed("k", "once")
	m.ID = flow.NewID()
	e.publish("topic", m)
	e.publish("topic", m)
	e.publish("topic", m, keyed("k", "last"))
	if all := got.wait(e, 2, "messages"); !slices.Equal(all, []string{"once", "last"}) {
		e.Errorf("got %v", all)
	}
}

func equalPayload(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	e.publish("topic", text("same"))
	e.publish("topic", text("same"))
	got.wait(e, 2, "messages")
}

func concurrency(e *env) {
	const n = 6
	running := make(chan struct{}, n)
	release := make(chan struct{})
	e.subscribe("topic", "group", func(context.Context, *messaging.Delivery) error {
		running <- struct{}{}
		<-release
		return nil
	}, messaging.Concurrency(n))
	for i := range n {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprint(i)
		}
		e.publish("topic", keyed(key, "x"))
	}
	for range n {
		next(e, running, "all handlers to run at once")
	}
	close(release)
}

func orderPerKey(e *env) {
	const keys, each = 5, 40
	got := make([]*log[string], keys)
	want := make([][]string, keys)
	byKey := map[string]*log[string]{}
	for k := range keys {
		got[k] = newLog[string]()
		byKey[fmt.Sprint("key-", k)] = got[k]
	}
	var busy [keys]atomic.Int32
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		var k int
		if _, err := fmt.Sscanf(d.Message.Key, "key-%d", &k); err != nil {
			e.Errorf("message with key %q: %v", d.Message.Key, err)
			return messaging.Permanent(err)
		}
		if busy[k].Add(1) != 1 {
			e.Errorf("two handlers of key %d at once", k)
		}
		defer busy[k].Add(-1)
		var n int
		if _, err := fmt.Sscanf(string(d.Message.Data), "%d", &n); err != nil {
			e.Errorf("message %q of key %d: %v", d.Message.Data, k, err)
			return messaging.Permanent(err)
		}
		if d.Attempt <= n%3 { // a third of them fails twice, a third once
			return errTest
		}
		got[k].add(string(d.Message.Data))
		return nil
	}, messaging.Concurrency(3), messaging.MaxInFlight(32))
	for n := range each {
		for k := range keys {
			e.publish("topic", keyed(fmt.Sprint("key-", k), "%d", n))
			want[k] = append(want[k], fmt.Sprint(n))
		}
	}
	for k := range keys {
		if all := got[k].wait(e, each, "messages"); !slices.Equal(all, want[k]) {
			e.Errorf("key %d was handled in the order %v", k, all)
		}
	}
}

func parkedKey(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if d.Message.Key == "bad" && d.Attempt == 1 {
			got.add("bad failed")
			return messaging.RetryAfter(patience/4, errTest)
		}
		got.add(string(d.Message.Data))
		return nil
	}, messaging.Concurrency(1))
	e.publish("topic", keyed("bad", "bad 1"), keyed("bad", "bad 2"), keyed("good", "good"), text("keyless"))
	if all := got.wait(e, 3, "messages"); !slices.Equal(all, []string{"bad failed", "good", "keyless"}) {
		e.Errorf("handled %v", all)
	}
}

func orderAcross(e *env) {
	const n = 60
	got := newLog[string]()
	h := func(_ context.Context, d *messaging.Delivery) error {
		if d.Attempt == 1 && len(d.Message.Data)%2 == 0 {
			return errTest
		}
		got.add(string(d.Message.Data))
		return nil
	}
	first := e.subscribe("topic", "group", h)
	e.subscribe("topic", "group", h)
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		e.publish("topic", keyed("k", "%d", i))
		if i == n/2 {
			e.drain(first)
		}
	}
	if all := got.wait(e, n, "messages"); !slices.Equal(all, want) {
		e.Errorf("handled in the order %v", all)
	}
}

func retry(e *env) {
	got := newLog[int]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got.add(d.Attempt)
		if d.Redelivered != (d.Attempt > 1) {
			e.Errorf("attempt %d has Redelivered %t", d.Attempt, d.Redelivered)
		}
		if d.Attempt < 4 {
			return errTest
		}
		return nil
	})
	e.publish("topic", text("x"))
	if all := got.wait(e, 4, "attempts"); !slices.Equal(all, []int{1, 2, 3, 4}) {
		e.Errorf("attempts are %v", all)
	}
	e.close()
	if all := got.all(); len(all) != 4 {
		e.Errorf("attempts are %v after success", all)
	}
}

func backoffGrows(e *env) {
	times := newLog[time.Time]()
	e.subscribe("topic", "group", func(context.Context, *messaging.Delivery) error {
		times.add(time.Now())
		return errTest
	}, messaging.Backoff(time.Second, 8*time.Second), messaging.MaxAttempts(7))
	e.publish("topic", text("x"))
	all := times.wait(e, 7, "attempts")
	for i, seconds := range []int{1, 2, 4, 8, 8, 8} {
		longest := time.Duration(seconds) * time.Second
		if gap := all[i+1].Sub(all[i]); gap < longest/2 || gap > longest {
			e.Errorf("delay %d is %s, want %s to %s", i+1, gap, longest/2, longest)
		}
	}
}

func retryAfter(e *env) {
	times := newLog[time.Time]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		times.add(time.Now())
		if d.Attempt == 1 {
			return fmt.Errorf("wrapped: %w", messaging.RetryAfter(17*time.Second, errTest))
		}
		return nil
	})
	e.publish("topic", text("x"))
	if all := times.wait(e, 2, "attempts"); all[1].Sub(all[0]) != 17*time.Second {
		e.Errorf("delay is %s", all[1].Sub(all[0]))
	}
}

func slowHandler(e *env) {
	got := newLog[string]()
	s := e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got.add(string(d.Message.Data))
		time.Sleep(2 * time.Minute)
		return nil
	}, messaging.Concurrency(1))
	e.publish("topic", keyed("k", "1"), keyed("k", "2"), keyed("other", "3"))
	time.Sleep(7 * time.Minute)
	synctest.Wait()
	if all := got.all(); len(all) != 3 {
		e.Errorf("deliveries are %v", all)
	}
	if st := s.Stats(); st.Acked != 3 || st.InFlight != 0 {
		e.Errorf("stats are %+v", st)
	}
}

// deadOf waits for one dead letter of a group.
func deadOf(e *env, topic, group string) *messaging.Message {
	e.Helper()
	got := make(chan *messaging.Message, 100)
	s := e.subscribe(messaging.DeadLetterTopic(topic, group), "inspect", func(_ context.Context, d *messaging.Delivery) error {
		got <- d.Message
		return nil
	})
	m := next(e, got, "the dead letter")
	e.drain(s)
	return m
}

func deadLetter(e *env) {
	var calls atomic.Int32
	s := e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if string(d.Message.Data) == "good" {
			return nil
		}
		return fmt.Errorf("failure %d: %w", calls.Add(1), errTest)
	}, messaging.MaxAttempts(3))
	bystander := newLog[string]()
	e.subscribe("topic", "other", collect(bystander))
	sent := keyed("k", "bad")
	sent.ID, sent.Header = flow.NewID(), messaging.Header{"own": "kept"}
	e.publish("topic", sent, keyed("k", "good"))
	m := deadOf(e, "topic", "group")
	if m.ID != sent.ID || m.Key != "k" || string(m.Data) != "bad" || m.Type != "test.text" || m.Header["own"] != "kept" {
		e.Errorf("dead letter is %+v", m)
	}
	h := m.Header
	if h[messaging.HeaderDeadTopic] != "topic" || h[messaging.HeaderDeadGroup] != "group" || h[messaging.HeaderDeadAttempts] != "3" {
		e.Errorf("headers are %v", h)
	}
	fs, err := m.Failures()
	if err != nil || len(fs) != 3 || !strings.HasPrefix(fs[0].Error, "failure 1: ") || fs[2].Attempt != 3 || fs[2].Time.Before(fs[0].Time) {
		e.Errorf("failures are %v, %v", fs, err)
	}
	bystander.wait(e, 2, "messages in the other group")
	e.drain(s)
	if st := s.Stats(); calls.Load() != 3 || st.DeadLettered != 1 || st.Retried != 2 || st.Acked != 1 {
		e.Errorf("%d calls, stats %+v", calls.Load(), st)
	}
}

func permanent(e *env) {
	var calls atomic.Int32
	e.subscribe("topic", "group", func(context.Context, *messaging.Delivery) error {
		calls.Add(1)
		return fmt.Errorf("wrapped: %w", messaging.Permanent(errTest))
	})
	e.publish("topic", text("x"))
	m := deadOf(e, "topic", "group")
	if fs, err := m.Failures(); err != nil || len(fs) != 1 || calls.Load() != 1 {
		e.Errorf("failures are %v, %v after %d calls", fs, err, calls.Load())
	}
}

func redrive(e *env) {
	var healed atomic.Bool
	got := newLog[string]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if !healed.Load() {
			return messaging.Permanent(errTest)
		}
		for name := range d.Message.Header {
			if strings.HasPrefix(name, "dead") {
				e.Errorf("redriven message has header %q", name)
			}
		}
		got.add(d.Message.ID + " " + string(d.Message.Data))
		return nil
	})
	other := newLog[string]()
	e.subscribe("topic", "other", collect(other))
	var want []string
	for i := range 3 {
		m := keyed("k", "%d", i)
		m.ID = fmt.Sprint("id-", i)
		e.publish("topic", m)
		want = append(want, fmt.Sprintf("id-%d %d", i, i))
	}
	other.wait(e, 3, "messages in the other group")
	dead := newLog[string]()
	e.subscribe(messaging.DeadLetterTopic("topic", "group"), "count", collect(dead))
	dead.wait(e, 3, "dead letters")
	healed.Store(true)
	for i, limit := range []int{2, 0, 0} {
		n, err := e.b.Redrive(e.ctx(), "topic", "group", limit)
		if wantN := []int{2, 1, 0}[i]; err != nil || n != wantN {
			e.Errorf("redrive %d: %d messages, %v, want %d", i, n, err, wantN)
		}
	}
	if all := got.wait(e, 3, "redriven messages"); !slices.Equal(all, want) {
		e.Errorf("redriven were %v, want %v", all, want)
	}
	e.publish("topic", keyed("k", "last"))
	if all := other.wait(e, 4, "messages in the other group"); !slices.Equal(all, []string{"0", "1", "2", "last"}) {
		e.Errorf("the other group got %v", all)
	}
}

func panics(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if string(d.Message.Data) == "bad" {
			panic("out of cheese")
		}
		got.add(string(d.Message.Data))
		return nil
	}, messaging.MaxAttempts(2), messaging.Concurrency(1))
	e.publish("topic", text("bad"), text("good"))
	got.wait(e, 1, "message")
	m := deadOf(e, "topic", "group")
	fs, err := m.Failures()
	if err != nil || len(fs) != 2 || !strings.Contains(fs[0].Error, "out of cheese") || !strings.Contains(m.Header[messaging.HeaderDeadStack], "messagingtest.panics") {
		e.Errorf("failures are %v, %v, stack %q", fs, err, m.Header[messaging.HeaderDeadStack])
	}
}

func goexit(e *env) {
	got := newLog[string]()
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if d.Attempt == 1 {
			runtime.Goexit()
		}
		got.add(string(d.Message.Data))
		return nil
	}, messaging.Concurrency(1))
	e.publish("topic", keyed("k", "1"), keyed("k", "2"))
	if all := got.wait(e, 2, "messages"); !slices.Equal(all, []string{"1", "2"}) {
		e.Errorf("handled %v", all)
	}
}

type rejected struct{}

func (rejected) Error() string     { return "breaker open" }
func (rejected) NotExecuted() bool { return true }

func notExecuted(e *env) {
	var calls atomic.Int32
	done := make(chan int, 1)
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if calls.Add(1) <= 5 {
			return fmt.Errorf("charge: %w", rejected{})
		}
		done <- d.Attempt
		return nil
	}, messaging.MaxAttempts(2))
	e.publish("topic", text("x"))
	if attempt := next(e, done, "success"); attempt != 1 {
		e.Errorf("attempt is %d, want 1", attempt)
	}
}

func drop(e *env) {
	got := newLog[string]()
	s := e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got.add(string(d.Message.Data))
		return messaging.Drop("not for us")
	})
	e.publish("topic", keyed("k", "1"), keyed("k", "2"))
	got.wait(e, 2, "messages")
	e.drain(s)
	if st := s.Stats(); st.Dropped != 2 || st.Acked != 0 || len(got.all()) != 2 {
		e.Errorf("stats are %+v, handled %v", st, got.all())
	}
}

func release(e *env) {
	got := newLog[int]()
	s := e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got.add(d.Attempt)
		if len(got.all()) <= 3 {
			return messaging.Release
		}
		return nil
	})
	e.publish("topic", text("x"))
	all := got.wait(e, 4, "deliveries")
	if e.cfg.Features.UncountedRelease && !slices.Equal(all, []int{1, 1, 1, 1}) {
		e.Errorf("attempts are %v, want ones", all)
	}
	e.drain(s)
	if st := s.Stats(); st.Released != 3 || st.Acked != 1 || st.Retried != 0 {
		e.Errorf("stats are %+v", st)
	}
}

func timeout(e *env) {
	got := make(chan error, 1)
	e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		if d.Attempt == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		got <- ctx.Err()
		return nil
	}, messaging.Timeout(50*time.Millisecond))
	e.publish("topic", text("x"))
	if err := next(e, got, "the second attempt"); err != nil {
		e.Errorf("second attempt started with %v", err)
	}
}

func middleware(e *env) {
	got := newLog[string]()
	wrap := func(name string) messaging.Middleware {
		return func(h messaging.Handler) messaging.Handler {
			return func(ctx context.Context, d *messaging.Delivery) error {
				got.add(name)
				return h(ctx, d)
			}
		}
	}
	e.subscribe("topic", "group", collect(got), messaging.Use(wrap("outer"), wrap("inner")))
	e.publish("topic", text("handler"))
	if all := got.wait(e, 3, "calls"); !slices.Equal(all, []string{"outer", "inner", "handler"}) {
		e.Errorf("calls are %v", all)
	}
}

func bounded(e *env) {
	const limit = 16
	e.ensure("topic", "group")
	var msgs []*messaging.Message
	for i := range 10 * limit {
		msgs = append(msgs, text("%d", i))
	}
	e.publish("topic", msgs...)
	got := newLog[int]()
	var s atomic.Pointer[messaging.Subscription]
	ready := make(chan struct{})
	s.Store(e.subscribe("topic", "group", func(context.Context, *messaging.Delivery) error {
		<-ready
		got.add(s.Load().Stats().InFlight)
		return nil
	}, messaging.Concurrency(4), messaging.MaxInFlight(limit)))
	close(ready)
	for _, n := range got.wait(e, 10*limit, "messages") {
		if n > limit {
			e.Fatalf("%d messages held, want at most %d", n, limit)
		}
	}
}

func drainFinishes(e *env) {
	started, finish := make(chan struct{}), make(chan struct{})
	var cancelled atomic.Bool
	s := e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		close(started)
		<-finish
		cancelled.Store(ctx.Err() != nil)
		return e.b.Publish(ctx, "follow-up", text("made while draining"))
	})
	got := newLog[string]()
	e.subscribe("follow-up", "group", collect(got))
	e.publish("topic", keyed("k", "x"))
	next(e, started, "the handler to start")
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(e.ctx()) }()
	second := newLog[string]()
	e.subscribe("topic", "group", collect(second))
	close(finish)
	if err := next(e, drained, "the drain"); err != nil {
		e.Errorf("drain: %v", err)
	}
	next(e, s.Done(), "Done")
	if cancelled.Load() {
		e.Error("the handler was cancelled")
	}
	got.wait(e, 1, "message published by the handler")
	e.publish("topic", keyed("k", "later"))
	if all := second.wait(e, 1, "message"); all[0] != "later" {
		e.Errorf("handled again: %v", all)
	}
	if err := s.Drain(e.ctx()); err != nil || s.Err() != nil {
		e.Errorf("second drain: %v, Err %v", err, s.Err())
	}
}

func drainGivesBack(e *env) {
	started, finish := make(chan struct{}), make(chan struct{})
	s := e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		if string(d.Message.Data) == "parked" {
			return messaging.RetryAfter(patience, errTest)
		}
		close(started)
		<-finish
		return errTest
	}, messaging.Concurrency(1))
	e.publish("topic", keyed("p", "parked"), keyed("p", "behind"), keyed("k", "0"), keyed("k", "1"), keyed("k", "2"), keyed("k", "3"))
	next(e, started, "the handler to start")
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(e.ctx()) }()
	close(finish)
	if err := next(e, drained, "the drain"); err != nil {
		e.Errorf("drain: %v", err)
	}
	byKey := map[string]*log[string]{"k": newLog[string](), "p": newLog[string]()}
	e.subscribe("topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		byKey[d.Message.Key].add(string(d.Message.Data))
		return nil
	})
	if all := byKey["k"].wait(e, 4, "messages"); !slices.Equal(all, []string{"0", "1", "2", "3"}) {
		e.Errorf("key k came back as %v", all)
	}
	if all := byKey["p"].wait(e, 2, "messages"); !slices.Equal(all, []string{"parked", "behind"}) {
		e.Errorf("key p came back as %v", all)
	}
}

func drainDeadline(e *env) {
	started := make(chan struct{})
	s := e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	})
	e.publish("topic", text("x"))
	next(e, started, "the handler to start")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := s.Drain(ctx); err != nil { // the handler obeyed: nothing is left undone
		e.Errorf("drain: %v", err)
	}
	if time.Since(begin) < 50*time.Millisecond {
		e.Errorf("the handler was cancelled after %s", time.Since(begin))
	}
	got := newLog[string]()
	e.subscribe("topic", "group", collect(got))
	got.wait(e, 1, "message that was cut short")
}

func drainOne(e *env) {
	a, b := newLog[string](), newLog[string]()
	first := e.subscribe("topic", "a", collect(a))
	e.subscribe("topic", "b", collect(b))
	e.publish("topic", keyed("k", "1"))
	a.wait(e, 1, "message")
	e.drain(first)
	e.publish("topic", keyed("k", "2"))
	b.wait(e, 2, "messages")
	if len(a.all()) != 1 {
		e.Errorf("a drained subscription handled %v", a.all())
	}
	e.subscribe("topic", "a", collect(a))
	a.wait(e, 2, "messages")
}

func pause(e *env) {
	got := newLog[string]()
	s := e.subscribe("topic", "group", collect(got))
	other := newLog[string]()
	e.subscribe("topic", "other", collect(other))
	e.publish("topic", keyed("k", "1"))
	got.wait(e, 1, "message")
	s.Pause()
	e.publish("topic", keyed("k", "2"), keyed("k", "3"))
	other.wait(e, 3, "messages in the other group")
	if e.cfg.Virtual {
		time.Sleep(time.Minute) // leases must not lapse
	}
	if all := got.all(); len(all) != 1 {
		e.Errorf("a paused subscription handled %v", all)
	}
	s.Resume()
	got.wait(e, 3, "messages")
	e.drain(s)
	if all := got.all(); !slices.Equal(all, []string{"1", "2", "3"}) {
		e.Errorf("handled %v", all)
	}
}

func traces(e *env) {
	got := make(chan trace.SpanContext, 1)
	e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		got <- trace.SpanContextFromContext(ctx)
		if d.Attempt == 1 {
			return errTest
		}
		return nil
	})
	ctx, root := e.spans.provider.Tracer("").Start(e.ctx(), "root")
	if err := e.b.Publish(ctx, "topic", text("x")); err != nil {
		e.Fatal(err)
	}
	root.End()
	first, second := next(e, got, "the first attempt"), next(e, got, "the second")
	e.close()
	sends, processes := e.spans.named("send topic"), e.spans.named("process topic")
	if len(sends) != 1 || len(processes) != 2 {
		e.Fatalf("%d send spans and %d process spans, want 1 and 2", len(sends), len(processes))
	}
	if sends[0].kind != trace.SpanKindProducer || sends[0].parent.SpanID() != root.SpanContext().SpanID() {
		e.Errorf("send span is %+v", sends[0])
	}
	for i, p := range processes {
		if p.kind != trace.SpanKindConsumer || p.parent.SpanID() != sends[0].context.SpanID() || p.context.TraceID() != root.SpanContext().TraceID() {
			e.Errorf("process span %d has parent %s in trace %s", i, p.parent.SpanID(), p.context.TraceID())
		}
	}
	if first.SpanID() != processes[0].context.SpanID() || second.SpanID() != processes[1].context.SpanID() {
		e.Error("handlers did not run in the process spans")
	}
	if !processes[0].failed.Load() || processes[1].failed.Load() {
		e.Error("the failed attempt and no other must be marked as failed")
	}
}

func ownTrace(e *env) {
	const own = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	got := make(chan *messaging.Delivery, 1)
	ids := make(chan trace.TraceID, 1)
	e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		got <- d
		ids <- trace.SpanContextFromContext(ctx).TraceID()
		return nil
	})
	m := text("x")
	m.Header = messaging.Header{"traceparent": own, flow.Correlation.Event(): "first"}
	ctx, span := e.spans.provider.Tracer("").Start(flow.WithCorrelationID(e.ctx(), "relay"), "relay")
	defer span.End()
	if err := e.b.Publish(ctx, "topic", m); err != nil {
		e.Fatal(err)
	}
	d := next(e, got, "the message")
	if d.Message.Header["traceparent"] != own || d.Message.Header[flow.Correlation.Event()] != "first" {
		e.Errorf("headers are %v", d.Message.Header)
	}
	if id := next(e, ids, "the trace id"); id.String() != "0123456789abcdef0123456789abcdef" {
		e.Errorf("trace id is %s", id)
	}
}

func flowValues(e *env) {
	got := make(chan context.Context, 2)
	e.subscribe("topic", "group", func(ctx context.Context, _ *messaging.Delivery) error { got <- ctx; return nil })
	ctx := flow.WithCorrelationID(e.ctx(), "corr-1")
	ctx = flow.WithPrincipal(ctx, flow.Principal{Subject: "alice", Roles: []string{"buyer"}})
	ctx = flow.WithSaga(ctx, "saga-1", 3)
	ctx = flow.WithOutgoingIdempotencyKey(ctx, "saga-1/mail")
	ctx = flow.WithIdempotencyKey(ctx, "never forwarded")
	m := text("x")
	m.ID = flow.NewID()
	if err := e.b.Publish(ctx, "topic", m); err != nil {
		e.Fatal(err)
	}
	in := next(e, got, "the message")
	p, _ := flow.PrincipalFrom(in)
	id, epoch, _ := flow.Saga(in)
	if flow.CorrelationID(in) != "corr-1" || flow.CausationID(in) != m.ID || p.Subject != "alice" || !p.HasRole("buyer") || id != "saga-1" || epoch != 3 || flow.IdempotencyKey(in) != "saga-1/mail" {
		e.Errorf("flow is %q %q %+v %q %d %q", flow.CorrelationID(in), flow.CausationID(in), p, id, epoch, flow.IdempotencyKey(in))
	}
	m = text("y")
	m.ID = flow.NewID()
	e.publish("topic", m)
	if in = next(e, got, "the message"); flow.CorrelationID(in) != m.ID {
		e.Errorf("a message that starts a flow has correlation id %q, want its own id", flow.CorrelationID(in))
	}
}

func closing(e *env) {
	started, finish := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	s := e.subscribe("topic", "group", func(ctx context.Context, _ *messaging.Delivery) error {
		close(started)
		<-finish
		result <- errors.Join(ctx.Err(), e.b.Publish(ctx, "topic2", text("y")))
		return nil
	})
	e.publish("topic", text("x"))
	next(e, started, "the handler to start")
	if err := e.b.Ping(e.ctx()); err != nil {
		e.Errorf("ping: %v", err)
	}
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- e.b.Close(e.ctx()) }()
	}
	close(finish)
	if err := next(e, result, "the handler"); err != nil {
		e.Errorf("the handler could not publish while the broker closed: %v", err)
	}
	for range 2 {
		if err := next(e, closed, "Close"); err != nil {
			e.Errorf("close: %v", err)
		}
	}
	next(e, s.Done(), "the subscription to end")
	if err := e.b.Publish(e.ctx(), "topic", text("x")); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("publish after close: %v", err)
	}
	if _, err := e.b.Subscribe(e.ctx(), "topic", "group", collect(newLog[string]())); !errors.Is(err, messaging.ErrClosed) {
		e.Errorf("subscribe after close: %v", err)
	}
	if err := e.b.Ping(e.ctx()); err == nil {
		e.Error("ping after close succeeded")
	}
}

func typed(e *env) {
	type placed struct {
		Order string `json:"order"`
		Cents int64  `json:"cents"`
	}
	got := make(chan placed, 1)
	e.subscribe("topic", "group", messaging.On(func(_ context.Context, p placed, d *messaging.Delivery) error {
		if d.Message.Type != "order.placed" || d.Message.Key != "o-1" || d.Message.ContentType != "application/json" {
			e.Errorf("message is %+v", d.Message)
		}
		got <- p
		return nil
	}))
	want := placed{"o-1", 1299}
	if err := messaging.Publish(e.ctx(), e.b, "topic", "order.placed", "o-1", want); err != nil {
		e.Fatal(err)
	}
	if p := next(e, got, "the event"); p != want {
		e.Errorf("event is %+v", p)
	}
	e.publish("topic", text("{"))
	deadOf(e, "topic", "group")
}

func restart(e *env) {
	e.ensure("topic", "group")
	e.publish("topic", keyed("k", "1"), keyed("k", "2"))
	got := newLog[string]()
	second := make(chan struct{})
	s := e.subscribe("topic", "group", func(ctx context.Context, d *messaging.Delivery) error {
		if string(d.Message.Data) == "2" {
			close(second)
			<-ctx.Done()
			return ctx.Err()
		}
		got.add(string(d.Message.Data))
		return nil
	}, messaging.Concurrency(1))
	next(e, second, "the second message")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Drain(ctx); err != nil {
		e.Errorf("drain: %v", err)
	}
	e.publish("topic", keyed("k", "3"))
	e.b = e.cfg.Restart(e.T, e.b)
	e.publish("topic", keyed("k", "4"))
	e.subscribe("topic", "group", collect(got))
	if all := got.wait(e, 4, "messages"); !slices.Equal(all, []string{"1", "2", "3", "4"}) {
		e.Errorf("handled %v", all)
	}
}
