package ext4

import (
	"encoding/binary"
	"fmt"
)

// directBlocks is how many blocks of a file without extents its inode names
// itself; the next three words name an indirect block, one of two levels and
// one of three (kernel documentation, filesystems/ext4/ifork.rst).
const directBlocks = 12

// mapLeaf goes down from the map in the inode to the leaf with block n.
func (s *FS) mapLeaf(in *inode, n uint64) leaf {
	l := leaf{end: directBlocks}
	per := uint64(s.blockSize / 4)
	size := uint64(1) // blocks that a word at this level stands for
	level := 0
	for ; n >= l.end && level < 3; level++ {
		size *= per
		l.first, l.end = l.end, l.end+size
	}
	if level == 0 {
		return l.pointers(in.blocks[:4*directBlocks])
	}
	le := binary.LittleEndian
	for word := in.blocks[4*(directBlocks+level-1):]; ; {
		at := uint64(le.Uint32(word))
		if at == 0 {
			return l // all of it is a hole
		}
		b, err := s.block(at)
		if err != nil {
			return l.broken(fmt.Errorf("indirect block %d: %w", at, err))
		}
		if size /= per; size == 1 {
			return l.pointers(b)
		}
		i := (n - l.first) / size
		l.first += i * size
		l.end = l.first + size
		word = b[4*i:]
	}
}

// pointers reads the words of the leaf block of l, one for each block.
func (l leaf) pointers(words []byte) leaf {
	for n := l.first; len(words) > 0; n, words = n+1, words[4:] {
		disk := uint64(binary.LittleEndian.Uint32(words))
		if disk == 0 {
			continue
		}
		if k := len(l.spans); k > 0 && l.spans[k-1].end == n && l.spans[k-1].disk+n-l.spans[k-1].first == disk {
			l.spans[k-1].end++
			continue
		}
		l.spans = append(l.spans, span{first: n, end: n + 1, disk: disk})
	}
	return l
}
