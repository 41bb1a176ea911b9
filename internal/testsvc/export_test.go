package testsvc

// LocatePostgres lets tests name the places where a server is looked for.
var LocatePostgres = locatePostgres
