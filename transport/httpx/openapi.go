package httpx

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armature-go/armature/transport"
)

// APIInfo heads the description of an API. Title and Version are required by
// OpenAPI; empty ones become "API" and "0".
type APIInfo struct {
	Title, Version, Description string
	Servers                     []string // base URLs; none means where the description was found
}

// Doc describes a route in the OpenAPI document: a line, and an optional longer text
// in Markdown.
func Doc(summary string, description ...string) RouteOption {
	return func(rt *route) { rt.summary, rt.description = summary, strings.Join(description, "\n\n") }
}

// Tag groups routes in the OpenAPI document.
func Tag(names ...string) RouteOption {
	return func(rt *route) { rt.tags = append(rt.tags, names...) }
}

// Answers names errors that callers of a route should be ready for, beside those
// that every route has, in the OpenAPI document.
func Answers(codes ...transport.Code) RouteOption {
	return func(rt *route) { rt.answers = append(rt.answers, codes...) }
}

// described is what is remembered of a route for the OpenAPI document.
type described struct {
	rt        *route
	plan      *plan
	resp      reflect.Type
	streaming bool
}

// OpenAPI returns the description of every route of [Handle] and [Stream] registered
// so far as OpenAPI 3.1 in JSON. Schemas come from the Go types as encoding/json sees
// them; a field's tag `doc:"…"` is its description. A type with a method
// OpenAPISchema() map[string]any speaks for itself. Routes of [Server.Mount] are not
// part of it. The same routes give the same bytes.
func (s *Server) OpenAPI(info APIInfo) ([]byte, error) {
	s.mu.Lock()
	routes := slices.Clone(s.described)
	s.mu.Unlock()
	doc := &openAPI{names: map[string]reflect.Type{}, schemas: map[string]any{}}
	paths := map[string]map[string]any{}
	for _, d := range routes {
		p := openPath(d.rt.pattern)
		if paths[p] == nil {
			paths[p] = map[string]any{}
		}
		paths[p][strings.ToLower(d.rt.pattern.method)] = doc.operation(d)
	}
	about := map[string]any{"title": cmp.Or(info.Title, "API"), "version": cmp.Or(info.Version, "0")}
	if info.Description != "" {
		about["description"] = info.Description
	}
	root := map[string]any{"openapi": "3.1.0", "info": about, "paths": paths}
	if len(doc.schemas) > 0 {
		root["components"] = map[string]any{"schemas": doc.schemas}
	}
	for _, address := range info.Servers {
		servers, _ := root["servers"].([]any)
		root["servers"] = append(servers, map[string]any{"url": address})
	}
	text, err := json.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("httpx: describe API: %w", err)
	}
	return text, nil
}

// MountOpenAPI serves the description of the API below prefix: prefix/openapi.json,
// and at prefix a page that shows it without fetching anything from elsewhere. It is
// made anew when a route was added. It panics when prefix does not begin with a slash
// or ends with one.
func (s *Server) MountOpenAPI(prefix string, info APIInfo) {
	if !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
		panic(fmt.Sprintf("httpx: mount OpenAPI at %q: the prefix must begin with a slash and not end with one, as \"/docs\"", prefix))
	}
	serve := func(media string, render func([]byte) ([]byte, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, err := s.OpenAPI(info)
			if err == nil {
				text, err = render(text)
			}
			if err != nil {
				w.(*response).fail(r, err)
				return
			}
			w.Header().Set("Content-Type", media)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
			_, _ = w.Write(text) // a client that left is not our failure
		})
	}
	s.Mount("GET "+prefix+"/openapi.json", serve("application/json", func(text []byte) ([]byte, error) { return text, nil }))
	s.Mount("GET "+prefix, serve("text/html; charset=utf-8", func(text []byte) ([]byte, error) {
		return renderAPI(text, prefix+"/openapi.json")
	}))
}

// openPath writes a pattern of http.ServeMux as a path template.
func openPath(p pattern) string {
	var b strings.Builder
	p.walk(func(s string) { b.WriteString(s) }, func(name string, _ bool) { b.WriteString("{" + name + "}") })
	return b.String()
}

type openAPI struct {
	names   map[string]reflect.Type // of components
	schemas map[string]any
}

func (o *openAPI) operation(d described) map[string]any {
	rt := d.rt
	op := map[string]any{"operationId": operationID(rt.pattern)}
	if rt.summary != "" {
		op["summary"] = rt.summary
	}
	if rt.description != "" {
		op["description"] = rt.description
	}
	if len(rt.tags) > 0 {
		op["tags"] = rt.tags
	}
	if rt.header.Get("Deprecation") != "" {
		op["deprecated"] = true
	}
	if parameters := o.parameters(d); len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if d.plan.body != nil {
		op["requestBody"] = map[string]any{"required": true, "content": o.content("application/json", o.body(d.plan))}
	}
	op["responses"] = o.responses(d)
	return op
}

