// Package failpoint kills the process at a chosen boundary between two durable
// writes, so that a test can look at what a crash exactly there leaves behind.
// It is compiled in with the build tag failpoint alone; without it every
// function is empty and costs nothing.
//
//	tx.Commit()
//	failpoint.Hit("order: placed")   // a boundary with a name
//	failpoint.Caller()               // a boundary named after the function that called
//
// Two environment variables drive a binary that was built with the tag:
//
//   - ARMATURE_FAILPOINT_TRACE=FILE appends one line "name#n" for the n-th time a
//     boundary is passed, which is how a test finds out what there is.
//   - ARMATURE_FAILPOINT=name#n kills the process, as SIGKILL does, when that
//     boundary is passed for the n-th time.
//
// All functions are safe for concurrent use.
package failpoint
