// Command armature helps with services built on Armature.
//
//	armature doctor [-name order] [-config order.json] [-json] [settings…]
//
// doctor prints the effective configuration of a service with the origin of each
// value, and checks that it would start here: the Go version, the addresses, and
// the database when one is named. It exits with 1 when something is wrong and
// with 2 when it cannot understand its arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/armature-go/armature"
)

func main() {
	armature.Main(func(ctx context.Context) error {
		code := command(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
		if code != 0 {
			os.Exit(code)
		}
		return nil
	})
}

const usage = `usage: armature COMMAND

commands:
  doctor   print the effective configuration with origins, and check it
  version  print the version

armature doctor -h lists its flags.
`

// command is main without the process around it.
func command(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		_, _ = io.WriteString(stderr, usage)
		return 2
	}
	switch name, rest := args[0], args[1:]; name {
	case "doctor":
		err := doctor(ctx, rest, env, stdout, stderr)
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		case errors.Is(err, errFindings):
			return 1
		}
		fmt.Fprintln(stderr, err)
		return 1
	case "version":
		fmt.Fprintln(stdout, buildVersion())
		return 0
	case "help", "-h", "-help", "--help":
		_, _ = io.WriteString(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "armature: there is no command %q\n\n%s", name, usage)
		return 2
	}
}
