// Package vm defines the durable record of a machine, the rules for its name,
// and the table of legal states. It is pure: nothing here touches the host.
//
// Words: a machine is *created* (record and disks), *started* (a VMM process),
// *stopped*, *deleted*. An *ephemeral* machine is leased to the call that made
// it and is deleted when that call ends. A state in -ing was begun and its end
// not yet recorded.
package vm
