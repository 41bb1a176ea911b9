// Package consumer holds one test: a module of somebody else's that requires
// this one must tidy and build.
//
// A library cannot see in its own build that it spoils its users'. go-kit
// v0.13.0 asks for a version of google.golang.org/genproto from before that
// module was split; a user who adds an OTLP exporter then has packages that two
// modules provide, and go mod tidy gives up. The fixture in testdata imports
// exactly that combination.
//
//	go test ./test/consumer -v
//
// The test needs a module proxy or a filled module cache, and says so when it
// has neither.
package consumer
