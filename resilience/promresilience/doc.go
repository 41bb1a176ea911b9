// Package promresilience shows policies to Prometheus.
//
//	metrics, err := promresilience.New(policy) // a chain, a breaker, a keyed policy, …
//	registry.MustRegister(metrics)
//
// A [Collector] reads the Stats of the policies when Prometheus scrapes. Between
// scrapes it does nothing, and calls through the policies cost what they cost
// without it.
//
// Every series has the label name, the policy's; policies must therefore have one.
// Counters begin with the policy, not with the collector.
//
// # Cardinality
//
// A policy makes between one and about ten series. Members of a keyed policy are
// looked up at every scrape, and those of the same kind and name share their
// series: counters and sizes are added up, breaker_state counts the breakers in
// each state, and of rates and times the highest is shown. So a factory that names
// all its breakers "payment" makes the series of one breaker however many keys
// there are, and one that puts the key into the name makes the series of each: let
// it do so only when the keys are few and known, hosts for instance, never users.
// A key that is forgotten takes its counts along, which functions like rate take
// for a restart.
package promresilience
