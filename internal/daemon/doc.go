// Package daemon builds the daemon from its parts, runs it, and stops it in
// reverse. It decides nothing but which mechanism stands behind which
// contract.
//
// Order of starting: lock the root, directories, database, parts, recovery
// (bounded), socket. The socket opens last: who can connect finds records and
// host in agreement.
package daemon
