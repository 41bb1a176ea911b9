// Package httpx serves and calls typed functions over HTTP and JSON.
//
//	s, err := httpx.NewServer(httpx.Config{Addr: ":8080", Logger: log})
//	httpx.Handle(s, "POST /orders", svc.Place, httpx.Timeout(2*time.Second))
//	httpx.Handle(s, "GET /orders/{id}", svc.Get)
//	err = s.Listen(ctx) // bound when it returns
//	err = s.Serve()     // nil after s.Shutdown(ctx)
//
// A request type names where its fields come from: `path:"id"`, `query:"limit"`,
// `header:"Prefer"`, `cookie:"session"`; the other exported fields are the JSON body of POST, PUT and
// PATCH. The body cannot set a field that has another source.
//
// # Failure semantics
//
// Every error is a problem document (RFC 9457), also 404, 405, 413, 415 and the
// 500 of a panic. Malformed input is 400 and names each place by JSON pointer;
// parameters are found under /path, /query, /header and /cookie. Well-formed input that a
// Validate method refuses is 422. What a function returns passes through
// [transport.AsError], so the text of unknown errors stays in the log. A response
// that cannot be encoded is a 500, never a truncated 200. A caller whose Accept header
// rules JSON out is answered 406 before the function runs.
//
// The context of a function ends at the earlier of the route's timeout and the
// caller's Request-Timeout-Ms; a function that fails after that is answered with
// 504. Every answer has X-Correlation-ID, and X-Trace-ID when there is a trace.
//
// Once a function was entered its answer never claims that nothing was executed,
// whatever the error says: it may be the error of a call the function made.
package httpx
