// Package archtest keeps the import table of the project: which package may
// import which of ours, which third parties it may name, and which it must not
// compile even through others.
//
// The table is data ([Table]); [Check] is a pure function over what the go
// command reports ([List]), so the tests can show that a forbidden import is
// found without having to commit one. The same table is written a second time
// as depguard rules in .golangci.yml, for editors; a test compares the rows.
//
//	pkgs, err := archtest.List(ctx, root)
//	for _, v := range archtest.Check(archtest.Table(), pkgs) {
//		fmt.Println(v)
//	}
//
// Only what a package compiles counts: tests may import anything.
package archtest
