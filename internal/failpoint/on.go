//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
)

// Enabled reports whether failpoints are compiled in.
const Enabled = true

var points = struct {
	sync.Mutex
	seen  map[string]int
	kill  string
	trace string
}{
	seen:  map[string]int{},
	kill:  os.Getenv("ARMATURE_FAILPOINT"),
	trace: os.Getenv("ARMATURE_FAILPOINT_TRACE"),
}

// Hit marks a boundary.
func Hit(name string) {
	points.Lock()
	defer points.Unlock()
	points.seen[name]++
	point := fmt.Sprintf("%s#%d", name, points.seen[name])
	if points.trace != "" {
		note(points.trace, point)
	}
	if point == points.kill {
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			_ = p.Kill()
		}
		select {} // nothing more may happen, the lock included
	}
}

func note(file, line string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	_, _ = f.WriteString(line + "\n")
}

// Caller marks a boundary that is named after the nearest function on the stack
// that is not of a shared package.
func Caller() {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if name, own := strings.CutPrefix(frame.Function, module); own && !shared(name) {
			Hit(name)
			return
		}
		if !more {
			Hit("unknown")
			return
		}
	}
}

const module = "github.com/armature-go/armature/"

// shared tells helpers, which say nothing of what was written, from the code
// that wrote it.
func shared(name string) bool {
	for _, prefix := range []string{"internal/", "examples/shop/platform", "saga/sqlstore.(*Store).InTx", "saga.(*Coordinator).", "messaging/outbox.(*Outbox).InTx"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
