package armature_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature"
)

// endpoint is a setting that reads itself, and whose errors quote what they read.
type endpoint struct{ url.URL }

func (e *endpoint) UnmarshalText(text []byte) error {
	u, err := url.Parse(string(text))
	if err != nil {
		return err
	}
	if u.Port() == "0" {
		return fmt.Errorf("%s has no port", text)
	}
	e.URL = *u
	return nil
}

type secretive struct {
	armature.Settings
	DB struct {
		URL      string
		DSN      string
		Password string
	} `conf:"db"`
	Brokers   []string
	Hosts     string
	Queue     string
	Callback  string
	Endpoint  endpoint
	APIKey    string
	PIN       int    `secret:"true"`
	Signature string `secret:"true" reload:"true"`
}

// canary is in every secret of these tests, and must be in nothing that is written.
const canary = "hunter2"

func clean(t *testing.T, where, text string) {
	t.Helper()
	if strings.Contains(text, canary) {
		t.Errorf("%s shows a secret: %s", where, text)
	}
}

var secretEnv = []string{
	"ARMATURE_DB_URL=postgres://shop:hunter2@db/order?sslpassword=hunter2&sslmode=off",
	"ARMATURE_DB_DSN=shop:hunter2@tcp(db:3306)/order",
	"ARMATURE_DB_PASSWORD=hunter2",
	"ARMATURE_BROKERS=amqp://u:hunter2@a,amqp://u:hunter2@b",
	"ARMATURE_HOSTS=nats://u:hunter2@a:1,nats://u:hunter2@b:2",
	"ARMATURE_QUEUE=host=mq user=shop password='hunter2 hunter2' sslmode=disable",
	"ARMATURE_CALLBACK=https://shop.example/hook?access_token=hunter2",
	"ARMATURE_API_KEY=hunter2", "ARMATURE_SIGNATURE=hunter2",
}

func TestNothingOfTheServiceShowsASecret(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"signature":"hunter2","db":{"password":"hunter2"}}`)
	l, err := armature.LoadLive(secretive{}, armature.LiveOptions{LoadOptions: armature.LoadOptions{
		File: file, Env: secretEnv[:len(secretEnv)-1], Args: []string{"-api-key", canary, "positional-" + canary},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if l.Get().APIKey != canary || !strings.Contains(l.Get().Queue, canary) {
		t.Fatalf("the secrets did not arrive: %+v", l.Get())
	}
	var log strings.Builder
	svc := full(t, func(c *armature.Config) { c.LogWriter = &log })
	svc.Follow(l)
	svc.Check("database", func(context.Context) error { return nil })
	failing := make(chan struct{}) // closed once the service is ready
	svc.Check("broker", func(context.Context) error {
		select {
		case <-failing:
			return errors.New("dial amqp://u:hunter2@mq: password=hunter2 refused")
		default:
			return nil
		}
	})
	ran, runs := make(chan struct{}), 0
	svc.Every("sweep", 20*time.Millisecond, func(ctx context.Context) error {
		defer func() {
			select {
			case ran <- struct{}{}:
			case <-ctx.Done():
			}
		}()
		if runs++; runs%2 == 0 {
			panic(errors.New("token=hunter2"))
		}
		return errors.New(`connect "postgres://u:hunter2@db": refused`)
	})
	err = running(t, svc, func(stop func()) {
		defer stop()
		close(failing)
		for range 3 {
			<-ran
		}
		for { // a report is a second old at most
			if code, _ := get(t, client(t), "http://"+svc.AdminAddr()+"/ready"); code == http.StatusServiceUnavailable {
				break
			}
		}
		for _, path := range append(operatorPages, "/debug/pprof/cmdline") {
			_, body := get(t, client(t), "http://"+svc.AdminAddr()+path)
			if !strings.HasPrefix(path, "/debug/pprof/heap") {
				clean(t, "GET "+path, body)
			}
		}
		for _, content := range []string{
			`{"signature":"hunter2-b"}`,
			`{"signature":"hunter2","db":{"url":"postgres://u:hunter2@other/x"}}`,
			`{"signature":"hunter2","endpoint":"http://u:hunter2@h:0"}`,
			`{"pin":"hunter2"}`,
			`{"signature":{"a":"hunter2"}}`,
			`{"signature":"hunter2"`,
		} {
			rewrite(t, file, content)
			changes, err := l.Reload(t.Context())
			clean(t, "Reload", fmt.Sprint(changes, err))
		}
	})
	if err != nil {
		t.Error(err)
	}
	clean(t, "the effective configuration", fmt.Sprintf("%+v", l.Effective().Values))
	clean(t, "the log", log.String())
	if !strings.Contains(log.String(), "job panicked") || !strings.Contains(log.String(), "a check fails") {
		t.Errorf("what was to be logged was not:\n%s", log.String())
	}
}

func TestMistakesInSecretsDoNotShowThem(t *testing.T) {
	t.Parallel()
	for _, kv := range []string{
		"ARMATURE_PIN=hunter2", "ARMATURE_ENDPOINT=http://u:hunter2@h:0", "ARMATURE_ENDPOINT=http://u:hunter2@h:notaport/",
		"ARMATURE_DRAIN_DELAY=postgres://u:hunter2@db", "ARMATURE_LOG_LEVEL=password=hunter2",
	} {
		_, err := armature.LoadConfig(&secretive{}, armature.LoadOptions{Env: append([]string{kv}, secretEnv...)})
		if err == nil {
			t.Errorf("%s: no error", kv)
			continue
		}
		clean(t, kv, err.Error())
		key, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(kv, "ARMATURE_")), "=")
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s: error %q does not name the setting", kv, err)
		}
	}
}

func TestRedactLeavesTheRest(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                        "",
		"info@shop.example":                       "info@shop.example",
		"127.0.0.1:8080":                          "127.0.0.1:8080",
		"sqlite:order.db":                         "sqlite:order.db",
		"a, b":                                    "a, b",
		"https://shop.example/a?b=c":              "https://shop.example/a?b=c",
		"postgres://shop@db/order?sslmode=off":    "postgres://shop@db/order?sslmode=off",
		"postgres://shop:hunter2@db/order":        "postgres://shop:xxxxx@db/order",
		"shop:hunter2@tcp(db:3306)/order":         "shop:xxxxx@tcp(db:3306)/order",
		"host=db password=hunter2 port=1":         "host=db password=xxxxx port=1",
		"nats://u:hunter2@a:1,nats://u:hunter2@b": "nats://u:xxxxx@a:1,nats://u:xxxxx@b",
		"postgres://u:hun/ter2@db":                armature.RedactedValue,
	} {
		if got := armature.Redact(text); got != want {
			t.Errorf("redact(%q) = %q, want %q", text, got, want)
		}
	}
}

// What replaces a password is the same each time, and what is clean stays as it is.
func FuzzRedact(f *testing.F) {
	for _, kv := range secretEnv {
		_, value, _ := strings.Cut(kv, "=")
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := armature.Scrub(text)
		if twice := armature.Scrub(once); twice != once {
			t.Errorf("scrub(%q) = %q, and again %q", text, once, twice)
		}
		password := "postgres://u:" + canary + "@db/x"
		if got := armature.Scrub(text + " " + password); strings.Contains(strings.TrimPrefix(got, text), canary) && !strings.Contains(text, canary) {
			t.Errorf("scrub(%q) = %q", text+" "+password, got)
		}
	})
}
