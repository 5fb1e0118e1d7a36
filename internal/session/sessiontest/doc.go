// Package sessiontest is a pretend guest for tests of sessions: its agent keeps
// them in memory. A command that is started runs until it is ended, and echoes
// its input as cat does; it exits when that ends. One whose name is Missing
// cannot be found.
package sessiontest
