package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/armature-go/armature"

	_ "github.com/jackc/pgx/v5/stdlib" // postgres:// of -db-url
	_ "modernc.org/sqlite"             // sqlite: of -db-url
)

var (
	errUsage    = errors.New("arguments not understood")
	errFindings = errors.New("something is wrong")
)

// oldest is the first Go release the module builds with.
const oldest = "go1.26"

// dbTimeout bounds the look at the database: doctor is run by people who wait.
const dbTimeout = 5 * time.Second

type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

type report struct {
	Service  string           `json:"service"`
	OK       bool             `json:"ok"`
	Settings []armature.Value `json:"settings"`
	Checks   []finding        `json:"checks"`
}

// serviceSettings is what doctor knows of any service.
type serviceSettings struct {
	armature.Settings
	DB struct {
		URL string `help:"database of the service, sqlite:FILE or postgres://…; empty leaves it out"`
	}
}

// doctor's own flags come first; what it does not know is a setting.
func doctor(ctx context.Context, args, env []string, stdout, stderr io.Writer) error {
	name, file, asJSON, rest, err := ownFlags(args)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return errUsage
	}
	var cfg serviceSettings
	effective, err := armature.LoadConfig(&cfg, armature.LoadOptions{
		Name: name, File: file, Env: env, Args: rest, Output: stderr,
	})
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, "  -name service\n    \tname of the service, which begins its environment variables (default \"service\")\n  -json\n    \tprint JSON instead of tables\n")
		return err
	}
	if err != nil {
		return err
	}
	if len(effective.Args) > 0 {
		fmt.Fprintf(stderr, "armature doctor: unexpected argument %q; settings are flags, such as -http-addr :8080\n", effective.Args[0])
		return errUsage
	}
	r := report{Service: name, Settings: effective.Values, Checks: examine(ctx, name, cfg), OK: true}
	for _, f := range r.Checks {
		r.OK = r.OK && f.OK
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(stdout)
	}
	if err != nil {
		return fmt.Errorf("armature doctor: print report: %w", err)
	}
	if !r.OK {
		return errFindings
	}
	return nil
}

// ownFlags takes -name, -config and -json out of args, wherever they stand.
func ownFlags(args []string) (name, file string, asJSON bool, rest []string, err error) {
	name, rest = "service", []string{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		key, value, inline := cutFlag(arg)
		switch key {
		case "json":
			asJSON = true
		case "name", "config":
			if !inline {
				if len(args) == 0 {
					return "", "", false, nil, fmt.Errorf("armature doctor: flag needs an argument: -%s", key)
				}
				value, args = args[0], args[1:]
			}
			if key == "name" {
				name = value
			} else {
				file = value
			}
		default:
			rest = append(rest, arg)
		}
	}
	return name, file, asJSON, rest, nil
}

func examine(ctx context.Context, name string, cfg serviceSettings) []finding {
	var out []finding
	add := func(check string, err error, good string) {
		f := finding{Check: check, OK: err == nil, Detail: good}
		if err != nil {
			f.Detail = err.Error()
		}
		out = append(out, f)
	}

	add("go version", goVersion(runtime.Version()), runtime.Version())
	svc, err := armature.New(cfg.Apply(armature.Config{Name: name, LogWriter: io.Discard}))
	if err == nil {
		err = svc.Close(ctx)
	}
	add("settings", err, "a service can be built from them")
	for _, a := range []struct{ setting, addr string }{
		{"http_addr", cfg.HTTPAddr}, {"grpc_addr", cfg.GRPCAddr}, {"admin_addr", cfg.AdminAddr},
	} {
		if a.addr != "" {
			add(a.setting, free(ctx, a.addr), a.addr+" is free")
		}
	}
	if cfg.DB.URL != "" {
		good, err := reach(ctx, cfg.DB.URL)
		add("db.url", err, good)
	}
	return out
}

func goVersion(v string) error {
	if version.IsValid(v) && version.Compare(v, oldest) < 0 {
		return fmt.Errorf("built with %s, which is older than %s: update Go", v, oldest)
	}
	return nil
}

func free(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot be bound: %w", err)
	}
	return ln.Close()
}

// reach opens the database to look, never to change it: a SQLite file that is
// not there stays so, as long as its folder is.
func reach(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	if rest, ok := strings.CutPrefix(url, "sqlite:"); ok {
		path, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
		switch _, err := os.Stat(path); {
		case path == "": // OpenDB says what is wrong with it
		case errors.Is(err, fs.ErrNotExist):
			if _, err := os.Stat(filepath.Dir(path)); err != nil {
				return "", fmt.Errorf("the folder of the database: %w", err)
			}
			return "will be made at " + path, nil
		case err != nil:
			return "", err
		default:
			url = "sqlite:" + path + "?mode=ro"
		}
	}
	db, dialect, err := armature.OpenDB(ctx, url)
	if err != nil {
		return "", err
	}
	// Opening touches no page; a query does.
	var one int
	err = db.QueryRowContext(ctx, "SELECT 1 WHERE EXISTS (SELECT 1 FROM "+catalogue(dialect)+") OR 1 = 1").Scan(&one)
	return dialect.String() + " answers", errors.Join(err, db.Close())
}

// catalogue is a table that every database of the dialect has.
func catalogue(d armature.Dialect) string {
	if d == armature.SQLite {
		return "sqlite_master"
	}
	return "pg_catalog.pg_class"
}

func (r report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "SETTING\tVALUE\tORIGIN\n")
	for _, v := range r.Settings {
		value := v.Value
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", v.Key, value, v.Origin)
	}
	fmt.Fprintf(tw, "\nCHECK\tRESULT\tDETAIL\n")
	for _, f := range r.Checks {
		result := "ok"
		if !f.OK {
			result = "WRONG"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Check, result, f.Detail)
	}
	return tw.Flush()
}

// cutFlag splits -key, --key and -key=value; anything else has no key.
func cutFlag(arg string) (key, value string, inline bool) {
	name, ok := strings.CutPrefix(arg, "-")
	if !ok {
		return "", "", false
	}
	return strings.Cut(strings.TrimPrefix(name, "-"), "=")
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
