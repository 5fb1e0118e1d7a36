// Package sessiondir knows what stands in the directory of one guest session.
// Its supervisor in the guest writes it; the agent reads it there while it
// grows, and the daemon reads it out of the disk of a machine that is off. All
// reading is here, over a [Dir], so that both give the same bytes.
//
//	status                     a Status as JSON, whole or not at all
//	status.spare               room for another one, for when the disk is full
//	stdout.log    stdout.idx   what the command wrote last, and its index
//	stdout.log.1  stdout.idx.1 what came before that
//	stderr.…                   likewise
//
// A log holds the bytes of the command as they are. Its two files are the
// segments of the stream; when the newer one is full it becomes the older one,
// which goes. The logical offset of a byte counts the bytes of its stream since
// the session began. Bytes that could not be written have none: a mark, a line
// of its own in the log, stands in their place.
//
// An index says at which logical offset its segment begins, and in entries
// which of the two streams wrote what first, and when (index.go).
//
// The guest's root can write anything into all of this. What is read is
// bounded and checked; a wrong index costs times and order, never bytes.
//
// # Beginning a segment
//
// These steps, in this order, so that whoever reads in between, or after a
// crash, sees only bytes in their place:
//
//	remove stdout.log.1, then stdout.idx.1
//	link stdout.idx as stdout.idx.1      two names for the index of what is full
//	rename stdout.log to stdout.log.1
//	rename a new index to stdout.idx     from here on the new segment counts
//	create stdout.log
//
// Each new index has a higher generation. A reader opens both pairs, the newer
// one first and each index before its log, and looks at the indexes again, in
// the other order: if one has changed, or the log is there now that was not, it
// begins anew. What it has opened is read up to where the newer segment begins,
// so that nothing is given twice if both names led to one file.
package sessiondir
