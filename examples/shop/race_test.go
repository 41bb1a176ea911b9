//go:build race

package main

// raceDetector says that everything, the database above all, is some twenty times slower: heavy tests then do less of
// the same.
const raceDetector = true
