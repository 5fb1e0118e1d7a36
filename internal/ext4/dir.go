package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

const (
	// Bounds of ours: what a guest may make us read of one directory, and
	// what one listing holds.
	maxDirBytes = 64 << 20
	maxNames    = 100_000

	// An entry (kernel documentation, filesystems/ext4/directory.rst).
	entryHeader = 8
	minEntry    = 12
	tailBytes   = 12 // of what stands at the end of a block with a checksum
	tailKind    = 0xde
)

var errTooMany = fmt.Errorf("it has more than %d names", maxNames)

// ReadDir returns the names in a directory, "." and ".." apart, in order.
// Errors are those of [FS.Open]. What could be read is returned with an error
// that is a [*DamagedError] (the first if there are several), or that says that
// there are more than 100,000 names or 64 MiB.
func (s *FS) ReadDir(name string) ([]string, error) {
	d, err := s.walk(name)
	if err == nil {
		err = d.readable(modeDir)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	err = d.each(func(name []byte, _ uint32) error {
		if len(names) == maxNames {
			return pathError(d.path, errTooMany)
		}
		names = append(names, string(name))
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

var errFound = errors.New("found")

// lookup returns the inode that a name in a directory stands for. If it was not
// found and a part of the directory could not be read, the error is about that.
func (f *File) lookup(name string) (n uint32, err error) {
	if err := f.readable(modeDir); err != nil {
		return 0, err
	}
	err = f.each(func(entry []byte, inode uint32) error {
		if string(entry) != name {
			return nil
		}
		n = inode
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return n, nil
	case err != nil:
		return 0, err
	}
	return 0, pathError(path.Join(f.path, name), fs.ErrNotExist)
}

// each calls visit with each entry of a directory but "." and "..", until it
// returns an error, which each returns. A directory with an index is one that
// can be read from end to end, too. What cannot be read is left out, and the
// first error of that is returned at the end.
func (f *File) each(visit func(name []byte, inode uint32) error) error {
	var first error
	block := make([]byte, f.sys.blockSize)
	for off := int64(0); off < f.in.size; {
		if off >= maxDirBytes {
			return pathError(f.path, fmt.Errorf("it is a directory of %d bytes", f.in.size))
		}
		err := f.eachAt(block, off, visit)
		off += int64(len(block))
		var bad *DamagedError
		switch {
		case errors.As(err, &bad):
			off = max(off, bad.To)
			if first == nil {
				first = err
			}
		case err != nil:
			return err
		}
	}
	return first
}

// eachAt is each for the block at off, for which there is room in block.
func (f *File) eachAt(block []byte, off int64, visit func(name []byte, inode uint32) error) error {
	s, err := f.spanAt(off)
	switch {
	case err != nil:
		return err
	case s.zero:
		return f.failed(off, s.end, damaged("a hole in a directory"))
	case f.in.size-off < int64(len(block)):
		return f.failed(off, s.end, damaged("half a block of a directory"))
	}
	if _, err := f.ReadAt(block, off); err != nil {
		return err
	}
	return f.eachIn(block, off, visit)
}

// eachIn is each for one block, which stands at off.
func (f *File) eachIn(block []byte, off int64, visit func(name []byte, inode uint32) error) error {
	bad := func(at int, err error) error {
		return &DamagedError{Path: f.path, From: off + int64(at), To: off + int64(len(block)), Err: err}
	}
	if !f.sumIsRight(block) {
		return bad(0, damaged("wrong checksum"))
	}
	var wrong error
	for at := 0; at < len(block); {
		e, err := parseEntry(block[at:], len(block))
		if err != nil {
			return bad(at, err)
		}
		switch {
		case e.inode == 0 || string(e.name) == "." || string(e.name) == "..":
		case len(e.name) == 0 || bytes.ContainsAny(e.name, "/\x00"):
			wrong = bad(at, damaged("an entry of name %q", e.name))
		default:
			if err := visit(e.name, e.inode); err != nil {
				return err
			}
		}
		at += e.size
	}
	return wrong
}

// sumIsRight compares a block of a directory with its checksum. Blocks of an
// index are not checked: they hold no names.
func (f *File) sumIsRight(block []byte) bool {
	le := binary.LittleEndian
	tail := block[len(block)-tailBytes:]
	if !f.sys.sums || le.Uint32(tail) != 0 || le.Uint16(tail[4:]) != tailBytes || tail[6] != 0 || tail[7] != tailKind {
		return true
	}
	return le.Uint32(tail[8:]) == crc(f.in.seed, block[:len(block)-tailBytes])
}

// entry is one of a directory, in a block that it points into.
type entry struct {
	inode uint32 // 0: none
	size  int    // with what follows its name
	name  []byte
}

// parseEntry reads the entry at the beginning of b, the rest of a block.
func parseEntry(b []byte, blockSize int) (entry, error) {
	if len(b) < minEntry {
		return entry{}, damaged("%d bytes where an entry is due", len(b))
	}
	le := binary.LittleEndian
	e := entry{inode: le.Uint32(b), size: int(le.Uint16(b[4:]))}
	if blockSize == 1<<16 && (e.size == 0 || e.size == 1<<16-1) {
		e.size = blockSize // which 16 bits do not hold (ext4_rec_len_from_disk)
	}
	end := entryHeader + int(b[6])
	if e.size < minEntry || e.size%4 != 0 || e.size > len(b) || end > e.size {
		return entry{}, damaged("an entry of %d bytes with a name of %d", e.size, b[6])
	}
	e.name = b[entryHeader:end]
	return e, nil
}
