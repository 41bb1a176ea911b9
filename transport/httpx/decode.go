package httpx

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/armature-go/armature/transport"
)

// domain is who defines the reasons of the errors this package makes itself.
const domain = "armature"

const (
	// maxViolations bounds the answer to a body that is wrong everywhere.
	maxViolations = 16
	// maxDiagnosis bounds how deep a bad body is searched; each level scans what is
	// inside of it once more.
	maxDiagnosis = 32
)

func invalid(violations ...transport.Violation) *transport.Error {
	return transport.Errorf(transport.InvalidArgument, "INVALID_REQUEST", "the request is invalid").
		WithDomain(domain).WithViolations(violations...)
}

func malformed(detail string) *transport.Error {
	return transport.Errorf(transport.InvalidArgument, "MALFORMED_JSON", "the body is not valid JSON: %s", detail).
		WithDomain(domain).WithViolations(transport.Violation{Pointer: "", Detail: detail})
}

// decoder is a json.Decoder for one value after another.
type decoder struct {
	source bytes.Reader
	json   *json.Decoder
}

var decoders = sync.Pool{New: func() any {
	d := new(decoder)
	d.json = json.NewDecoder(&d.source)
	d.json.DisallowUnknownFields()
	return d
}}

// decodeWhole reports whether data was one value that fits, and nothing else. Only
// then is its decoder used again: whatever else it still held would become the
// beginning of somebody else's value.
func decodeWhole(data []byte, into any) bool {
	d := decoders.Get().(*decoder)
	before := d.json.InputOffset()
	d.source.Reset(data)
	if d.json.Decode(into) != nil || d.json.InputOffset()-before != int64(len(data)) {
		return false
	}
	d.source.Reset(nil)
	if len(data) <= maxPooled {
		decoders.Put(d)
	}
	return true
}

// decodeJSON decodes data, which must be one JSON value without unknown fields,
// into what ptr points at. The good path is encoding/json alone; a refusal is
// explained by reading the body again, next to its type.
func decodeJSON(data []byte, ptr reflect.Value) error {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return malformed("the body is empty")
	}
	if trimmed[0] != 'n' && decodeWhole(bytes.TrimRight(trimmed, " \t\r\n"), ptr.Interface()) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(ptr.Interface())
	if err == nil {
		if rest := bytes.TrimLeft(data[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
			return malformed("there is data after the JSON value, at " + position(data, int64(len(data)-len(rest))))
		}
		if trimmed[0] == 'n' && ptr.Type().Elem().Kind() == reflect.Struct {
			return invalid(transport.Violation{Detail: "must be an object, got null"})
		}
		return nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("it ends early, at " + position(data, int64(len(data))))
	case errors.As(err, &syntax):
		return malformed(syntax.Error() + ", at " + position(data, max(syntax.Offset-1, 0)))
	}
	var d diagnosis
	d.value(trimmed[:len(trimmed)-len(data)+int(dec.InputOffset())], ptr.Type().Elem(), "", 0)
	if len(d.violations) == 0 {
		// encoding/json knows of something that the diagnosis does not.
		d.report("", "does not have the right shape")
	}
	return invalid(d.violations...).WithCause(err)
}

func position(data []byte, offset int64) string {
	before := data[:min(offset, int64(len(data)))]
	line := bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("line %d, column %d", line+1, column)
}

// diagnosis finds what in a syntactically valid value does not fit a type.
type diagnosis struct{ violations []transport.Violation }

func (d *diagnosis) report(pointer, detail string) {
	if len(d.violations) < maxViolations {
		d.violations = append(d.violations, transport.Violation{Pointer: pointer, Detail: detail})
	}
}

func (d *diagnosis) value(raw []byte, t reflect.Type, pointer string, depth int) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(d.violations) >= maxViolations || len(raw) == 0 || (raw[0] == 'n' && depth > 0) {
		return
	}
	own := implements[json.Unmarshaler](t) || implements[encoding.TextUnmarshaler](t)
	switch {
	case own || depth >= maxDiagnosis:
	case t.Kind() == reflect.Struct:
		if kindOf(raw) == "an object" {
			d.object(raw, fieldsOf(t), nil, pointer, depth)
			return
		}
	case t.Kind() == reflect.Map:
		if kindOf(raw) == "an object" && json.Unmarshal(raw, reflect.New(t).Interface()) != nil {
			d.object(raw, nil, t.Elem(), pointer, depth)
		}
		if kindOf(raw) == "an object" {
			return
		}
	case (t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8) || t.Kind() == reflect.Array:
		if kindOf(raw) == "an array" {
			d.array(raw, t.Elem(), pointer, depth)
			return
		}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(reflect.New(t).Interface()); err != nil {
		d.report(pointer, ruleFor(t, raw, own, err))
	}
}

