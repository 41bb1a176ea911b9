// Package grpcx is a gRPC server and client with everything between the wire and
// the business code in place: limits, deadlines, recovery, trace, metrics, one
// log line per call, health, discovery, and one error type on both sides.
//
//	s, err := grpcx.NewServer(grpcx.Config{Addr: "127.0.0.1:9001", Logger: log})
//	orderv1.RegisterOrdersServer(s, svc)      // any generated service
//	err = s.Listen(ctx)                       // s.Addr() is true from here on
//	go s.Serve()                              // until s.Shutdown(ctx)
//	cc, err := grpcx.NewClient(grpcx.ClientConfig{Target: "armature:///order", Resolver: reg})
//
// # Errors
//
// A handler returns any error. transport.AsError decides what the caller may
// know: a *transport.Error and a gRPC status go out as they are, everything else
// is INTERNAL without its text, which only the log line holds. The client hands
// out *transport.Error again, so errors.Is with the sentinel of the service,
// errors.As, Retryable and NotExecuted hold across the wire.
//
// A panic in a handler is INTERNAL for the caller; it is counted, marked on the
// span and logged with its stack, and the server goes on.
//
// # Deadlines
//
// A deadline travels with the call. A unary call that comes without one gets
// [Config].Timeout, and one that is made without one gets [ClientConfig].Timeout
// for each attempt. Streams last as long as both sides want.
//
// # Shutdown
//
// [Server.Shutdown] refuses new work and waits until every accepted call has its
// answer, for as long as its context allows; what is left then is cut off, which
// its callers see as UNAVAILABLE or CANCELED.
//
// # No instance
//
// A call to a service without instances fails at once with an UNAVAILABLE error
// that is NotExecuted and matches discovery.ErrNoInstance, unless it is made with
// grpc.WaitForReady(true): then it waits for an instance until its deadline.
package grpcx
