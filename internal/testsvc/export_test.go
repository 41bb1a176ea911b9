package testsvc

// These let tests name the places where a server is looked for.
var (
	LocatePostgres = locatePostgres
	LocateRedis    = locateRedis
)
