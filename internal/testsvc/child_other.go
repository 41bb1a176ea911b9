//go:build !unix

package testsvc

import (
	"errors"
	"os"
)

func startChild(string) (string, error) {
	return "", errors.New("private servers are started on Unix only")
}

type child struct{ pipe *os.File }

func (*child) stop() {}

func startRedis(string, int) (*child, error) {
	return nil, errors.New("private servers are started on Unix only")
}

func holdOpen(*child) {}
