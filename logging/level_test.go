package logging_test

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/logging"
)

func TestLevelChangesWhatIsWritten(t *testing.T) {
	t.Parallel()
	var level logging.Level
	var out strings.Builder
	logger, err := logging.New(logging.Config{Service: "order", Level: &level, Writer: &out})
	if err != nil {
		t.Fatal(err)
	}
	logger = logger.With("a", 1).WithGroup("g") // derived loggers follow
	logger.Debug("one")
	level.Set(slog.LevelDebug)
	logger.Debug("two")
	level.Set(slog.LevelError)
	logger.Warn("three")
	if got := out.String(); !strings.Contains(got, "two") || strings.Contains(got, "one") || strings.Contains(got, "three") {
		t.Errorf("wrote %s, want the line two alone", got)
	}
}

func TestLevelForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		level := logging.NewLevel(slog.LevelWarn)
		want := func(when string, now, base slog.Level, left time.Duration) {
			t.Helper()
			synctest.Wait()
			s := level.State()
			if s.Level != now || level.Level() != now || s.Base != base {
				t.Errorf("%s: level %v with base %v, want %v with %v", when, s.Level, s.Base, now, base)
			}
			if got := s.Until; left == 0 && !got.IsZero() || left != 0 && time.Until(got) != left {
				t.Errorf("%s: until %v, want %v from now", when, got, left)
			}
		}
		level.SetFor(slog.LevelDebug, time.Minute)
		want("at once", slog.LevelDebug, slog.LevelWarn, time.Minute)
		time.Sleep(59 * time.Second)
		level.SetFor(slog.LevelInfo, time.Minute) // takes the place of the first
		time.Sleep(59 * time.Second)
		want("the first is forgotten", slog.LevelInfo, slog.LevelWarn, time.Second)
		time.Sleep(time.Second)
		want("restored", slog.LevelWarn, slog.LevelWarn, 0)

		level.SetFor(slog.LevelDebug, time.Minute)
		level.Set(slog.LevelError)
		time.Sleep(time.Hour)
		want("for good", slog.LevelError, slog.LevelError, 0)
	})
}

func TestLevelRefusesNoTime(t *testing.T) {
	t.Parallel()
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "0s is not positive") {
			t.Errorf("panic = %v, want one about the duration", p)
		}
	}()
	new(logging.Level).SetFor(slog.LevelDebug, 0)
}

func ExampleNewLevel() {
	level := logging.NewLevel(slog.LevelInfo)
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	logger.Debug("not shown")
	level.SetFor(slog.LevelDebug, 10*time.Minute)
	logger.Debug("shown for ten minutes")
	// Output:
	// level=DEBUG msg="shown for ten minutes"
}
