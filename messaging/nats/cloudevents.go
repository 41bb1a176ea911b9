package nats

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/armature-go/armature/messaging"
)

// The wire format is CloudEvents 1.0, NATS protocol binding: attributes are headers named "ce-<attribute>", percent-encoded
// where they leave printable ASCII. Header entries whose name can be an extension attribute travel as one, others as
// plain headers, with the same encoding.

const (
	contentType    = "content-type"
	structuredType = "application/cloudevents+json"
)

// reserved attributes are fields of Message or of the envelope and no extensions.
var reserved = map[string]bool{
	"specversion": true, "id": true, "type": true, "source": true, "subject": true, "time": true,
	"datacontenttype": true, "partitionkey": true, "data": true, "database64": true,
}

func isExtension(name string) bool {
	for _, r := range name {
		if !('a' <= r && r <= 'z' || '0' <= r && r <= '9') {
			return false
		}
	}
	return name != "" && !reserved[name]
}

func encode(m *messaging.Message) (natsgo.Header, []byte) {
	h := make(natsgo.Header, len(m.Header)+8)
	set := func(name, value string) {
		if value != "" {
			h[name] = []string{escape(value)}
		}
	}
	h["ce-specversion"] = []string{"1.0"}
	set("ce-id", m.ID)
	set("ce-type", m.Type)
	set("ce-source", m.Source)
	set("ce-subject", m.Subject)
	set("ce-partitionkey", m.Key)
	set("ce-time", m.Time.UTC().Format(time.RFC3339Nano))
	set(contentType, m.ContentType)
	for k, v := range m.Header {
		if isExtension(k) {
			k = "ce-" + k
		}
		h[k] = []string{escape(v)}
	}
	return h, m.Data
}

// decode never returns a nil message: with an error it holds what could be read, for the dead letter.
func decode(h natsgo.Header, data []byte) (*messaging.Message, error) {
	m := &messaging.Message{Header: messaging.Header{}, Data: data}
	attributes := map[string]string{}
	var errs []error
	for name, values := range h {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "nats-") {
			continue // the server's own
		}
		if len(values) != 1 {
			errs = append(errs, fmt.Errorf("header %q has %d values, must have one", name, len(values)))
			if len(values) == 0 {
				continue
			}
		}
		value := unescape(values[0])
		attribute, isAttribute := strings.CutPrefix(lower, "ce-")
		switch {
		case lower == contentType:
			attribute = "datacontenttype"
		case !isAttribute:
			attribute = name
		}
		to := map[string]string(m.Header)
		if lower == contentType || isAttribute && reserved[attribute] {
			to = attributes
		}
		if _, twice := to[attribute]; twice {
			errs = append(errs, fmt.Errorf("%q is given by two headers", attribute))
			continue
		}
		to[attribute] = value
	}
	mediaType, _, _ := strings.Cut(attributes["datacontenttype"], ";")
	if strings.EqualFold(strings.TrimSpace(mediaType), structuredType) && attributes["specversion"] == "" {
		errs = append(errs, structured(m, attributes))
	}
	m.ID, m.Type, m.Source = attributes["id"], attributes["type"], attributes["source"]
	m.Subject, m.Key, m.ContentType = attributes["subject"], attributes["partitionkey"], attributes["datacontenttype"]
	if v := attributes["specversion"]; v == "" {
		errs = append(errs, errors.New("specversion is missing"))
	} else if v != "1.0" {
		errs = append(errs, fmt.Errorf("specversion is %q, only 1.0 is understood", v))
	}
	for _, name := range []string{"id", "type", "source"} {
		if attributes[name] == "" {
			errs = append(errs, fmt.Errorf("%s is missing", name))
		}
	}
	if s := attributes["time"]; s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("time %q is not RFC 3339", s))
		}
		m.Time = t.UTC()
	}
	if err := errors.Join(errs...); err != nil {
		return m, fmt.Errorf("nats: message is no CloudEvent: %w", err)
	}
	return m, nil
}

// structured reads the JSON format: attributes beside "data" or "data_base64".
func structured(m *messaging.Message, attributes map[string]string) error {
	var event map[string]json.RawMessage
	if err := json.Unmarshal(m.Data, &event); err != nil {
		return fmt.Errorf("structured event: %w", err)
	}
	delete(attributes, "datacontenttype")
	for name, raw := range event {
		if name == "data" || name == "data_base64" {
			continue
		}
		value, err := scalar(raw)
		if err != nil {
			return fmt.Errorf("structured event: attribute %q: %w", name, err)
		}
		if reserved[name] {
			attributes[name] = value
		} else {
			m.Header[name] = value
		}
	}
	if encoded, ok := event["data_base64"]; ok {
		var s string
		if err := json.Unmarshal(encoded, &s); err != nil {
			return fmt.Errorf("structured event: data_base64: %w", err)
		}
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("structured event: data_base64: %w", err)
		}
		m.Data = data
		return nil
	}
	if attributes["datacontenttype"] == "" {
		attributes["datacontenttype"] = "application/json"
	}
	m.Data = event["data"]
	return nil
}

// scalar returns the text of an attribute, which is a string, a boolean or a number.
func scalar(raw json.RawMessage) (string, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return string(raw), nil
	case nil:
		return "", nil
	}
	return "", errors.New("must be a string, a boolean or a number")
}

const hexDigits = "0123456789ABCDEF"

// escape percent-encodes what CloudEvents asks for: everything outside printable ASCII, space, quote and percent.
func escape(s string) string {
	plain := true
	for i := range len(s) {
		if mustEscape(s[i]) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; mustEscape(c) {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func mustEscape(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

// unescape is the inverse; a percent sign that starts no escape stands for itself.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(v))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
