//go:build race

package grpcx_test

// raceEnabled: the race detector allocates and empties pools at random.
const raceEnabled = true
