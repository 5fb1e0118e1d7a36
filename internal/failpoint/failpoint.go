// Package failpoint makes a named point of the program fail, or the process
// die there, so that tests meet every crash there can be.
//
// Only a build with the tag "failpoints" can do so, as the environment
// variable BANGER_FAILPOINTS says: "start/vmm/after=crash" or
// "start/vmm/before=error", several joined by commas. In every other build
// [Hit] does nothing.
package failpoint
