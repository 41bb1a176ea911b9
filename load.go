package armature

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// RedactedValue stands in [Value.Value] for a secret.
const RedactedValue = "[REDACTED]"

// Settings is the part of [Config] that a machine decides, as a struct for
// [LoadConfig]. Embed it in the program's own settings.
type Settings struct {
	HTTPAddr        string        `help:"address of the HTTP server"`
	GRPCAddr        string        `help:"address of the gRPC server"`
	AdminAddr       string        `help:"address of the operator's pages; empty mounts /health, /ready and /metrics on HTTP"`
	AdvertiseHost   string        `help:"host that others reach this service by"`
	Environment     string        `default:"development" help:"name of the deployment, on every log line and span"`
	LogLevel        slog.Level    `default:"INFO" reload:"true" help:"lowest level logged: DEBUG, INFO, WARN or ERROR"`
	DrainDelay      time.Duration `default:"0s" help:"time still served after readiness went off; 5s under Kubernetes"`
	ShutdownTimeout time.Duration `default:"10s" help:"bound on finishing requests, on ending workers and on hooks, each"`
	StartTimeout    time.Duration `default:"30s" help:"bound on the first passing of all checks"`
}

// Apply copies the settings to cfg and returns it.
func (s Settings) Apply(cfg Config) Config {
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.AdminAddr = s.HTTPAddr, s.GRPCAddr, s.AdminAddr
	cfg.AdvertiseHost, cfg.Environment, cfg.LogLevel = s.AdvertiseHost, s.Environment, s.LogLevel
	cfg.DrainDelay, cfg.ShutdownTimeout, cfg.StartTimeout = s.DrainDelay, s.ShutdownTimeout, s.StartTimeout
	return cfg
}

// LoadOptions says where [LoadConfig] reads. The zero value reads the
// environment only.
type LoadOptions struct {
	// Name is the service's name. NAME_HTTP_ADDR in the environment wins over
	// ARMATURE_HTTP_ADDR, which speaks to every service of a machine.
	Name string
	// File is a JSON file; "" means NAME_CONFIG or ARMATURE_CONFIG in the
	// environment, or the flag -config where Args is given, and none otherwise.
	File string
	// Env is a list of KEY=VALUE. Nil means os.Environ().
	Env []string
	// Args are the flags, without the program's name. Nil reads no flags.
	Args []string
	// Output receives the usage for -h and for a mistake in Args. Nil is silent.
	Output io.Writer
}

// Value is one setting after loading.
type Value struct {
	Key    string `json:"key"`    // "http_addr", or "db.url" within a nested struct
	Value  string `json:"value"`  // readable form; secrets redacted
	Origin string `json:"origin"` // "default", "file order.json", "env ORDER_HTTP_ADDR", "flag -http-addr"
	Help   string `json:"help,omitempty"`
	Reload bool   `json:"reload,omitempty"` // may change while the program runs, see [Live]
}

// Effective is what [LoadConfig] decided.
type Effective struct {
	Values []Value  `json:"values"`         // in the order of the struct's fields
	Args   []string `json:"args,omitempty"` // what followed the flags
}

// LoadConfig fills the struct dst points to: defaults, then a JSON file, then
// the environment, then flags, the later winning. It returns where each value
// came from.
//
// Every exported field is a setting named by its snake-case name, or by the tag
// `conf:"name"`; `conf:"-"` leaves it out. Nested structs prefix their names
// ("db.url", DB_URL, -db-url), embedded ones do not. A value that is in dst
// already is its default, the tag `default:"…"` serves where it is zero.
// `help:"…"` is the usage text, `secret:"true"` redacts the value; passwords in
// URLs and fields named like secrets are redacted without being asked.
// `reload:"true"` lets a [Live] configuration change the field later.
//
// Fields may be strings, booleans, numbers, time.Duration ("1m30s"), []string
// (comma separated) and anything that implements encoding.TextUnmarshaler.
//
// Unknown keys of the file and unknown flags are errors; every mistake is
// reported, not only the first, each with its origin. When dst has a method
// Validate() error it is asked last. On error dst may be half filled. A request
// for help (-h) is [flag.ErrHelp].
func LoadConfig(dst any, opts LoadOptions) (*Effective, error) {
	l, err := load(dst, opts)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, flag.ErrHelp
	case err != nil:
		return nil, fmt.Errorf("armature: load config: %w", err)
	}
	return l.effective(), nil
}

