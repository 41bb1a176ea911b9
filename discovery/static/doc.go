// Package static is a service registry in the memory of one process: services
// that run together find one another, tests get instances that come and go, and
// a fixed list of addresses becomes a resolver.
//
//	reg, err := static.New(static.Config{Instances: []discovery.Instance{
//		{Service: "order", Addr: "127.0.0.1:9001"},
//		{Service: "order", Addr: "[::1]:9002"},
//	}})
//	// reg is a discovery.Resolver and a discovery.Registrar
//
// Nothing can fail at run time: watchers see a change before Register, Update or
// Drain returns its result to the one who made it, no snapshot is ever Stale, and
// a service without instances is an empty snapshot. There is no goroutine and
// nothing to close.
package static
