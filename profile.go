package armature

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The pages of net/http/pprof, without that package: importing it puts them on
// http.DefaultServeMux, which a program may serve to the public without knowing.
// The command line is left out, for the secrets it may hold.

// maxProfile bounds the time a profile is taken for.
const maxProfile = 5 * time.Minute

func profilePages() []page {
	return []page{
		{"GET /debug/pprof/{$}", "the profiles there are", http.HandlerFunc(serveProfiles)},
		{"GET /debug/pprof/profile", "CPU for ?seconds=30, for go tool pprof", serveTimed("profile", 30*time.Second, pprof.StartCPUProfile, pprof.StopCPUProfile)},
		{"GET /debug/pprof/trace", "execution trace of ?seconds=1, for go tool trace", serveTimed("trace", time.Second, trace.Start, trace.Stop)},
		{"GET /debug/pprof/{name}", "heap, goroutine, mutex and the like; ?debug=1 as text, ?gc=1 to collect first", http.HandlerFunc(serveProfile)},
	}
}

func serveProfiles(w http.ResponseWriter, _ *http.Request) {
	all := pprof.Profiles()
	lines := make([]string, len(all))
	for i, p := range all {
		lines[i] = fmt.Sprintf("%8d %s\n", p.Count(), p.Name())
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[8:], b[8:]) })
	writeText(w, "         profile\n         trace\n"+strings.Join(lines, ""))
}

func serveProfile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	p := pprof.Lookup(name)
	if p == nil {
		http.Error(w, "there is no profile "+strconv.Quote(name), http.StatusNotFound)
		return
	}
	level, err := number(r, "debug", 0, 2)
	if err == nil {
		var collect int
		if collect, err = number(r, "gc", 0, 1); err == nil && collect > 0 && name == "heap" {
			runtime.GC()
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if level > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
	} else {
		attachment(w, name)
	}
	_ = p.WriteTo(w, level) // the reader may have gone
}

// serveTimed serves what is started, written for a while and stopped; one of a
// kind at a time. It ends early when its reader leaves or the service ends.
func serveTimed(name string, standard time.Duration, start func(io.Writer) error, stop func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seconds, err := number(r, "seconds", int(standard/time.Second), int(maxProfile/time.Second))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d := time.Duration(seconds) * time.Second
		// A writer without deadlines has none that would cut the profile off.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + 30*time.Second))
		attachment(w, name)
		if err := start(w); err != nil { // another one is under way
			w.Header().Del("Content-Disposition")
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer stop()
		sleep(r.Context(), d)
	})
}

func attachment(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// number reads a parameter of the query, from 0 to limit.
func number(r *http.Request, name string, standard, limit int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%s = %q: must be a whole number from 0 to %d", name, text, limit)
	}
	return n, nil
}
