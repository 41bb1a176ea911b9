package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoke runs the command as a shell would.
func invoke(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	if env == nil {
		env = []string{}
	}
	code = command(t.Context(), args, env, &out, &errs)
	return code, out.String(), errs.String()
}

func TestDoctorPrintsOrigins(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "order.json")
	if err := os.WriteFile(file, []byte(`{"http_addr":"127.0.0.1:0","environment":"staging"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"ARMATURE_ENVIRONMENT=production", "ORDER_DRAIN_DELAY=5s"}
	code, stdout, stderr := invoke(t, env, "doctor", "-name", "order", "-config="+file, "-grpc-addr", "127.0.0.1:0")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for _, want := range []string{
		`http_addr +127\.0\.0\.1:0 +file .*order\.json`,
		`grpc_addr +127\.0\.0\.1:0 +flag -grpc-addr`,
		`admin_addr +- +default`,
		`environment +production +env ARMATURE_ENVIRONMENT`,
		`drain_delay +5s +env ORDER_DRAIN_DELAY`,
		`http_addr +ok +127\.0\.0\.1:0 is free`,
		`go version +ok`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("output has no line like %s:\n%s", want, stdout)
		}
	}
}

func TestDoctorJSON(t *testing.T) {
	t.Parallel()
	db := "sqlite:" + filepath.Join(t.TempDir(), "order.db")
	code, stdout, stderr := invoke(t, nil, "doctor", "-json", "-db-url", db)
	if code != 0 {
		t.Fatalf("exit %d, %q, %s", code, stderr, stdout)
	}
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if !r.OK || r.Service != "service" {
		t.Errorf("report is %+v", r)
	}
	var origin string
	for _, v := range r.Settings {
		if v.Key == "db.url" {
			origin = v.Origin
		}
	}
	if diff := cmp.Diff("flag -db-url", origin); diff != "" {
		t.Errorf("origin (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(strings.TrimPrefix(db, "sqlite:")); !os.IsNotExist(err) {
		t.Errorf("the doctor made the database it was to look at (%v)", err)
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	taken := ln.Addr().String()
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  []string
		args []string
		code int
		want string // in either output
	}{
		{name: "address taken", args: []string{"doctor", "-http-addr", taken}, code: 1, want: "WRONG"},
		{name: "bad value", env: []string{"ARMATURE_DRAIN_DELAY=soon"}, args: []string{"doctor"}, code: 1, want: `env ARMATURE_DRAIN_DELAY: drain_delay = "soon": must be a duration`},
		{name: "a service cannot be built", args: []string{"doctor", "-drain-delay", "-1s"}, code: 1, want: `DrainDelay = "-1s": must not be negative`},
		{name: "bad name", args: []string{"doctor", "-name", "Order"}, code: 1, want: "must be lower-case"},
		{name: "unknown database", args: []string{"doctor", "-db-url", "oracle://x"}, code: 1, want: `scheme "oracle" is not known`},
		{name: "no database in the file", args: []string{"doctor", "-db-url", "sqlite:" + garbage}, code: 1, want: "WRONG"},
		{name: "no folder for the database", args: []string{"doctor", "-db-url", "sqlite:/does/not/exist/a.db"}, code: 1, want: "/does/not/exist"},
		{name: "database does not answer", args: []string{"doctor", "-db-url", "postgres://u:hunter2@127.0.0.1:1/x"}, code: 1, want: "WRONG"},
		{name: "unknown flag", args: []string{"doctor", "-colour"}, code: 1, want: "-colour"},
		{name: "flag without its argument", args: []string{"doctor", "-name"}, code: 2, want: "flag needs an argument: -name"},
		{name: "stray argument", args: []string{"doctor", "order"}, code: 2, want: `unexpected argument "order"`},
		{name: "unknown command", args: []string{"docter"}, code: 2, want: `no command "docter"`},
		{name: "no command", code: 2, want: "usage: armature"},
		{name: "help", args: []string{"help"}, code: 0, want: "usage: armature"},
		{name: "help of doctor", args: []string{"doctor", "-h"}, code: 0, want: "-db-url"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, tt.env, tt.args...)
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			if !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("nothing says %q:\n%s%s", tt.want, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("a password shows:\n%s%s", stdout, stderr)
			}
		})
	}
}
