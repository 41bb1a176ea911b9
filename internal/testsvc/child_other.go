//go:build !unix

package testsvc

import "errors"

func startChild(string) (string, error) {
	return "", errors.New("private servers are started on Unix only")
}
