package httpx

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armature-go/armature/transport"
)

// plan is what a request type means on the wire, computed once per route. Server
// and client share it: the one reads a request with it, the other writes one.
type plan struct {
	typ    reflect.Type // the request type without its pointer
	params []param
	// body is the type to decode the JSON body into, nil when there is none. It
	// has the fields of typ, and those that are params hidden from encoding/json.
	body reflect.Type
}

type source string

const (
	inPath   source = "path"
	inQuery  source = "query"
	inHeader source = "header"
	inCookie source = "cookie"
)

type param struct {
	in    source
	name  string
	index []int
	codec paramCodec
}

// compile returns an error for what only a programmer can mend.
func compile(t reflect.Type, p pattern) (*plan, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	pl := &plan{typ: t}
	if t.Kind() != reflect.Struct || implements[json.Unmarshaler](t) {
		if p.hasBody() {
			pl.body = t
		}
		return pl, nil
	}
	bodyFields, hidden := false, map[int]bool{}
	for _, f := range reflect.VisibleFields(t) {
		in, name := tagOf(f)
		switch {
		case in == "":
			bodyFields = bodyFields || (f.IsExported() && f.Tag.Get("json") != "-" && !f.Anonymous)
			continue
		case !f.IsExported():
			return nil, fmt.Errorf("field %s.%s has a %s tag but is not exported", t, f.Name, in)
		case name == "":
			return nil, fmt.Errorf("field %s.%s: the %s tag is empty; name the parameter", t, f.Name, in)
		case in == inPath && !slices.Contains(p.wildcards, name):
			return nil, fmt.Errorf("field %s.%s: pattern %q has no wildcard {%s}", t, f.Name, p, name)
		}
		if throughPointer(t, f.Index) {
			return nil, fmt.Errorf("field %s.%s is promoted from an embedded pointer; embed the struct itself", t, f.Name)
		}
		codec, err := codecOf(f.Type, in)
		if err != nil {
			return nil, fmt.Errorf("field %s.%s: %w", t, f.Name, err)
		}
		if in == inHeader {
			name = http.CanonicalHeaderKey(name)
		}
		hidden[f.Index[0]] = true
		pl.params = append(pl.params, param{in, name, f.Index, codec})
	}
	if bodyFields && p.hasBody() {
		pl.body = hide(t, hidden)
	}
	return pl, nil
}

func tagOf(f reflect.StructField) (source, string) {
	for _, in := range []source{inPath, inQuery, inHeader, inCookie} {
		if name, ok := f.Tag.Lookup(string(in)); ok {
			return in, name
		}
	}
	return "", ""
}

