// Package handle keeps the transient half of a machine's state: how to find
// the running thing again (its process, loop devices, device-mapper target and
// tap). It is worth time, never correctness: whatever is lost here is found by
// the names that are computed from a machine's id.
//
// A [Handle] stands in handles.json in the machine's directory and in a
// [Cache] in memory; the file is written first, so a crash in between leaves
// the file that is right. That directory belongs to the unprivileged user of
// the machine's VMM, who may plant anything there: only a regular file of our
// own is read, and nothing but the machine's own handle of this boot of the
// host is believed.
//
// A [Finder] finds a VMM process in the process table, which always wins over
// the file. A process is held by a pidfd that was opened before its identity
// was checked and that still stood for a living process afterwards; so what is
// done to it is never done to another that was given its pid.
package handle
