package nats

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/armature-go/armature/messaging"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	valid := func(change func(natsgo.Header)) natsgo.Header {
		h := natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-type": {"t"}, "ce-source": {"/s"}}
		if change != nil {
			change(h)
		}
		return h
	}
	for _, test := range []struct {
		name   string
		header natsgo.Header
		data   string
		want   *messaging.Message
		err    string
	}{
		{name: "required attributes alone", header: valid(nil), want: &messaging.Message{ID: "1", Type: "t", Source: "/s"}},
		{name: "names in another case", header: natsgo.Header{"Ce-Specversion": {"1.0"}, "CE-ID": {"1"}, "Ce-Type": {"t"}, "ce-source": {"/s"}, "Content-Type": {"a/b"}}, want: &messaging.Message{ID: "1", Type: "t", Source: "/s", ContentType: "a/b"}},
		{name: "escapes", header: valid(func(h natsgo.Header) { h["ce-id"] = []string{"%C3%A4%20%zz%"} }), want: &messaging.Message{ID: "ä %zz%", Type: "t", Source: "/s"}},
		{name: "the server's own headers are left out", header: valid(func(h natsgo.Header) { h["Nats-Msg-Id"] = []string{"x"} }), want: &messaging.Message{ID: "1", Type: "t", Source: "/s"}},
		{name: "extension and plain header", header: valid(func(h natsgo.Header) { h["ce-tenant"], h["X-Y"] = []string{"a"}, []string{"b"} }), want: &messaging.Message{ID: "1", Type: "t", Source: "/s", Header: messaging.Header{"tenant": "a", "X-Y": "b"}}},
		{name: "structured", header: natsgo.Header{"content-type": {"application/cloudevents+json; charset=utf-8"}}, data: `{"specversion":"1.0","id":"1","type":"t","source":"/s","tenant":"a","n":12,"b":true,"data":{"x":1}}`,
			want: &messaging.Message{ID: "1", Type: "t", Source: "/s", ContentType: "application/json", Header: messaging.Header{"tenant": "a", "n": "12", "b": "true"}, Data: []byte(`{"x":1}`)}},
		{name: "structured with binary data", header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, data: `{"specversion":"1.0","id":"1","type":"t","source":"/s","datacontenttype":"x/y","data_base64":"AQI="}`,
			want: &messaging.Message{ID: "1", Type: "t", Source: "/s", ContentType: "x/y", Data: []byte{1, 2}}},
		{name: "structured that is no JSON", header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, data: `{`, err: "structured event"},
		{name: "structured with an object as attribute", header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, data: `{"id":{}}`, err: `attribute "id"`},
		{name: "structured with broken base64", header: natsgo.Header{"content-type": {"application/cloudevents+json"}}, data: `{"specversion":"1.0","id":"1","type":"t","source":"/s","data_base64":"?"}`, err: "data_base64"},
		{name: "no headers at all", err: "specversion is missing"},
		{name: "another version", header: valid(func(h natsgo.Header) { h["ce-specversion"] = []string{"0.3"} }), err: `specversion is "0.3"`},
		{name: "no id", header: valid(func(h natsgo.Header) { delete(h, "ce-id") }), err: "id is missing"},
		{name: "two values", header: valid(func(h natsgo.Header) { h["X"] = []string{"a", "b"} }), err: `header "X" has 2 values`},
		{name: "no value", header: valid(func(h natsgo.Header) { h["X"] = nil }), err: `header "X" has 0 values`},
		{name: "two names for one attribute", header: valid(func(h natsgo.Header) { h["Ce-Id"] = []string{"2"} }), err: `"id" is given by two headers`},
		{name: "bad time", header: valid(func(h natsgo.Header) { h["ce-time"] = []string{"yesterday"} }), err: `time "yesterday"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := decode(test.header, []byte(test.data))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || got == nil {
					t.Fatalf("error is %v, message %v; want an error with %q and what could be read", err, got, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.want.Header == nil {
				test.want.Header = messaging.Header{}
			}
			if len(got.Data) == 0 && len(test.want.Data) == 0 {
				got.Data = test.want.Data
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("message is %+v, want %+v", got, test.want)
			}
		})
	}
}

// FuzzDecode feeds arbitrary headers: decode must not panic, must never return nil, and what it accepts must survive a
// round trip.
func FuzzDecode(f *testing.F) {
	f.Add("ce-id", "1", "ce-time", "2026-01-02T03:04:05Z", "x", "%41", []byte("data"), true)
	f.Add("content-type", "application/cloudevents+json", "", "", "", "", []byte(`{"specversion":"1.0","id":"1","type":"t","source":"s","data":1}`), false)
	f.Add("Ce-Id", "2", "ce-partitionkey", "%", "ce-id", "", []byte(nil), true)
	f.Add("ce-dataschema", "ä\n", "id", "x", "CE-X", "y", []byte{0xff}, true)
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, n3, v3 string, data []byte, complete bool) {
		h := natsgo.Header{}
		if complete {
			h = natsgo.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-type": {"t"}, "ce-source": {"/s"}}
		}
		for _, nv := range [][2]string{{n1, v1}, {n2, v2}, {n3, v3}} {
			h[nv[0]] = append(h[nv[0]], nv[1])
		}
		m, err := decode(h, data)
		if m == nil {
			t.Fatal("message is nil")
		}
		if err != nil {
			return
		}
		for name := range m.Header {
			if lower := strings.ToLower(name); strings.HasPrefix(lower, "ce-") || lower == contentType || strings.HasPrefix(lower, "nats-") {
				return // structured events can name extensions like headers of the wire; publishing those is refused
			}
		}
		if y := m.Time.Year(); y < 1 || y > 9999 {
			return
		}
		encoded, out := encode(m)
		again, err := decode(encoded, out)
		if err != nil {
			t.Fatalf("%+v became %v: %v", m, encoded, err)
		}
		if !m.Time.Equal(again.Time) && !m.Time.IsZero() {
			t.Errorf("time %s became %s", m.Time, again.Time)
		}
		m.Time, again.Time = time.Time{}, time.Time{}
		if bytes.Equal(m.Data, again.Data) { // nil and empty are the same on the wire
			m.Data, again.Data = nil, nil
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