func throughPointer(t reflect.Type, index []int) bool {
	for _, i := range index[:len(index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

// hide returns a type of the same layout as t whose hidden fields encoding/json
// does not see. A struct that embeds others is returned as it is, because
// reflect cannot build such types; clear covers it.
func hide(t reflect.Type, hidden map[int]bool) reflect.Type {
	if len(hidden) == 0 {
		return t
	}
	fields := make([]reflect.StructField, t.NumField())
	for i := range fields {
		fields[i] = t.Field(i)
		if fields[i].Anonymous {
			return t
		}
		if hidden[i] {
			fields[i].Tag = `json:"-"`
		}
	}
	if shadow := reflect.StructOf(fields); reflect.PointerTo(t).ConvertibleTo(reflect.PointerTo(shadow)) {
		return shadow
	}
	return t
}

// read fills v, a settable value of pl.typ.
func (pl *plan) read(r *http.Request, body func() ([]byte, error), v reflect.Value) error {
	if pl.body != nil {
		data, err := body()
		if err != nil {
			return err
		}
		if err := decodeJSON(data, v.Addr().Convert(reflect.PointerTo(pl.body))); err != nil {
			return err
		}
	}
	var query url.Values
	var violations []transport.Violation
	for i := range pl.params {
		p := &pl.params[i]
		field := v.FieldByIndex(p.index)
		field.SetZero() // a body may have set it where the type could not hide it
		var values []string
		switch p.in {
		case inPath:
			values = []string{r.PathValue(p.name)}
		case inHeader:
			values = r.Header[p.name]
		case inCookie:
			for _, c := range r.CookiesNamed(p.name) {
				values = append(values, c.Value)
			}
		case inQuery:
			if query == nil {
				var err error
				if query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
					return invalid(transport.Violation{Pointer: "/query", Detail: "the query string is malformed"})
				}
			}
			values = query[p.name]
		}
		if len(values) == 0 {
			continue
		}
		if detail := p.codec.parse(field, values); detail != "" {
			violations = append(violations, transport.Violation{
				Pointer: "/" + string(p.in) + "/" + escapePointer(p.name),
				Detail:  fmt.Sprintf("%s parameter %q %s", p.in, p.name, detail),
			})
		}
	}
	if len(violations) > 0 {
		return invalid(violations...)
	}
	return nil
}

// write is the inverse of read without the body. Zero values of other than
// path parameters are left out: they read back as what they are.
func (pl *plan) write(v reflect.Value, path map[string]string, query url.Values, header http.Header) error {
	for i := range pl.params {
		p := &pl.params[i]
		field := v.FieldByIndex(p.index)
		if p.in != inPath && field.IsZero() {
			continue
		}
		values, err := p.codec.format(field)
		if err != nil {
			return fmt.Errorf("httpx: write %s parameter %q: %w", p.in, p.name, err)
		}
		switch p.in {
		case inPath:
			if len(values) == 1 {
				path[p.name] = values[0]
			}
		case inQuery:
			query[p.name] = values
		case inHeader:
			header[p.name] = values
		case inCookie:
			for _, value := range values {
				//nolint:gosec // a client sends name and value; the attributes are the server's
				c := &http.Cookie{Name: p.name, Value: value, Quoted: strings.ContainsAny(value, " ,")}
				if err := c.Valid(); err != nil {
					return fmt.Errorf("httpx: write cookie parameter %q: %w", p.name, err)
				}
				if sent := header.Get("Cookie"); sent != "" {
					header.Set("Cookie", sent+"; "+c.String())
				} else {
					header.Set("Cookie", c.String())
				}
			}
		}
	}
	return nil
}

// paramCodec turns the texts of a parameter into a field and back. parse returns
// what is wrong, ready to follow the name of the parameter.
type paramCodec struct {
	parse  func(v reflect.Value, values []string) string
	format func(v reflect.Value) ([]string, error)
}

func codecOf(t reflect.Type, in source) (paramCodec, error) {
	switch {
	case implements[encoding.TextUnmarshaler](t) || t.Kind() != reflect.Slice && t.Kind() != reflect.Pointer:
		parse, err := parserOf(t)
		return paramCodec{
			parse: func(v reflect.Value, values []string) string {
				if len(values) > 1 {
					return "is given more than once"
				}
				return parse(v, values[0])
			},
			format: func(v reflect.Value) ([]string, error) {
				text, err := formatScalar(v)
				return []string{text}, err
			},
		}, err
	case t.Kind() == reflect.Pointer:
		inner, err := codecOf(t.Elem(), in)
		return paramCodec{
			parse: func(v reflect.Value, values []string) string {
				v.Set(reflect.New(t.Elem()))
				return inner.parse(v.Elem(), values)
			},
			format: func(v reflect.Value) ([]string, error) {
				if v.IsNil() {
					return nil, nil
				}
				return inner.format(v.Elem())
			},
		}, err
	case in == inPath:
		return paramCodec{}, fmt.Errorf("a path parameter cannot be a %s", t)
	default:
		parse, err := parserOf(t.Elem())
		return paramCodec{
			parse: func(v reflect.Value, values []string) string {
				list := reflect.MakeSlice(t, len(values), len(values))
				for i, text := range values {
					if detail := parse(list.Index(i), text); detail != "" {
						return detail
					}
				}
				v.Set(list)
				return ""
			},
			format: func(v reflect.Value) ([]string, error) {
				values := make([]string, v.Len())
				for i := range values {
					var err error
					if values[i], err = formatScalar(v.Index(i)); err != nil {
						return nil, err
					}
				}
				return values, nil
			},
		}, err
	}
}

func parserOf(t reflect.Type) (func(v reflect.Value, text string) string, error) {
	switch kind := t.Kind(); {
	case implements[encoding.TextUnmarshaler](t):
		return func(v reflect.Value, text string) string {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
				return "must be " + nameOf(t)
			}
			return ""
		}, nil
	case t == reflect.TypeFor[time.Duration]():
		return func(v reflect.Value, text string) string {
			d, err := time.ParseDuration(text)
			if err != nil {
				return "must be a duration as in 1m30s"
			}
			v.SetInt(int64(d))
			return ""
		}, nil
	case kind == reflect.String:
		return func(v reflect.Value, text string) string { v.SetString(text); return "" }, nil
	case kind == reflect.Bool:
		return func(v reflect.Value, text string) string {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return "must be true or false"
			}
			v.SetBool(b)
			return ""
		}, nil
	case kind >= reflect.Int && kind <= reflect.Int64:
		return func(v reflect.Value, text string) string {
			n, err := strconv.ParseInt(text, 10, t.Bits())
			if err != nil {
				return numberRule(t, text)
			}
			v.SetInt(n)
			return ""
		}, nil
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		return func(v reflect.Value, text string) string {
			n, err := strconv.ParseUint(text, 10, t.Bits())
			if err != nil {
				return numberRule(t, text)
			}
			v.SetUint(n)
			return ""
		}, nil
	case kind == reflect.Float32 || kind == reflect.Float64:
		return func(v reflect.Value, text string) string {
			n, err := strconv.ParseFloat(text, t.Bits())
			if err != nil || n != n || n-n != 0 {
				return "must be a number"
			}
			v.SetFloat(n)
			return ""
		}, nil
	}
	return nil, fmt.Errorf("a parameter cannot be a %s; use a string, bool, number, time.Duration or encoding.TextUnmarshaler", t)
}

func formatScalar(v reflect.Value) (string, error) {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		return string(text), err
	}
	if v.CanAddr() {
		if m, ok := v.Addr().Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			return string(text), err
		}
	}
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits()), nil
	case reflect.String:
		return v.String(), nil
	}
	return fmt.Sprint(v.Interface()), nil
}

// implements reports whether a pointer to a T is an I.
func implements[I any](t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[I]())
}

func escapePointer(token string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(token)
}
