// Package armature turns a name and a config into a running service: structured
// logs, metrics, traces, health, an admin server, ordered start and ordered
// drain.
//
//	func main() { armature.Main(run) }
//
//	func run(ctx context.Context) error {
//		svc, err := armature.New(armature.Config{Name: "order", HTTPAddr: ":8080", AdminAddr: ":9090"})
//		if err != nil {
//			return err
//		}
//		httpx.Handle(svc.HTTP, "POST /orders", place)
//		svc.Worker("relay", relay.Run)
//		return svc.Run(ctx)
//	}
//
// # Start
//
// [Service.Run] binds every address before it serves one, starts the workers,
// waits until every check has passed, then reports ready, and only then
// registers in discovery. What fails on the way stops what had started, in the
// order of a drain.
//
// # Stop
//
// The end of Run's context, a server that fails or a worker that returns an
// error begins the drain:
//
//  1. /ready answers 503 and gRPC health NOT_SERVING
//  2. the registrations leave discovery
//  3. HTTP answers say Connection: close
//  4. [Config.DrainDelay] passes, everything still served
//  5. HTTP and gRPC finish what they have, side by side
//  6. workers end one by one, the last registered first
//  7. OnStop hooks run, the last registered first
//  8. client connections close, then the admin server
//  9. telemetry is flushed
//
// Steps 5, 6 and 7 take at most [Config.ShutdownTimeout] each. Run returns what
// began the drain, unless it was its context, joined with everything that went
// wrong on the way.
//
// # Health
//
// GET /health says that the process lives; it never looks at a dependency, so
// that a database outage does not restart every replica. GET /ready runs the
// checks, at most about once a second however often it is asked. gRPC health
// follows the checks too: at once when /ready is asked, and within five seconds
// when it is not. GET /metrics serves the service's own registry.
//
// # Operations
//
// The admin server lists its pages on /: health, readiness and metrics, what was
// built (/buildinfo), the settings in force with secrets redacted (/config, after
// [Service.ShowConfig] or [Service.Follow]), /routes, /loglevel, and profiles below
// /debug/pprof/. Only the first three are ever on the public HTTP server, and that
// only without [Config.AdminAddr]. Nobody is asked who they are: keep the admin
// address to the operators' network.
//
//	curl -X PUT -d '{"level":"DEBUG","for":"10m"}' localhost:9090/loglevel
//
// [LoadConfig] reads the settings once. [LoadLive] reads them again on SIGHUP and
// when the file changes; a new configuration replaces the old one whole, or is
// refused whole and the old one stays.
//
// [Service.Worker] runs loops, [Service.Every] what is done now and then: its
// errors and panics are counted and stop nothing. [Service.Counter] declares a
// number of the business in one line.
package armature
