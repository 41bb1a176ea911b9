package testsvc

import (
	"path/filepath"
	"testing"
)

// SQLite returns the URL of a database file that does not exist yet, in t's
// temporary folder. Close every handle before t ends: the folder is removed then.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "test.db")
}
