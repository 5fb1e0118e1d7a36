// Package bench measures what users wait for, each row interleaved with its
// floor in the same run. It stands behind the build tag "bench"; "make bench"
// runs it and prints the table that docs/benchmarks.md keeps.
package bench
