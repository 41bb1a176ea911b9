// Package redisstore keeps idempotency keys in Redis, for all processes of a service.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	store, err := redisstore.New(redisstore.Config{Client: client})
//	keys, err := idempotency.New(idempotency.Config{Store: store})
//	place := idempotency.Once(keys, "orders.Place", svc.Place)
//	httpx.Handle(server, "POST /orders", place)
//
// A step is one script call on one key, timed by the clock of the Redis server alone.
// Redis itself forgets what has run out.
//
// # Failures
//
// Errors of Redis come back as they are wrapped, and package idempotency then runs
// nothing. Keys live as long as Redis keeps them: without append-only persistence a
// crash of the server forgets them, a failover forgets what was not replicated yet,
// and a server that evicts may forget any. Use maxmemory-policy noeviction, and package
// sqlstore where a forgotten key costs money. Redis 4 or newer.
package redisstore