// load fills dst and returns what it learnt on the way, also with an error about
// the content of the sources.
func load(dst any, opts LoadOptions) (*loader, error) {
	l := &loader{opts: opts, env: map[string]string{}, byKey: map[string]*setting{}}
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return l, fmt.Errorf("destination is a %T, not a pointer to a struct", dst)
	}
	if err := l.collect(v.Elem(), ""); err != nil {
		return l, err
	}
	environ := opts.Env
	if environ == nil {
		environ = os.Environ()
	}
	for _, kv := range environ {
		if k, val, ok := strings.Cut(kv, "="); ok {
			l.env[k] = val
		}
	}
	if err := l.load(); err != nil {
		return l, err
	}
	if c, ok := dst.(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			return l, err
		}
	}
	return l, nil
}

type setting struct {
	key, help string
	secret    bool
	reload    bool
	field     reflect.Value
	origin    string
}

type loader struct {
	opts     LoadOptions
	env      map[string]string
	settings []*setting
	byKey    map[string]*setting
	rest     []string
	file     string // what was read, "" without a file
	content  digest // of file
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// collect lists the settings of a struct and applies their defaults.
func (l *loader) collect(v reflect.Value, prefix string) error {
	for i := range v.NumField() {
		sf, fv := v.Type().Field(i), v.Field(i)
		name := sf.Tag.Get("conf")
		if name == "-" || !sf.IsExported() {
			continue
		}
		if name == "" {
			name = snake(sf.Name)
		}
		key := prefix + name
		if fv.Kind() == reflect.Struct && !reflect.PointerTo(fv.Type()).Implements(textUnmarshaler) {
			nested := key + "."
			if sf.Anonymous {
				nested = prefix
			}
			if err := l.collect(fv, nested); err != nil {
				return err
			}
			continue
		}
		if !settable(fv) {
			return fmt.Errorf("field %s has the type %s, which cannot be read from text; tag it `conf:\"-\"`", sf.Name, sf.Type)
		}
		if _, taken := l.byKey[key]; taken {
			return fmt.Errorf("two fields are called %q; rename one with `conf:\"…\"`", key)
		}
		s := &setting{
			key: key, help: sf.Tag.Get("help"), field: fv, origin: "default",
			secret: sf.Tag.Get("secret") == "true" || secretName.MatchString(key),
			reload: sf.Tag.Get("reload") == "true",
		}
		if def, ok := sf.Tag.Lookup("default"); ok && fv.IsZero() {
			if err := s.set(def, "default"); err != nil {
				return err
			}
		}
		l.settings = append(l.settings, s)
		l.byKey[key] = s
	}
	return nil
}

func (l *loader) load() error {
	flags, file, given, err := l.parseFlags()
	if err != nil {
		return err
	}
	if path := cmp.Or(file, l.opts.File, l.env[l.envName("config")], l.env["ARMATURE_CONFIG"]); path != "" {
		if err := l.readFile(path); err != nil {
			return err
		}
	}
	var errs []error
	for _, s := range l.settings {
		for _, name := range []string{"ARMATURE_" + envCase(s.key), l.envName(s.key)} {
			if val, ok := l.env[name]; ok && name != "" {
				errs = append(errs, s.set(val, "env "+name))
			}
		}
		if val, ok := flags[s.key]; ok && given[s.key] {
			errs = append(errs, s.set(*val, "flag -"+flagCase(s.key)))
		}
	}
	return errors.Join(errs...)
}

// parseFlags reads Args as text; values are converted when their turn comes.
func (l *loader) parseFlags() (values map[string]*string, file string, given map[string]bool, err error) {
	if l.opts.Args == nil {
		return nil, "", nil, nil
	}
	fs := flag.NewFlagSet(cmp.Or(l.opts.Name, "service"), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if l.opts.Output != nil {
		fs.SetOutput(l.opts.Output)
	}
	values, given = map[string]*string{}, map[string]bool{}
	if _, taken := l.byKey["config"]; !taken {
		fs.StringVar(&file, "config", "", "JSON `file` with settings")
	}
	for _, s := range l.settings {
		val := new(string)
		values[s.key] = val
		usage := fmt.Sprintf("%s (env %s)", s.help, cmp.Or(l.envName(s.key), "ARMATURE_"+envCase(s.key)))
		set := func(text string) error {
			*val, given[s.key] = text, true
			return nil
		}
		if s.field.Kind() == reflect.Bool {
			fs.BoolFunc(flagCase(s.key), usage, set)
		} else {
			fs.Func(flagCase(s.key), usage, set)
		}
	}
	if err := fs.Parse(l.opts.Args); err != nil {
		return nil, "", nil, err
	}
	l.rest = fs.Args()
	return values, file, given, nil
}

func (l *loader) readFile(path string) error {
	data, err := os.ReadFile(path)
	l.file, l.content = path, digestOf(data, err)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var tree map[string]any
	if err := dec.Decode(&tree); err != nil {
		return fmt.Errorf("file %s: is not a JSON object: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("file %s: something follows the JSON object", path)
	}
	return errors.Join(l.apply(tree, "", "file "+path)...)
}

func (l *loader) apply(tree map[string]any, prefix, origin string) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		key, val := prefix+name, tree[name]
		s, known := l.byKey[key]
		sub, isTree := val.(map[string]any)
		switch {
		case known:
			text, err := jsonText(val)
			if err == nil {
				err = s.set(text, origin)
			} else {
				err = fmt.Errorf("%s: %s: %w", origin, key, err)
			}
			errs = append(errs, err)
		case isTree && l.hasPrefix(key+"."):
			errs = append(errs, l.apply(sub, key+".", origin)...)
		default:
			errs = append(errs, fmt.Errorf("%s: %s is no setting; there are %s", origin, key, strings.Join(l.keys(), ", ")))
		}
	}
	return errs
}

func (l *loader) effective() *Effective {
	e := &Effective{Args: l.rest}
	for _, s := range l.settings {
		e.Values = append(e.Values, Value{Key: s.key, Value: s.text(), Origin: s.origin, Help: s.help, Reload: s.reload})
	}
	return e
}

func (l *loader) keys() []string {
	keys := make([]string, len(l.settings))
	for i, s := range l.settings {
		keys[i] = s.key
	}
	return keys
}

func (l *loader) hasPrefix(prefix string) bool {
	return slices.ContainsFunc(l.settings, func(s *setting) bool { return strings.HasPrefix(s.key, prefix) })
}

// envName is the service's own name of a setting, "" for a service without name.
func (l *loader) envName(key string) string {
	if l.opts.Name == "" {
		return ""
	}
	return envCase(l.opts.Name) + "_" + envCase(key)
}

// set converts text; the error names the setting, its origin, the value unless
// that is secret, and the rule.
func (s *setting) set(text, origin string) error {
	rule := ""
	switch v := s.field; {
	case v.Addr().Type().Implements(textUnmarshaler):
		u, _ := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
		if err := u.UnmarshalText([]byte(text)); err != nil {
			rule = err.Error()
		}
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			rule = "must be a duration such as 500ms or 1m30s"
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			rule = "must be true or false"
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			rule = fmt.Sprintf("must be a whole number of %d bits", v.Type().Bits())
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			rule = fmt.Sprintf("must be a whole number of %d bits, not negative", v.Type().Bits())
		}
		v.SetUint(n)
	case v.CanFloat():
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			rule = "must be a number"
		}
		v.SetFloat(f)
	default: // []string, see settable
		v.SetZero()
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				v.Set(reflect.Append(v, reflect.ValueOf(part).Convert(v.Type().Elem())))
			}
		}
	}
	if rule != "" {
		shown := strconv.Quote(text)
		if hidden := redact(text); s.secret || hidden != text {
			shown, rule = RedactedValue, "cannot be read as "+s.field.Type().String() // rule may quote the text
		}
		return fmt.Errorf("%s: %s = %s: %s", origin, s.key, shown, rule)
	}
	s.origin = origin
	return nil
}

