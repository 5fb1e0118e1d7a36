package dmsnap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The COW's format is that of the kernel's persistent snapshots
// (drivers/md/dm-snap-persistent.c), in chunks, all numbers little-endian:
//
//	0        header: magic, valid, version, chunk size in sectors; from byte
//	         512 on a copy of the record, so that a COW that became a
//	         template's can tell what it was made over
//	1        first area of metadata: 16 bytes for each chunk that was copied
//	2 …      as many copied chunks as an area has entries, then the next area
//
// Of chunk 0 the kernel reads 16 bytes, and writes it to mark the COW invalid
// alone.
const (
	sectorSize   = 512
	chunkSectors = 8
	chunkSize    = chunkSectors * sectorSize
	areaEntries  = chunkSize / 16
	recordAt     = 512 // in chunk 0

	cowMagic   = 0x70416e53 // "SnAp"
	cowVersion = 1

	// maxSize is the largest disk, in bytes: far beyond every host.
	maxSize = 64 << 40
)

// cowSize returns how large a COW is that holds every chunk of a disk of size
// bytes, and so cannot overflow: the header, the chunks, and their areas. When
// an area is full the kernel wipes the next one at once, so there is one more
// area than n full ones take.
func cowSize(size int64) int64 {
	n := (size + chunkSize - 1) / chunkSize
	return (1 + n + n/areaEntries + 1) * chunkSize
}

// cowHeader returns the header of a COW that holds nothing yet. The kernel
// would write the same where it finds zeros; but then a COW whose first chunk
// was lost would pass for an empty one.
func cowHeader() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, cowMagic)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, cowVersion)
	return le.AppendUint32(b, chunkSectors)
}

// firstChunk returns chunk 0 of the COW that r tells of. What follows is as it
// was: holes in a new one.
func firstChunk(r record) ([]byte, error) {
	text := r.encode()
	if len(text) > chunkSize-recordAt {
		return nil, fmt.Errorf("the record of what it is made over takes %d bytes, and may take %d", len(text), chunkSize-recordAt)
	}
	b := make([]byte, chunkSize)
	copy(b, cowHeader())
	copy(b[recordAt:], text)
	return b, nil
}

// checkHeader reports a header with which the kernel would not take the COW
// for what it is.
func checkHeader(b []byte) error {
	le := binary.LittleEndian
	switch {
	case len(b) < 16 || le.Uint32(b) != cowMagic:
		return errors.New("it is no COW of a snapshot")
	case le.Uint32(b[8:]) != cowVersion:
		return fmt.Errorf("it is a COW of version %d", le.Uint32(b[8:]))
	case le.Uint32(b[12:]) != chunkSectors:
		return fmt.Errorf("it is a COW with chunks of %d sectors, not of %d", le.Uint32(b[12:]), chunkSectors)
	case le.Uint32(b[4:]) != 1:
		return errors.New("the kernel has marked it invalid: a write to it failed, and what came after is lost")
	}
	return nil
}
