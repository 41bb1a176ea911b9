// Package redisrate keeps the permits of rate limiters in Redis, so that several
// processes share one limit.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	store, err := redisrate.New(redisrate.Config{Client: client})
//	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{
//		Name: "search", Rate: 100, Burst: 10,
//		Store: store, OnStoreError: resilience.StoreFailLocal, LocalShare: 0.25, // of 4 processes
//	})
//
// # Exactness
//
// A request is one script call. The script reads the clock of the Redis server and
// counts in whole microseconds and whole fractions of one, so that neither clocks
// of processes nor rounding matter: over any interval T of Redis time at most
// Burst + T*Rate/Per permits are granted with GCRA, and Rate per window with
// FixedWindow, whose windows begin at multiples of Per since the Unix epoch.
//
// With leases a process takes permits in batches and hands them out itself. A
// permit then is used up to LeaseFor after Redis granted it: over any interval T at
// most Burst + (T + LeaseFor)*Rate/Per. What a process does not use by then is
// lost, to the others too.
//
// # Failures
//
// Take returns an error when Redis cannot be reached or does not answer in time;
// what happens then is the choice of [resilience.RateConfig.OnStoreError]. A reply
// that is lost on the way may leave permits taken that nobody had; the limit is
// never exceeded by that. A Redis that starts empty starts with full buckets.
// A clock of Redis that is set back blocks a key for the time it needs to fill, at
// most, and begins a fixed window anew. Redis 5 or newer.
package redisrate
