package ext4

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// Where things stand in a group's descriptor (kernel documentation,
	// filesystems/ext4/group_descr.rst).
	offTableLo = 0x08
	offTableHi = 0x28

	descSize    = 32
	minDescSize = 64 // with 64bit
	maxDescSize = 1024

	compatSparse2  = 0x200
	roCompatSparse = 0x1
)

// groups says where the descriptors of the block groups stand.
type groups struct {
	descSize   int64
	perBlock   uint64 // descriptors in a block
	firstData  uint64 // the block of the superblock
	blocksPer  uint64 // blocks of a group
	metaFrom   uint64 // the block of descriptors from which on they stand in their groups (meta_bg)
	sparse     bool   // few groups have a copy of the superblock
	sparse2    bool   // at most two have one:
	backups    [2]uint32
	smallFirst bool // 1 KiB blocks that are counted from the file's beginning
}

func newGroups(b *[superSize]byte, blockSize int64) (groups, error) {
	le := binary.LittleEndian
	g := groups{
		descSize:  descSize,
		firstData: uint64(le.Uint32(b[offFirstData:])),
		blocksPer: uint64(le.Uint32(b[offPerGroup:])),
		metaFrom:  math.MaxUint64,
		sparse:    le.Uint32(b[offROCompat:])&roCompatSparse != 0,
		sparse2:   le.Uint32(b[offCompat:])&compatSparse2 != 0,
		backups:   [2]uint32{le.Uint32(b[offBackups:]), le.Uint32(b[offBackups+4:])},
	}
	incompat := le.Uint32(b[offIncompat:])
	if incompat&incompat64Bit != 0 {
		g.descSize = int64(le.Uint16(b[offDescSize:]))
		if g.descSize < minDescSize || g.descSize > maxDescSize || g.descSize&(g.descSize-1) != 0 {
			return g, fmt.Errorf("descriptors of %d bytes", g.descSize)
		}
	}
	if incompat&incompatMetaBG != 0 {
		g.metaFrom = uint64(le.Uint32(b[offFirstMetaBG:]))
	}
	g.perBlock = uint64(blockSize / g.descSize)
	g.smallFirst = blockSize == 1024 && g.firstData == 0
	return g, nil
}

// descriptor returns where the descriptor of a group stands: the block, which
// may be anywhere, and the byte in it.
func (g *groups) descriptor(group uint32) (block uint64, at int64) {
	n, i := uint64(group)/g.perBlock, uint64(group)%g.perBlock
	at = int64(i) * g.descSize
	if n < g.metaFrom {
		block = g.firstData + 1 + n
		if g.smallFirst {
			block++ // the superblock is block 1
		}
		return block, at
	}
	first := uint32(n * g.perBlock)
	block = g.firstData + uint64(first)*g.blocksPer
	if g.hasSuper(first) {
		block++
	}
	if g.smallFirst && n == 0 {
		block++
	}
	return block, at
}

// hasSuper reports whether a group begins with a copy of the superblock (kernel
// documentation, filesystems/ext4/blockgroup.rst).
func (g *groups) hasSuper(group uint32) bool {
	switch {
	case group == 0:
		return true
	case g.sparse2:
		return group == g.backups[0] || group == g.backups[1]
	case group == 1 || !g.sparse:
		return true
	}
	return powerOf(3, group) || powerOf(5, group) || powerOf(7, group)
}

func powerOf(base, n uint32) bool {
	for n%base == 0 && n > 0 {
		n /= base
	}
	return n == 1
}

// inodeTable returns the block in which the inodes of a group begin, which may
// be anywhere. The descriptor's checksum is not looked at: the inodes have
// theirs, and what else is wrong in it does no harm to a reader.
func (s *FS) inodeTable(group uint32) (uint64, error) {
	block, at := s.groups.descriptor(group)
	var b [minDescSize]byte
	d := b[:min(s.groups.descSize, minDescSize)]
	if err := s.read(d, block, at); err != nil {
		return 0, fmt.Errorf("descriptor of group %d: %w", group, err)
	}
	le := binary.LittleEndian
	table := uint64(le.Uint32(d[offTableLo:]))
	if len(d) == minDescSize {
		table |= uint64(le.Uint32(d[offTableHi:])) << 32
	}
	return table, nil
}
