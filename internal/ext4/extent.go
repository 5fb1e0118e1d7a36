package ext4

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// The extent tree (kernel documentation, filesystems/ext4/ifork.rst).
const (
	extentMagic  = 0xf30a
	extentHeader = 12 // bytes; an entry is as long
	extentEntry  = 12
	maxDepth     = 5     // EXT4_MAX_EXTENT_DEPTH
	maxExtent    = 32768 // blocks; a length beyond that is of an extent that was not written
)

// extentLeaf goes down from the root in the inode to the leaf with block n.
func (s *FS) extentLeaf(in *inode, n uint64) leaf {
	l := leaf{end: maxBlocks}
	node := in.blocks[:]
	depth := binary.LittleEndian.Uint16(node[6:])
	if depth > maxDepth {
		return l.broken(damaged("an extent tree of depth %d", depth))
	}
	for ; ; depth-- {
		entries, err := extents(node, depth)
		if err != nil {
			return l.broken(err)
		}
		if depth == 0 {
			return l.extents(entries)
		}
		child, err := l.descend(entries, n)
		if err != nil || child == 0 {
			return l.broken(err)
		}
		if node, err = s.extentBlock(in, child); err != nil {
			return l.broken(fmt.Errorf("extent block %d: %w", child, err))
		}
	}
}

// extentBlock reads a node of the tree that is not its root.
func (s *FS) extentBlock(in *inode, n uint64) ([]byte, error) {
	b, err := s.block(n)
	if err != nil || !s.sums {
		return b, err
	}
	le := binary.LittleEndian
	tail := extentHeader + extentEntry*int(le.Uint16(b[4:]))
	if tail+4 > len(b) || crc(in.seed, b[:tail]) != le.Uint32(b[tail:]) {
		return nil, damaged("wrong checksum")
	}
	return b, nil
}

// extents returns the entries of a node, checking its header.
func extents(node []byte, depth uint16) ([]byte, error) {
	le := binary.LittleEndian
	used, room := int(le.Uint16(node[2:])), int(le.Uint16(node[4:]))
	switch {
	case le.Uint16(node) != extentMagic:
		return nil, damaged("no node of an extent tree")
	case le.Uint16(node[6:]) != depth:
		return nil, damaged("a node of depth %d where %d is due", le.Uint16(node[6:]), depth)
	case used > room || room > (len(node)-extentHeader)/extentEntry:
		return nil, damaged("a node of %d entries with room for %d", used, room)
	}
	return node[extentHeader : extentHeader+used*extentEntry], nil
}

// descend narrows l to what the child with block n of an index node holds, and
// returns where that stands; 0 if block n is in front of them all, in a hole.
func (l *leaf) descend(entries []byte, n uint64) (child uint64, err error) {
	le := binary.LittleEndian
	count := len(entries) / extentEntry
	first := func(i int) uint64 { return uint64(le.Uint32(entries[i*extentEntry:])) }
	if count == 0 {
		return 0, damaged("an index node without entries")
	}
	for i := range count {
		if first(i) < l.first || first(i) >= l.end || i > 0 && first(i) <= first(i-1) {
			return 0, damaged("an index node out of order")
		}
	}
	i := sort.Search(count, func(i int) bool { return first(i) > n })
	if i < count {
		l.end = first(i)
	}
	if i == 0 {
		return 0, nil
	}
	l.first = first(i - 1)
	e := entries[(i-1)*extentEntry:]
	child = uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32
	if child == 0 {
		return 0, damaged("block 0 as an extent block")
	}
	return child, nil
}

// extents reads the extents of the leaf node of l.
func (l leaf) extents(entries []byte) leaf {
	le := binary.LittleEndian
	l.spans = make([]span, 0, len(entries)/extentEntry)
	last := l.first
	for ; len(entries) > 0; entries = entries[extentEntry:] {
		s := span{
			first: uint64(le.Uint32(entries)),
			disk:  uint64(le.Uint32(entries[8:])) | uint64(le.Uint16(entries[6:]))<<32,
		}
		n := uint64(le.Uint16(entries[4:]))
		if n > maxExtent {
			s.zero, n = true, n-maxExtent
		}
		s.end = s.first + n
		if n == 0 || s.first < last || s.end > l.end {
			return l.broken(damaged("extents out of order"))
		}
		l.spans, last = append(l.spans, s), s.end
	}
	return l
}
