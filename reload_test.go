package armature_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature"
)

type liveSettings struct {
	armature.Settings
	Limit    int           `default:"10" reload:"true"`
	Pause    time.Duration `reload:"true"`
	Features []string      `reload:"true"`
	DBURL    string        `reload:"true"`
	Password string        `reload:"true"`
}

func (s *liveSettings) Validate() error {
	if s.Limit < 0 {
		return errors.New("limit: must not be negative")
	}
	return nil
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func live(t *testing.T, file string) *armature.Live[liveSettings] {
	t.Helper()
	l, err := armature.LoadLive(liveSettings{Pause: time.Second}, armature.LiveOptions{
		LoadOptions: armature.LoadOptions{File: file, Env: []string{"ARMATURE_FEATURES=a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestReloadTellsWhatChanged(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"limit":1,"password":"hunter2","dburl":"postgres://u:hunter2@db/a"}`)
	l := live(t, file)
	before := l.Get()
	var told []armature.Change
	l.OnChange(func(now *liveSettings, changes []armature.Change) {
		if now != l.Get() {
			t.Errorf("told of %+v, want the struct in force", now)
		}
		told = changes
	})
	rewrite(t, file, `{"limit":2,"password":"hunter3","dburl":"postgres://u:hunter2@db/b","features":["b"]}`)
	changes, err := l.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []armature.Change{
		{Key: "limit", Old: "1", New: "2", Origin: "file " + file},
		{Key: "dburl", Old: "postgres://u:xxxxx@db/a", New: "postgres://u:xxxxx@db/b", Origin: "file " + file},
		{Key: "password", Old: armature.RedactedValue, New: armature.RedactedValue, Origin: "file " + file},
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if before.Limit != 1 || l.Get().Password != "hunter3" || l.Get().Pause != time.Second {
		t.Errorf("before %+v, now %+v", before, l.Get())
	}

	// A setting that left the file is its default again.
	rewrite(t, file, `{}`)
	if _, err := l.Reload(t.Context()); err != nil || l.Get().Limit != 10 {
		t.Errorf("limit is %d after it left the file (%v), want its default 10", l.Get().Limit, err)
	}
	if changes, err := l.Reload(t.Context()); err != nil || changes != nil {
		t.Errorf("Reload of the same = %v, %v, want nothing", changes, err)
	}
}

func TestReloadIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, content string
		want          []string
		restart       bool
	}{
		{name: "a setting of the start", content: `{"limit":2,"http_addr":":2","drain_delay":"1s"}`, restart: true,
			want: []string{`http_addr: ":1" to ":2": cannot change while the program runs`, `drain_delay: "0s" to "1s"`}},
		{name: "a wrong value", content: `{"limit":2,"http_addr":":1","pause":"soon"}`, want: []string{"pause", "soon"}},
		{name: "what Validate refuses", content: `{"http_addr":":1","pause":"2s","limit":-1}`, want: []string{"limit: must not be negative"}},
		{name: "half a file", content: `{"limit":2`, want: []string{"is not a JSON object"}},
		{name: "unknown key", content: `{"limit":2,"limmit":3}`, want: []string{"limmit is no setting"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, `{"limit":1,"http_addr":":1"}`)
			l := live(t, file)
			l.OnChange(func(*liveSettings, []armature.Change) { t.Error("told of a change that was refused") })
			before, shown := l.Get(), l.Effective()
			rewrite(t, file, tt.content)
			changes, err := l.Reload(t.Context())
			if err == nil || changes != nil {
				t.Fatalf("Reload = %v, %v, want an error alone", changes, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if errors.Is(err, armature.ErrRestartNeeded) != tt.restart {
				t.Errorf("error %v: is it ErrRestartNeeded? want %v", err, tt.restart)
			}
			if l.Get() != before || before.Limit != 1 {
				t.Errorf("in force is %+v, want the one before", l.Get())
			}
			if diff := cmp.Diff(shown, l.Effective()); diff != "" {
				t.Errorf("effective values changed:\n%s", diff)
			}
		})
	}
}

func TestReloadSurvivesAPanickingListener(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"limit":1}`)
	l := live(t, file)
	second := false
	l.OnChange(func(*liveSettings, []armature.Change) { panic("boom") })
	l.OnChange(func(*liveSettings, []armature.Change) { second = true })
	rewrite(t, file, `{"limit":2}`)
	changes, err := l.Reload(t.Context())
	if len(changes) != 1 || err == nil || !strings.Contains(err.Error(), "boom") || !second || l.Get().Limit != 2 {
		t.Errorf("Reload = %v, %v, second told %v, limit %d", changes, err, second, l.Get().Limit)
	}
}

// Each reload sets two settings to one number; a reader that sees two different
// ones, or a listener out of order, has seen half a configuration.
func TestReadersSeeWholeConfigurations(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"limit":0,"pause":"0s"}`)
	l := live(t, file)
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if c := l.Get(); int64(c.Limit) != int64(c.Pause) {
					t.Errorf("limit %d beside pause %d", c.Limit, c.Pause)
					return
				}
			}
		})
	}
	var last *liveSettings
	l.OnChange(func(now *liveSettings, _ []armature.Change) { last = now }) // guarded by the order of reloads
	for range 2 {
		writers.Go(func() {
			for n := range 50 {
				tmp := filepath.Join(t.TempDir(), "new")
				if err := os.WriteFile(tmp, fmt.Appendf(nil, `{"limit":%d,"pause":"%dns"}`, n, n), 0o600); err != nil {
					t.Error(err)
				}
				if err := os.Rename(tmp, file); err != nil {
					t.Error(err)
				}
				if _, err := l.Reload(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if last != l.Get() {
		t.Error("who listens was told of another configuration last than the one in force")
	}
}

func TestReloadWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"limit":1}`)
	l := live(t, file)
	l.OnChange(func(*liveSettings, []armature.Change) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Reload(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Reload within a reload = %v, want its context's error", err)
		}
	})
	rewrite(t, file, `{"limit":2}`)
	if _, err := l.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

// outsideBubbles starts the runtime's signal loop, which would otherwise belong to
// the first bubble that asks for a signal and keep it from ending.
var outsideBubbles = sync.OnceFunc(func() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	signal.Stop(c)
})

func TestServiceFollowsTheFile(t *testing.T) {
	t.Parallel()
	outsideBubbles()
	file := writeFile(t, `{"limit":1}`)
	synctest.Test(t, func(t *testing.T) {
		l := live(t, file)
		var out strings.Builder
		svc := bare(t, func(c *armature.Config) {
			*c = l.Get().Apply(*c)
			c.LogWriter = &out
		})
		svc.Follow(l)
		err := running(t, svc, func(stop func()) {
			defer stop()
			svc.Logger.Debug("too early")
			rewrite(t, file, `{"limit":2,"log_level":"DEBUG"}`)
			time.Sleep(armature.DefaultReloadInterval + time.Second)
			svc.Logger.Debug("in time")
			if l.Get().Limit != 2 {
				t.Errorf("limit is %d after the interval, want 2", l.Get().Limit)
			}
			rewrite(t, file, `{"limit":3,"http_addr":":1"}`)
			time.Sleep(time.Minute) // many looks, one line
			rewrite(t, file, `{"limit":4,"log_level":"DEBUG"}`)
			time.Sleep(time.Minute)
			if l.Get().Limit != 4 {
				t.Errorf("limit is %d after the file was repaired, want 4", l.Get().Limit)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		})
		if err != nil {
			t.Error(err)
		}
		text := out.String()
		for want, times := range map[string]int{
			`"too early"`: 0, `"in time"`: 1, `"setting":"limit","old":"1","new":"2"`: 1, `"new":"DEBUG"`: 1, `"old":"2","new":"4"`: 1,
			"configuration refused": 2, "cannot change while the program runs; restart it": 1, "no such file": 1,
		} {
			if got := strings.Count(text, want); got != times {
				t.Errorf("%s is %d times in the log, want %d", want, got, times)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	})
}

func TestSIGHUPReloads(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"limit":1}`)
	cmd, out, _, _ := start(t, "reload", "ARMATURE_CONFIG="+file)
	rewrite(t, file, `{"limit":2}`)
	said := make(chan string)
	go func() {
		line, _ := out.ReadString('\n')
		said <- line
	}()
	again := time.NewTicker(20 * time.Millisecond) // the watch may not have begun
	defer again.Stop()
	for line := ""; line == ""; {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case line = <-said:
			if line != "limit from 1 to 2\n" {
				t.Fatalf("the child said %q", line)
			}
		case <-again.C:
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child ended with %v", err)
	}
}

func TestLoadLiveRefuses(t *testing.T) {
	t.Parallel()
	if _, err := armature.LoadLive(liveSettings{}, armature.LiveOptions{Interval: -1}); err == nil || !strings.Contains(err.Error(), "Interval = -1ns") {
		t.Errorf("error = %v", err)
	}
	if _, err := armature.LoadLive(7, armature.LiveOptions{}); err == nil {
		t.Error("a number was accepted as a struct")
	}
}

func ExampleLoadLive() {
	type limits struct {
		MaxOrders int `default:"100" reload:"true"`
	}
	cfg, err := armature.LoadLive(limits{}, armature.LiveOptions{
		LoadOptions: armature.LoadOptions{Name: "order", Env: []string{}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.OnChange(func(now *limits, changes []armature.Change) {
		fmt.Println("from now on", now.MaxOrders, "because of", changes[0].Origin)
	})
	fmt.Println(cfg.Get().MaxOrders)
	// svc.Follow(cfg) watches the file and SIGHUP while the service runs.

	// Output:
	// 100
}
