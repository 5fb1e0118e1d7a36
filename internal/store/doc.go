// Package store keeps the durable records in one SQLite file:
//
//	banger.db            "bngr" as application_id, the number of the last
//	  │                  migration as user_version
//	  ├─ machines        one row per machine: vm.VM, spec and all; id, name,
//	  │                  uid and vsock_cid are unique
//	  ├─ network         one row: the subnet of machines' addresses
//	  └─ sessions        one row per session: session.Session; id, and name in
//	                     its machine, are unique; gone with their machine
//	banger.db-wal, -shm  SQLite's own, part of the database while they stand
//	banger.db.bak-<n>    the database as it was before it was upgraded from
//	                     schema version n
//
// Nothing that was last seen of a running machine is in here; that is a
// handle.Handle. Where its sessions were last seen to stand is: they outlive
// it.
//
// An exported method is one transaction with one time, taken from
// Options.Now. It is durable when the method returns. On an error nothing of
// it is recorded, with one exception that no database can spare its users: if
// the host fails to say whether it wrote, the record may be either. Methods may
// be called concurrently, in one process; the daemon's lock on its root keeps
// out others.
//
// Lower-case functions that take (ctx, tx, …) hold the SQL. What must always
// be true of a record stands in the schema; the order of a machine's states is
// package vm's, and that of a session's package session's, checked in the
// transaction that writes.
//
// The schema version is SQLite's user_version and not a row of a table: it is
// written in the transaction of the migration all the same (it stands in the
// header of the file, a page like any other), it is there before any table
// is, and it can be read whatever the tables have become.
package store
