// Package lifecycle creates, starts, stops and deletes machines, and finds
// them again after a restart of the daemon. It is the only place where a
// machine changes state.
//
// Every operation has the same shape: lock the machine, check and record what
// is begun (a state in -ing), act, record the outcome. Starting is one list of
// named steps (steps.go), each a pair of do and undo. The undo is armed before
// the step acts, finds what it removes from the machine's id alone, and
// succeeds if there is nothing; so the same undos serve a failed start, stop,
// delete, and recovery after a crash.
//
// Three kinds of state, never mixed: the record ([vm.VM], in the store), the
// handle ([handle.Handle], in handles.json and a cache: how to find what
// runs), and what is live (open connections, in memory only). [Manager.Alive]
// is the one place that decides whether a machine runs.
//
// Lock order: parts or idle's looking, then a live machine's idling, then a
// machine's lock (locks), then net's mu or reserveMu, then a live machine's own
// dialing, fitting, mu and nmu, then mu, then idle's mu. Nothing slow
// happens under mu, or a live machine's mu or nmu, and nothing under mu that takes
// a live machine's. Guest I/O does not hold a machine's lock. The name server's
// questions (Lookup, Reverse) take mu alone, and the name server is not called
// with net's mu held: it waits for its answers.
package lifecycle
