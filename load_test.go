package armature_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature"
)

type database struct {
	URL      string `help:"where the data is"`
	Password string
	MaxConns uint8 `default:"8"`
}

type settings struct {
	armature.Settings
	DB       database
	Features []string
	Rate     float64       `default:"0.5"`
	Retries  int           `conf:"tries"`
	Verbose  bool          `help:"say more"`
	Card     string        `secret:"true"`
	Grace    time.Duration `default:"1s"`
	Internal func()        `conf:"-"`
	hidden   int
}

func origins(e *armature.Effective) map[string]string {
	out := map[string]string{}
	for _, v := range e.Values {
		out[v.Key] = v.Value + " <- " + v.Origin
	}
	return out
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "order.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigLaterSourcesWin(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"http_addr":":1","grpc_addr":":1","admin_addr":":1","db":{"url":"sqlite:a.db","max_conns":3},"features":["a","b"],"tries":4}`)
	cfg := settings{Retries: 2}
	cfg.AdvertiseHost = "preset"
	got, err := armature.LoadConfig(&cfg, armature.LoadOptions{
		Name: "web-shop", File: file,
		Env: []string{
			"ARMATURE_GRPC_ADDR=:2", "ARMATURE_ADMIN_ADDR=:2", "WEB_SHOP_ADMIN_ADDR=:3",
			"WEB_SHOP_DB_MAX_CONNS=5", "WEB_SHOP_LOG_LEVEL=warn", "ARMATURE_DRAIN_DELAY=5s", "OTHER_HTTP_ADDR=:9", "noequals",
		},
		Args: []string{"-db-max-conns", "7", "-verbose", "-grace=2s", "rest"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"http_addr":        ":1 <- file " + file,
		"grpc_addr":        ":2 <- env ARMATURE_GRPC_ADDR",
		"admin_addr":       ":3 <- env WEB_SHOP_ADMIN_ADDR",
		"advertise_host":   "preset <- default",
		"environment":      "development <- default",
		"log_level":        "WARN <- env WEB_SHOP_LOG_LEVEL",
		"drain_delay":      "5s <- env ARMATURE_DRAIN_DELAY",
		"shutdown_timeout": "10s <- default",
		"start_timeout":    "30s <- default",
		"db.url":           "sqlite:a.db <- file " + file,
		"db.password":      " <- default",
		"db.max_conns":     "7 <- flag -db-max-conns",
		"features":         "a,b <- file " + file,
		"rate":             "0.5 <- default",
		"tries":            "4 <- file " + file,
		"verbose":          "true <- flag -verbose",
		"card":             " <- default",
		"grace":            "2s <- flag -grace",
	}
	if diff := cmp.Diff(want, origins(got)); diff != "" {
		t.Errorf("effective values (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"rest"}, got.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if cfg.DB.MaxConns != 7 || cfg.LogLevel != slog.LevelWarn || cfg.Grace != 2*time.Second || !cfg.Verbose || len(cfg.Features) != 2 {
		t.Errorf("struct was filled with %+v", cfg)
	}
}

func TestLoadConfigNamesEveryMistake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		file string
		opts armature.LoadOptions
		want []string
		not  string
	}{
		{name: "unknown key of the file", file: `{"htp_addr":":1"}`, want: []string{"htp_addr is no setting", "http_addr"}},
		{name: "unknown nested key", file: `{"db":{"uri":"x"}}`, want: []string{"db.uri is no setting"}},
		{name: "an object where text belongs", file: `{"grace":{}}`, want: []string{"grace: must be a string"}},
		{name: "not JSON", file: `http_addr: 1`, want: []string{"is not a JSON object"}},
		{name: "two objects", file: `{}{}`, want: []string{"something follows"}},
		{name: "all mistakes at once", opts: armature.LoadOptions{Env: []string{"ARMATURE_GRACE=soon", "ARMATURE_TRIES=-x", "ARMATURE_DB_MAX_CONNS=300"}},
			want: []string{`env ARMATURE_GRACE: grace = "soon": must be a duration`, `tries = "-x": must be a whole number`, `db.max_conns = "300": must be a whole number of 8 bits, not negative`}},
		{name: "level", opts: armature.LoadOptions{Env: []string{"ARMATURE_LOG_LEVEL=loud"}}, want: []string{"log_level", "loud"}},
		{name: "flag", opts: armature.LoadOptions{Args: []string{"-verbose=perhaps"}}, want: []string{`flag -verbose: verbose = "perhaps": must be true or false`}},
		{name: "unknown flag", opts: armature.LoadOptions{Args: []string{"-colour"}}, want: []string{"-colour"}},
		{name: "missing file", opts: armature.LoadOptions{File: "/does/not/exist.json"}, want: []string{"/does/not/exist.json"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.opts.Env == nil {
				tt.opts.Env = []string{}
			}
			if tt.file != "" {
				tt.opts.File = writeFile(t, tt.file)
			}
			_, err := armature.LoadConfig(&settings{}, tt.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
		})
	}
}

func TestLoadConfigHidesSecrets(t *testing.T) {
	t.Parallel()
	got, err := armature.LoadConfig(&settings{}, armature.LoadOptions{Env: []string{
		"ARMATURE_DB_PASSWORD=hunter2", "ARMATURE_CARD=hunter2", "ARMATURE_DB_URL=postgres://shop:hunter2@db/order",
		"ARMATURE_FEATURES=a,amqp://u:hunter2@mq",
	}})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(got.Values)
	if strings.Contains(text, "hunter2") {
		t.Errorf("a secret shows: %s", text)
	}
	if !strings.Contains(text, "postgres://shop:xxxxx@db/order") {
		t.Errorf("the URL is gone, not only its password: %s", text)
	}

	type numeric struct {
		Token int
	}
	_, err = armature.LoadConfig(&numeric{}, armature.LoadOptions{Env: []string{"ARMATURE_TOKEN=hunter2"}})
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "token") {
		t.Errorf("error %v must name the setting and not the secret", err)
	}
}

type picky struct{ Port int }

func (p *picky) Validate() error {
	if p.Port == 0 {
		return errors.New("port = 0: must be set")
	}
	return nil
}

func TestLoadConfigAsksValidate(t *testing.T) {
	t.Parallel()
	if _, err := armature.LoadConfig(&picky{}, armature.LoadOptions{Env: []string{}}); err == nil || !strings.Contains(err.Error(), "port = 0: must be set") {
		t.Errorf("error = %v, want Validate's", err)
	}
	if _, err := armature.LoadConfig(&picky{}, armature.LoadOptions{Env: []string{"ARMATURE_PORT=1"}}); err != nil {
		t.Error(err)
	}
}

func TestLoadConfigRefusesWhatItCannotFill(t *testing.T) {
	t.Parallel()
	var bad struct{ Hook func() }
	var twice struct {
		A string `conf:"x"`
		B string `conf:"x"`
	}
	for name, dst := range map[string]any{"a value": settings{}, "nil": nil, "a function": &bad, "a name twice": &twice} {
		if _, err := armature.LoadConfig(dst, armature.LoadOptions{Env: []string{}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLoadConfigHelp(t *testing.T) {
	t.Parallel()
	var usage strings.Builder
	_, err := armature.LoadConfig(&settings{}, armature.LoadOptions{Name: "order", Env: []string{}, Args: []string{"-h"}, Output: &usage})
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error = %v, want flag.ErrHelp", err)
	}
	for _, want := range []string{"-db-url", "where the data is (env ORDER_DB_URL)", "-config file"} {
		if !strings.Contains(usage.String(), want) {
			t.Errorf("usage does not mention %q:\n%s", want, usage.String())
		}
	}
}

func ExampleLoadConfig() {
	var cfg struct {
		armature.Settings
		DBURL string `help:"database of the service"`
	}
	effective, err := armature.LoadConfig(&cfg, armature.LoadOptions{
		Name: "order",
		Env:  []string{"ARMATURE_LOG_LEVEL=DEBUG", "ORDER_DBURL=postgres://order:secret@db/order"},
		Args: []string{"-http-addr", ":8080"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range effective.Values {
		if v.Origin != "default" {
			fmt.Printf("%s = %s (%s)\n", v.Key, v.Value, v.Origin)
		}
	}
	// Output:
	// http_addr = :8080 (flag -http-addr)
	// log_level = DEBUG (env ARMATURE_LOG_LEVEL)
	// dburl = postgres://order:xxxxx@db/order (env ORDER_DBURL)
}

// Whatever is in a file, loading it ends in a value or an error that names it.
func FuzzLoadConfigFile(f *testing.F) {
	for _, seed := range []string{`{}`, `{"http_addr":":1"}`, `{"db":{"url":1}}`, `{"features":["a"]}`, `{"grace":1e99}`, `[`, `{"db":null}`} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := settings{hidden: 1}
		e, err := armature.LoadConfig(&cfg, armature.LoadOptions{File: path, Env: []string{}})
		if (e == nil) == (err == nil) {
			t.Fatalf("got %v and %v", e, err)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("error %q does not name the file", err)
		}
		if cfg.hidden != 1 {
			t.Error("an unexported field was touched")
		}
	})
}
