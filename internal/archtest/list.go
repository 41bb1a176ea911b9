package archtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// List asks the go command in dir for every package of the module there, with
// direct imports and dependency closures for the host platform. It compiles
// nothing and takes about a second; packages that do not build are listed with
// what could be read of them.
func List(ctx context.Context, dir string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("archtest: list packages of %s: %w: %s", dir, err, stderr.Bytes())
	}
	return decode(&stdout)
}

func decode(r io.Reader) ([]Package, error) {
	var pkgs []Package
	for dec := json.NewDecoder(r); ; {
		var p Package
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs, nil
		case err != nil:
			return nil, fmt.Errorf("archtest: decode package list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