func operationID(p pattern) string {
	words := strings.FieldsFunc(p.path, func(r rune) bool { return strings.ContainsRune("/{}.$-_", r) })
	id := strings.ToLower(p.method)
	for _, word := range words {
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	return id
}

func (o *openAPI) parameters(d described) []any {
	var list []any
	bound := map[string]bool{}
	for i := range d.plan.params {
		p := &d.plan.params[i]
		field := d.plan.typ.FieldByIndex(p.index)
		parameter := map[string]any{"name": p.name, "in": string(p.in), "schema": o.schema(field.Type)}
		if text := field.Tag.Get("doc"); text != "" {
			parameter["description"] = text
		}
		if p.in == inPath {
			parameter["required"] = true
			bound[p.name] = true
		}
		list = append(list, parameter)
	}
	for _, name := range d.rt.pattern.wildcards {
		if !bound[name] {
			list = append(list, map[string]any{"name": name, "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
		}
	}
	return list
}

func (o *openAPI) responses(d described) map[string]any {
	responses := map[string]any{}
	switch {
	case d.streaming:
		responses["200"] = map[string]any{
			"description": "Server-sent events, each with this as its data.",
			"content":     o.content("text/event-stream", o.schema(deref(d.resp))),
		}
	case d.rt.status == http.StatusNoContent:
		responses["204"] = map[string]any{"description": http.StatusText(http.StatusNoContent)}
	default:
		status := d.rt.status
		if sc, ok := reflect.New(deref(d.resp)).Interface().(interface{ StatusCode() int }); ok {
			if declared := statusOfZero(sc); declared >= 200 && declared < 400 {
				status = declared
			}
		}
		responses[strconv.Itoa(status)] = map[string]any{
			"description": http.StatusText(status),
			"content":     o.content("application/json", o.schema(deref(d.resp))),
		}
	}
	for _, code := range d.rt.answers {
		status := code.HTTPStatus()
		responses[strconv.Itoa(status)] = o.problem(http.StatusText(status))
	}
	responses["default"] = o.problem("An error.")
	return responses
}

// statusOfZero asks the zero value of a response; one that cannot answer has none.
func statusOfZero(sc interface{ StatusCode() int }) (status int) {
	defer func() { _ = recover() }()
	return sc.StatusCode()
}

func (o *openAPI) problem(description string) map[string]any {
	return map[string]any{
		"description": description,
		"content":     o.content(transport.ProblemType, o.schema(reflect.TypeFor[transport.Problem]())),
	}
}

func (*openAPI) content(media string, schema any) map[string]any {
	return map[string]any{media: map[string]any{"schema": schema}}
}

// body is the schema of a request without what comes from elsewhere, which is why it
// is not a component where there is such.
func (o *openAPI) body(pl *plan) any {
	if pl.typ.Kind() != reflect.Struct || len(pl.params) == 0 {
		return o.schema(pl.typ)
	}
	return o.object(pl.typ, func(f reflect.StructField) bool { in, _ := tagOf(f); return in == "" })
}

// schema describes t as encoding/json writes it. Named structs become components.
func (o *openAPI) schema(t reflect.Type) any {
	if t.Kind() == reflect.Pointer {
		inner := o.schema(t.Elem())
		if m, ok := inner.(map[string]any); ok && len(m) == 1 && m["type"] != nil {
			if kind, ok := m["type"].(string); ok {
				return map[string]any{"type": []string{kind, "null"}}
			}
		}
		return map[string]any{"anyOf": []any{inner, map[string]any{"type": "null"}}}
	}
	if own, ok := reflect.New(t).Interface().(interface{ OpenAPISchema() map[string]any }); ok {
		return own.OpenAPISchema()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case implements[json.Marshaler](t):
		return map[string]any{} // anything: only the type knows
	case implements[encoding.TextMarshaler](t):
		return map[string]any{"type": "string"}
	}
	switch kind := t.Kind(); {
	case kind == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case kind == reflect.String:
		return map[string]any{"type": "string"}
	case kind >= reflect.Int && kind <= reflect.Int64:
		return map[string]any{"type": "integer", "format": "int" + strconv.Itoa(t.Bits())}
	case kind >= reflect.Uint && kind <= reflect.Uintptr:
		return map[string]any{"type": "integer", "minimum": 0}
	case kind == reflect.Float32 || kind == reflect.Float64:
		return map[string]any{"type": "number"}
	case kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return map[string]any{"type": "string", "contentEncoding": "base64"}
	case kind == reflect.Slice || kind == reflect.Array:
		return map[string]any{"type": "array", "items": o.schema(t.Elem())}
	case kind == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": o.schema(t.Elem())}
	case kind == reflect.Struct && t.Name() == "":
		return o.object(t, func(reflect.StructField) bool { return true })
	case kind == reflect.Struct:
		return o.component(t)
	default:
		return map[string]any{}
	}
}

// component refers to a schema by name: that of the type, with its package where two
// types share one.
func (o *openAPI) component(t reflect.Type) any {
	name := componentName(t.Name())
	if taken, ok := o.names[name]; ok && taken != t {
		name = componentName(path.Base(t.PkgPath()) + "." + t.Name())
		for i := 2; o.names[name] != nil && o.names[name] != t; i++ {
			name = componentName(path.Base(t.PkgPath()) + "." + t.Name() + "." + strconv.Itoa(i))
		}
	}
	if o.names[name] == nil {
		o.names[name] = t // before its fields, which may refer to it
		o.schemas[name] = o.object(t, func(reflect.StructField) bool { return true })
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// componentName keeps what OpenAPI allows; type arguments bring more.
func componentName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, name)
}

func (o *openAPI) object(t reflect.Type, keep func(reflect.StructField) bool) map[string]any {
	properties := map[string]any{}
	var required []string
	fields := fieldsOf(t)
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		typ, ok := fields[name]
		if !ok || !f.IsExported() || f.Tag.Get("json") == "-" || typ != nil && typ != f.Type || !keep(f) {
			continue
		}
		var schema any = map[string]any{"type": "string"} // the string option
		if typ != nil {
			schema = o.schema(typ)
		}
		if text := f.Tag.Get("doc"); text != "" {
			described := map[string]any{"description": text}
			if m, ok := schema.(map[string]any); ok {
				maps.Copy(described, m)
			}
			schema = described
		}
		properties[name] = schema
		optional := "," + options + ","
		if !strings.Contains(optional, ",omitempty,") && !strings.Contains(optional, ",omitzero,") && f.Type.Kind() != reflect.Pointer {
			required = append(required, name)
		}
	}
	object := map[string]any{"type": "object", "properties": properties}
	if slices.Sort(required); len(required) > 0 {
		object["required"] = required
	}
	return object
}

// renderAPI writes the description as a page of its own, with neither scripts nor
// anything from elsewhere.
func renderAPI(text []byte, source string) ([]byte, error) {
	var doc struct {
		Info struct {
			Title       string `json:"title"`
			Version     string `json:"version"`
			Description string `json:"description"`
		} `json:"info"`
		Paths map[string]map[string]struct {
			Summary     string `json:"summary"`
			Description string `json:"description"`
			Deprecated  bool   `json:"deprecated"`
			Parameters  []struct {
				Name        string          `json:"name"`
				In          string          `json:"in"`
				Description string          `json:"description"`
				Schema      json.RawMessage `json:"schema"`
			} `json:"parameters"`
			RequestBody json.RawMessage            `json:"requestBody"`
			Responses   map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("httpx: render API: %w", err)
	}
	var b strings.Builder
	e := html.EscapeString
	raw := func(title string, value json.RawMessage) {
		if len(value) == 0 {
			return
		}
		pretty, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			pretty = value
		}
		fmt.Fprintf(&b, "<details><summary>%s</summary><pre>%s</pre></details>\n", e(title), e(string(pretty)))
	}
	fmt.Fprintf(&b, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>%s</title>\n<style>%s</style>\n",
		e(doc.Info.Title), viewerStyle)
	fmt.Fprintf(&b, "<h1>%s <small>%s</small></h1>\n<p>%s</p>\n", e(doc.Info.Title), e(doc.Info.Version), e(doc.Info.Description))
	for _, p := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[p])) {
			op := doc.Paths[p][method]
			gone := ""
			if op.Deprecated {
				gone = " <em>deprecated</em>"
			}
			fmt.Fprintf(&b, "<section><h2><b class=\"%s\">%s</b> <code>%s</code>%s</h2>\n<p>%s</p>\n", e(method), e(strings.ToUpper(method)), e(p), gone, e(op.Summary))
			if op.Description != "" {
				fmt.Fprintf(&b, "<p>%s</p>\n", e(op.Description))
			}
			if len(op.Parameters) > 0 {
				b.WriteString("<table><tr><th>parameter<th>in<th>type<th></tr>\n")
				for _, q := range op.Parameters {
					fmt.Fprintf(&b, "<tr><td><code>%s</code><td>%s<td><code>%s</code><td>%s</tr>\n", e(q.Name), e(q.In), e(string(q.Schema)), e(q.Description))
				}
				b.WriteString("</table>\n")
			}
			raw("request body", op.RequestBody)
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				raw("answer "+status, op.Responses[status])
			}
			b.WriteString("</section>\n")
		}
	}
	if len(doc.Components.Schemas) > 0 {
		b.WriteString("<section><h2>Schemas</h2>\n")
		for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
			raw(name, doc.Components.Schemas[name])
		}
		b.WriteString("</section>\n")
	}
	fmt.Fprintf(&b, "<p><a href=\"%s\">openapi.json</a></p></html>\n", e(source))
	return []byte(b.String()), nil
}

const viewerStyle = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1 small{color:#57606a;font-weight:400}section{border-top:1px solid #d0d7de;padding:.5rem 0 1rem}h2{font-size:1.1rem}
h2 b{display:inline-block;min-width:4.5rem;text-align:center;border-radius:4px;color:#fff;background:#57606a;font-size:.85rem;padding:.15rem .3rem}
h2 .get{background:#0550ae}h2 .post{background:#116329}h2 .put,h2 .patch{background:#7d4e00}h2 .delete{background:#a40e26}
table{border-collapse:collapse}td,th{border:1px solid #d0d7de;padding:.2rem .6rem;text-align:left}pre{background:#f6f8fa;padding:.8rem;overflow:auto}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}a{color:#79c0ff}section,td,th{border-color:#30363d}}`
