// Package testsvc gives tests the real servers they talk to.
//
//	func TestStore(t *testing.T) {
//		db, dialect, err := sqldb.Open(t.Context(), testsvc.Postgres(t)) // a fresh, empty database
//		...
//	}
//
// A server is looked for in this order: the one the environment names
// (ARMATURE_POSTGRES_URL, ARMATURE_REDIS_URL), the standard loopback port, a private child process
// on a free port with its data in a temporary folder. When all three fail the
// test is skipped with one line, or fails when ARMATURE_REQUIRE_SERVICES=1.
//
// A private child is started once per test process and lives as long as that
// process: it is held by a pipe that the kernel closes however the process
// ends, kill -9 included, and then stops and removes its folder. It owns no
// goroutine, so goleak in TestMain needs no exception and no call at the end.
//
// Call these functions outside a testing/synctest bubble: they use the network
// and real time.
package testsvc
