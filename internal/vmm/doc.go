// Package vmm defines what banger needs of a virtual machine monitor.
//
// The life of a machine's VMM: [Driver.Launch] starts a process that outlives
// the daemon; the [Machine] it returns is the live connection to it. After a
// restart of the daemon the process is found again by its [Signature], and
// [Driver.Attach] connects anew. The machine ends by itself (guest power-off,
// reboot, crash) or is ended by killing the process, which is not the driver's
// to do: whoever found it by its signature does. [Driver.CleanUp] then removes
// what the VMM left in the file system.
//
// A driver is given plain values and looks nothing up. What every driver
// promises is checked by package vmmtest.
package vmm
