// Package discovery answers two questions: where is a service, and which of
// its instances takes this call. It needs the standard library only.
//
//	reg, _ := static.New(static.Config{})
//	r, _ := reg.Register(ctx, discovery.Instance{Service: "order", Addr: "127.0.0.1:9001"})
//	defer r.Drain(ctx, 5*time.Second)
//	pool, _ := discovery.NewPool(discovery.PoolConfig[*Client]{Resolver: reg, Service: "order", Dial: dial})
//	lease, err := pool.Pick(ctx, discovery.PickOptions{})
//
// # What happens when things fail
//
// A service without instances is a state, not a failure of the watch: Watch
// yields a [Snapshot] with no Instances and goes on. [Pool.Pick] then fails at
// once with an error that is [ErrNoInstance]; the callee never saw the call, so
// the error says Retryable and NotExecuted.
//
// A registry that cannot be reached keeps its last answer: the Snapshot comes
// again with Stale set and the cause in Err, and the pool goes on with it.
//
// An instance that leaves gets no new calls from the moment its snapshot
// arrives; its connection is closed when the last lease on it ends.
//
// An instance that cannot be dialled is tried again with a growing, jittered
// delay, while calls go to the others.
package discovery
