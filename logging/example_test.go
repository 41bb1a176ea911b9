package logging_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	kitlog "github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/logging"
)

// withoutTime makes the output of the examples predictable.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func ExampleNew() {
	var lvl slog.LevelVar
	logger, err := logging.New(logging.Config{Service: "order", Level: &lvl, Writer: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return
	}
	lvl.Set(slog.LevelWarn)
	logger.Info("not written")
	fmt.Println(logger.Enabled(context.Background(), slog.LevelWarn))
	// Output: true
}

func ExampleNewHandler() {
	text := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})
	logger := slog.New(logging.NewHandler(text))
	ctx := flow.WithCorrelationID(context.Background(), "c-42")
	logger.InfoContext(ctx, "signed in", "user", "ann", "password", "hunter2")
	// Output: level=INFO msg="signed in" correlation_id=c-42 user=ann password=[REDACTED]
}

func ExampleToKit() {
	text := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})
	logger := logging.ToKit(slog.New(text))
	_ = level.Warn(logger).Log("msg", "slow answer", "took", "2s")
	// Output: level=WARN msg="slow answer" took=2s
}

func ExampleFromKit() {
	logger := logging.FromKit(kitlog.NewLogfmtLogger(os.Stdout))
	logger.WithGroup("http").Info("request", "status", 200)
	// Output: level=info msg=request http.status=200
}