// object walks the members; fields is nil for a map, whose values are of type elem.
func (d *diagnosis) object(raw []byte, fields map[string]reflect.Type, elem reflect.Type, pointer string, depth int) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return
	}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return
		}
		var member json.RawMessage
		if dec.Decode(&member) != nil {
			return
		}
		at, t := pointer+"/"+escapePointer(name), elem
		if fields != nil {
			if t, ok = lookup(fields, name); !ok {
				d.report(at, "is not a known field")
				continue
			}
		}
		if t != nil {
			d.value(member, t, at, depth+1)
		}
	}
}

func (d *diagnosis) array(raw []byte, elem reflect.Type, pointer string, depth int) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return
	}
	for i := 0; dec.More(); i++ {
		var member json.RawMessage
		if dec.Decode(&member) != nil {
			return
		}
		d.value(member, elem, pointer+"/"+strconv.Itoa(i), depth+1)
	}
}

// fieldsOf maps the names that encoding/json reads to their types; nil stands
// for a type whose values are in another form (the string option).
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	depths := make(map[string]int)
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		embedded := f.Anonymous && name == ""
		if !f.IsExported() || f.Tag.Get("json") == "-" || (embedded && deref(f.Type).Kind() == reflect.Struct) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if depth, seen := depths[name]; seen && depth <= len(f.Index) {
			continue
		}
		depths[name] = len(f.Index)
		fields[name] = f.Type
		if strings.Contains(","+options+",", ",string,") {
			fields[name] = nil
		}
	}
	return fields
}

func deref(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// lookup prefers the exact name and falls back to another case, as encoding/json
// does.
func lookup(fields map[string]reflect.Type, name string) (reflect.Type, bool) {
	if t, ok := fields[name]; ok {
		return t, true
	}
	for field, t := range fields {
		if strings.EqualFold(field, name) {
			return t, true
		}
	}
	return nil, false
}

func ruleFor(t reflect.Type, raw []byte, own bool, err error) string {
	if own {
		if e, ok := errors.AsType[*transport.Error](err); ok && e.Message != "" {
			return e.Message
		}
		return "must be " + nameOf(t)
	}
	if kindOf(raw) == "a number" && isNumber(t) {
		return numberRule(t, string(bytes.TrimRight(raw, " \t\r\n")))
	}
	return "must be " + nameOf(t) + ", got " + kindOf(raw)
}

func kindOf(raw []byte) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

func nameOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a time as in 2006-01-02T15:04:05Z"
	case implements[json.Unmarshaler](t) || implements[encoding.TextUnmarshaler](t):
		return "a valid " + t.Name()
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "a base64 string"
	}
	switch kind := t.Kind(); {
	case kind == reflect.String:
		return "a string"
	case kind == reflect.Bool:
		return "a boolean"
	case kind >= reflect.Int && kind <= reflect.Uintptr:
		return "a whole number"
	case kind == reflect.Float32 || kind == reflect.Float64:
		return "a number"
	case kind == reflect.Slice || kind == reflect.Array:
		return "an array"
	}
	return "an object"
}

func isNumber(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64
}

// numberRule says which rule of t the number text breaks.
func numberRule(t reflect.Type, text string) string {
	unsigned := t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uintptr
	whole := strings.Trim(strings.TrimLeft(text, "+-"), "0123456789") == "" && text != ""
	switch {
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "is out of range for a number"
	case !whole:
		return "must be a whole number"
	case unsigned && strings.HasPrefix(text, "-"):
		return "must not be negative"
	case unsigned:
		return fmt.Sprintf("must be at most %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case strings.HasPrefix(text, "-"):
		return fmt.Sprintf("must be at least %d", int64(math.MinInt64)>>(64-t.Bits()))
	default:
		return fmt.Sprintf("must be at most %d", int64(math.MaxInt64)>>(64-t.Bits()))
	}
}
