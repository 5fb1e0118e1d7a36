package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Features that a reader must know (s_feature_incompat; kernel documentation,
// filesystems/ext4/super.rst).
const (
	incompatFiletype   = 0x2
	incompatRecover    = 0x4
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatSeed       = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	// incompatKnown are those with which a file system can be read. Of some,
	// single inodes are refused.
	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit |
		incompatMMP | incompatFlexBG | incompatEAInode | incompatSeed | incompatLargeDir |
		incompatInlineData | incompatEncrypt | incompatCasefold
)

// FS is a file system that is read without mounting it, and without trusting
// anything in it: no number that stands there makes it use more than a few
// blocks of memory, or a time that is out of proportion to what was asked for.
// Its methods may be called concurrently.
type FS struct {
	r         io.ReaderAt
	blockSize int64
	blocks    uint64 // as many as it has and as are there
	inodes    uint32
	inodesPer uint32 // in a group
	inodeSize int64
	largeDirs bool
	groups    groups
	sums      bool   // metadata has checksums
	seed      uint32 // with which they begin
}

// OpenFS opens the file system in the first sizeBytes bytes of r, which must
// not change as long as it is used. One that has no superblock is an
// [ErrNoFileSystem]. One with features that are not known is refused. One that
// is longer than r is read as far as r goes.
//
// The journal is not looked at. A file system that was not unmounted cleanly
// (its machine crashed) is read as it stands: what was written last may be
// missing, or be half there and seem damaged, until [Replay] was called.
func OpenFS(r io.ReaderAt, sizeBytes int64) (*FS, error) {
	b, super, err := readSuper(io.NewSectionReader(r, 0, sizeBytes))
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	incompat := le.Uint32(b[offIncompat:])
	if unknown := incompat &^ incompatKnown; unknown != 0 {
		return nil, fmt.Errorf("ext4 with unknown incompatible features %#x", unknown)
	}
	s := &FS{
		r:         r,
		blockSize: super.BlockSize,
		blocks:    uint64(min(super.SizeBytes, sizeBytes) / super.BlockSize),
		inodes:    le.Uint32(b[offInodes:]),
		inodesPer: le.Uint32(b[offInodesPer:]),
		inodeSize: minInodeSize,
		largeDirs: incompat&incompatLargeDir != 0,
		sums:      le.Uint32(b[offROCompat:])&roCompatChecksum != 0,
		seed:      crc(noSum, super.UUID[:]),
	}
	if incompat&incompatSeed != 0 {
		s.seed = le.Uint32(b[offChecksumSeed:])
	}
	if le.Uint32(b[offRevision:]) > 0 {
		s.inodeSize = int64(le.Uint16(b[offInodeSize:]))
	}
	if s.inodeSize < minInodeSize || s.inodeSize > s.blockSize || s.inodeSize&(s.inodeSize-1) != 0 {
		return nil, fmt.Errorf("%w: inodes of %d bytes", ErrNoFileSystem, s.inodeSize)
	}
	if s.groups, err = newGroups(b, super.BlockSize); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoFileSystem, err)
	}
	return s, nil
}

// read fills p with what stands at byte at of a block. It is an [ErrDamaged] if
// that is not in the file system. at is at most 2^48.
func (s *FS) read(p []byte, block uint64, at int64) error {
	if block >= s.blocks || int64(block)*s.blockSize+at > int64(s.blocks)*s.blockSize-int64(len(p)) {
		return damaged("block %d is outside the file system", block+uint64(at/s.blockSize))
	}
	n, err := s.r.ReadAt(p, int64(block)*s.blockSize+at)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF // it is no end of a file in it
	}
	return err
}

// block reads a block of metadata, of which none is the first.
func (s *FS) block(n uint64) ([]byte, error) {
	if n == 0 {
		return nil, damaged("block 0 as metadata")
	}
	b := make([]byte, s.blockSize)
	if err := s.read(b, n, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// maxBlocks is how many blocks a file can have (32 bits of
// ext4_extent.ee_block).
const maxBlocks = math.MaxUint32 + 1
