package ext4

import "sort"

// span is a run of a file's blocks that stand one behind the other on the disk,
// or that are all zeros.
type span struct {
	first, end uint64 // blocks of the file; end is not among them
	disk       uint64 // where the first of them stands: anywhere
	zero       bool
}

// leaf is what one block of a file's map says: of the file's blocks from first
// up to end, where each stands. What no span holds is a hole.
type leaf struct {
	first, end uint64
	spans      []span // in order
	err        error  // none of it can be read
}

// broken is l if it cannot be read.
func (l leaf) broken(err error) leaf {
	l.spans, l.err = nil, err
	return l
}

// at returns the rest of the span in which block n is, which is in l.
func (l *leaf) at(n uint64) span {
	i := sort.Search(len(l.spans), func(i int) bool { return l.spans[i].end > n })
	if i == len(l.spans) {
		return span{first: n, end: l.end, zero: true}
	}
	s := l.spans[i]
	if s.first > n {
		return span{first: n, end: s.first, zero: true}
	}
	return span{first: n, end: s.end, disk: s.disk + n - s.first, zero: s.zero}
}

// leafAt finds the leaf with block n of an inode's file.
func (s *FS) leafAt(in *inode, n uint64) leaf {
	if in.flags&flagExtents != 0 {
		return s.extentLeaf(in, n)
	}
	return s.mapLeaf(in, n)
}