func (s *setting) text() string {
	if s.secret {
		if s.field.IsZero() {
			return ""
		}
		return RedactedValue
	}
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](s.field.Addr()); ok {
		if b, err := m.MarshalText(); err == nil {
			return redact(string(b))
		}
	}
	if s.field.Kind() == reflect.Slice {
		parts := make([]string, s.field.Len())
		for i := range parts {
			parts[i] = redact(s.field.Index(i).String())
		}
		return strings.Join(parts, ",")
	}
	return redact(fmt.Sprint(s.field.Interface()))
}

func settable(v reflect.Value) bool {
	return reflect.PointerTo(v.Type()).Implements(textUnmarshaler) ||
		v.Kind() == reflect.String || v.Kind() == reflect.Bool ||
		v.CanInt() || v.CanUint() || v.CanFloat() ||
		v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String
}

func jsonText(val any) (string, error) {
	switch val := val.(type) {
	case string:
		return val, nil
	case bool:
		return strconv.FormatBool(val), nil
	case json.Number:
		return val.String(), nil
	case []any:
		parts := make([]string, len(val))
		for i, item := range val {
			s, ok := item.(string)
			if !ok || strings.Contains(s, ",") {
				return "", errors.New("must be a list of strings without commas")
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("must be a string, a number, true, false or a list of strings")
}

// snake turns HTTPAddr into http_addr.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 &&
			(!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func envCase(key string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

func flagCase(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }
