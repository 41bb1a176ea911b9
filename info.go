package armature

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/armature-go/armature/transport/httpx"
)

// page is one address of the admin server.
type page struct {
	pattern, about string
	handler        http.Handler
}

// adminHandler is everything for the operator; none of it but health, readiness
// and metrics is ever mounted on a public server.
func (s *Service) adminHandler() http.Handler {
	pages := s.pages(true)
	pages = append(pages,
		page{"GET /buildinfo", "what was built, from which commit, with which modules", http.HandlerFunc(s.serveBuildInfo)},
		page{"GET /config", "settings in force, secrets redacted, and where each came from", http.HandlerFunc(s.serveConfig)},
		page{"GET /routes", "HTTP routes and gRPC methods", http.HandlerFunc(s.serveRoutes)},
	)
	if s.level != nil {
		pages = append(pages,
			page{"GET /loglevel", "lowest level logged", http.HandlerFunc(s.serveLogLevel)},
			page{"PUT /loglevel", `change it: {"level":"DEBUG","for":"10m"}; without "for" it stays`, http.HandlerFunc(s.changeLogLevel)},
		)
	}
	pages = append(pages, profilePages()...)

	mux := http.NewServeMux()
	var index strings.Builder
	fmt.Fprintf(&index, "%s %s\n\n", s.cfg.Name, s.cfg.Version)
	for _, p := range pages {
		mux.Handle(p.pattern, p.handler)
		fmt.Fprintf(&index, "%-28s %s\n", p.pattern, p.about)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { writeText(w, index.String()) })
	return mux
}

type buildInfo struct {
	Service     string            `json:"service"`
	Version     string            `json:"version"`
	Environment string            `json:"environment"`
	Go          string            `json:"go"`
	Program     string            `json:"program,omitempty"` // path of the main package
	Module      string            `json:"module,omitempty"`
	Revision    string            `json:"revision,omitempty"`
	Time        string            `json:"time,omitempty"`     // of the revision
	Modified    bool              `json:"modified,omitempty"` // the tree differed from the revision
	Modules     map[string]string `json:"modules,omitempty"`  // what is linked, and its version
}

func (s *Service) serveBuildInfo(w http.ResponseWriter, _ *http.Request) {
	out := buildInfo{Service: s.cfg.Name, Version: s.cfg.Version, Environment: s.cfg.Environment}
	if info, ok := debug.ReadBuildInfo(); ok {
		out.Go, out.Program, out.Module = info.GoVersion, info.Path, strings.TrimSpace(info.Main.Path+" "+info.Main.Version)
		for _, kv := range info.Settings { // not all of them: -ldflags may hold a secret
			switch kv.Key {
			case "vcs.revision":
				out.Revision = kv.Value
			case "vcs.time":
				out.Time = kv.Value
			case "vcs.modified":
				out.Modified = kv.Value == "true"
			}
		}
		out.Modules = make(map[string]string, len(info.Deps))
		for _, dep := range info.Deps {
			version := dep.Version
			if dep.Replace != nil {
				version = strings.TrimSpace(dep.Replace.Path + " " + dep.Replace.Version)
			}
			out.Modules[dep.Path] = version
		}
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Service) serveConfig(w http.ResponseWriter, _ *http.Request) {
	c := s.config.Load()
	if c == nil {
		http.Error(w, "the program did not say where its settings come from: call ShowConfig or Follow", http.StatusNotFound)
		return
	}
	e := *c.effective()
	e.Args = nil // nobody said which of them are secret
	writeJSON(w, http.StatusOK, e)
}

type routes struct {
	HTTP []string `json:"http"` // "GET /orders/{id}"
	GRPC []string `json:"grpc"` // "/order.v1.Orders/Place"
}

func (s *Service) serveRoutes(w http.ResponseWriter, _ *http.Request) {
	out := routes{HTTP: []string{}, GRPC: []string{}}
	if s.HTTP != nil {
		var err error
		if out.HTTP, err = s.httpRoutes(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if s.GRPC != nil {
		for service, info := range s.GRPC.GetServiceInfo() {
			for _, m := range info.Methods {
				out.GRPC = append(out.GRPC, "/"+service+"/"+m.Name)
			}
		}
		slices.Sort(out.GRPC)
	}
	writeJSON(w, http.StatusOK, out)
}

type levelBody struct {
	Level slog.Level `json:"level"`
	Base  slog.Level `json:"base"`            // what level will be again
	Until *time.Time `json:"until,omitempty"` // when
}

func (s *Service) serveLogLevel(w http.ResponseWriter, _ *http.Request) {
	now := s.level.State()
	body := levelBody{Level: now.Level, Base: now.Base}
	if !now.Until.IsZero() {
		body.Until = &now.Until
	}
	writeJSON(w, http.StatusOK, body)
}

// changeLogLevel writes the change to the log at the level WARN, so that whoever
// reads the log knows why it is suddenly long or short.
func (s *Service) changeLogLevel(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		http.Error(w, "the body cannot be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	level, d, err := parseLevelChange(data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	attrs := []any{slog.String("from", s.level.Level().String()), slog.String("to", level.String())}
	if d > 0 {
		s.level.SetFor(level, d)
		attrs = append(attrs, slog.Duration("for", d))
	} else {
		s.level.Set(level)
	}
	s.Logger.WarnContext(r.Context(), "log level changed", attrs...)
	s.serveLogLevel(w, r)
}

// parseLevelChange reads {"level":"DEBUG","for":"10m"}; a duration of 0 is for good.
func parseLevelChange(data []byte) (level slog.Level, d time.Duration, err error) {
	var body struct {
		Level *slog.Level `json:"level"`
		For   *string     `json:"for"`
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		return 0, 0, fmt.Errorf(`the body must be as {"level":"DEBUG","for":"10m"}: %w`, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return 0, 0, errors.New("something follows the JSON object")
	}
	if body.Level == nil {
		return 0, 0, errors.New("level is missing: DEBUG, INFO, WARN or ERROR")
	}
	if body.For != nil {
		if d, err = time.ParseDuration(*body.For); err != nil || d <= 0 {
			return 0, 0, fmt.Errorf("for = %q: must be a positive duration such as 10m; leave it out to change the level for good", *body.For)
		}
	}
	return *body.Level, d, nil
}

// httpRoutes reads the routes out of the server's description of itself.
func (s *Service) httpRoutes() ([]string, error) {
	text, err := s.HTTP.OpenAPI(httpx.APIInfo{})
	if err != nil {
		return nil, err
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("armature: list routes of %s: %w", s.cfg.Name, err)
	}
	out := []string{}
	for path, methods := range doc.Paths {
		for method := range methods {
			out = append(out, strings.TrimSpace(strings.ToUpper(method)+" "+path))
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(pathOf(a)+a, pathOf(b)+b) })
	return out, nil
}

func pathOf(route string) string {
	_, path, _ := strings.Cut(route, " ")
	return path
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text) // the reader may have gone
}
