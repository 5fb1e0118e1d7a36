// Package version tells which build this is. The build sets the variables.
package version

// Set by the linker; see the Makefile.
var (
	Version = "unknown" // git describe
	Commit  = "unknown"
	Date    = "unknown" // of the commit, RFC 3339
)

// String returns all three on one line.
func String() string { return Version + " (commit " + Commit + ", " + Date + ")" }
