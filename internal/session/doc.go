// Package session holds commands in machines that outlive whoever started
// them: their record, the rules of it, and what can be done with them.
//
// What is true of a session now (does it run, how did it end) is the guest's to
// say; the record is what was last heard. So every read, and every verb before
// it acts, brings records up to date first: of a machine that is up its agent
// is asked, of one that is stopped the status files on its work disk. A session
// that nobody knows of any more has failed. What a guest says is hostile input:
// bounded, printable, and taken only for sessions that were asked for (told.go).
//
// A session's id is chosen before anything is done in the guest, and recorded
// as starting. So a daemon that dies in the middle of a start leaves a record
// that the next read brings up to date.
//
// Order in time: records are loaded first, then the starts that are under way
// are looked at, then the machine's state, then the guest is asked. In any
// other order a session that has just begun could be taken for one that has
// gone. Writing checks once more: a session that has ended never becomes
// another.
//
// Lock order: mu is held for moments and calls nothing.
package session
