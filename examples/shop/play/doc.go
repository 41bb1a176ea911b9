// Package play sends a file of orders through the shop's edge, holds each against what it expects, and audits the shop
// afterwards.
//
//	os.Exit(play.Main(ctx, os.Args[2:], embedded, os.Stdout, os.Stderr))
//
// or, from a test:
//
//	orders, err := play.Parse(file)
//	result, err := play.Run(ctx, play.Config{Addr: "http://127.0.0.1:8080", Orders: orders, Out: os.Stdout})
//	if err == nil && result.OK() { ... }
//
// A request without an answer, or with one of the 5xx or 429, is sent again under the same Idempotency-Key, so that it
// counts once; keys hold an id of the run, so that a file can be played again on the same data. An order that is not at
// rest after its wait is asked for until it is. What breaks an expectation is counted and shown, and the rest goes on;
// only a shop that cannot be reached at all, or a context that ends, stops a run.
package play
