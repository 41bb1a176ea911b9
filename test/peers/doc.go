// Package peers holds package resilience against the libraries it learned from:
// their defects, their speed, their decisions. The transports are held against
// others by speed alone, in transportbench, run by make bench-transport.
//
//   - Defects: one test per defect that was reproduced in a peer shows that the
//     version required here still has it, and fails once the peer has mended it. The
//     test of ours that keeps the same defect out is named beside it.
//   - Speed: the program in bench, run by make bench-resilience.
//   - Decisions: fuzzing in which a peer and ours see the same calls at the same
//     instants and must decide alike, but for a closed list of differences.
//
// It is a module of its own, so that no peer is among the requirements of the
// chassis, and it is never published.
package peers
