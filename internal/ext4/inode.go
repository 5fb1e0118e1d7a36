package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Where things stand in an inode (kernel documentation,
// filesystems/ext4/inodes.rst).
const (
	offMode        = 0x00
	offSizeLo      = 0x04
	offModified    = 0x10
	offLinks       = 0x1a
	offFlags       = 0x20
	offBlock       = 0x28
	offGeneration  = 0x64
	offSizeHi      = 0x6c
	offSumLo       = 0x7c
	offExtra       = 0x80 // how long the part is that begins here
	offSumHi       = 0x82
	offModifiedExt = 0x88

	minInodeSize = 128
	rootInode    = 2
	blockBytes   = 60 // of the map of blocks in an inode
)

// Flags of an inode (i_flags).
const (
	flagCompressed = 0x200 // chattr +c sets another, which means nothing
	flagEncrypted  = 0x800
	flagExtents    = 0x80000
	flagVerity     = 0x100000
	flagEAInode    = 0x200000
	flagInline     = 0x10000000
)

// Kinds of file (i_mode).
const (
	modeKind = 0xf000
	modeDir  = 0x4000
	modeFile = 0x8000
)

// kinds are what an error calls what is neither a directory nor a file.
var kinds = map[uint16]string{
	0x1000: "a FIFO", 0x2000: "a character device", modeDir: "a directory", 0x6000: "a block device",
	modeFile: "a regular file", 0xa000: "a symbolic link", 0xc000: "a socket",
}

// inode is what is of use in an inode.
type inode struct {
	mode     uint16
	flags    uint32
	size     int64 // bounded by what a file can have
	modified time.Time
	blocks   [blockBytes]byte
	seed     uint32 // with which checksums of its blocks begin
}

// inode reads an inode that something of the file system leads to.
func (s *FS) inode(n uint32) (*inode, error) {
	in, err := s.readInode(n)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", n, err)
	}
	return in, nil
}

func (s *FS) readInode(n uint32) (*inode, error) {
	if n == 0 || n > s.inodes {
		return nil, damaged("there are %d", s.inodes)
	}
	table, err := s.inodeTable((n - 1) / s.inodesPer)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, s.inodeSize)
	if err := s.read(raw, table, int64((n-1)%s.inodesPer)*s.inodeSize); err != nil {
		return nil, err
	}
	seed, err := s.checkInode(n, raw)
	if err != nil {
		return nil, err
	}
	return s.parseInode(raw, seed)
}

// extra returns how many bytes an inode has of the part that begins at
// offExtra.
func extra(raw []byte) int {
	if len(raw) == minInodeSize {
		return 0
	}
	return int(binary.LittleEndian.Uint16(raw[offExtra:]))
}

// checkInode compares an inode with its checksum, and returns with which those
// of its blocks begin.
func (s *FS) checkInode(n uint32, raw []byte) (seed uint32, err error) {
	if !s.sums {
		return 0, nil
	}
	le := binary.LittleEndian
	seed = crc(crc(s.seed, le.AppendUint32(nil, n)), raw[offGeneration:offGeneration+4])
	var zero [2]byte
	want := uint32(le.Uint16(raw[offSumLo:]))
	sum := crc(crc(crc(seed, raw[:offSumLo]), zero[:]), raw[offSumLo+2:minInodeSize])
	if extra(raw) >= offSumHi+2-offExtra {
		want |= uint32(le.Uint16(raw[offSumHi:])) << 16
		sum = crc(crc(crc(sum, raw[minInodeSize:offSumHi]), zero[:]), raw[offSumHi+2:])
	} else {
		sum = crc(sum, raw[minInodeSize:]) & 0xffff
	}
	if sum != want {
		return 0, damaged("wrong checksum")
	}
	return seed, nil
}

func (s *FS) parseInode(raw []byte, seed uint32) (*inode, error) {
	le := binary.LittleEndian
	in := &inode{
		mode:     le.Uint16(raw[offMode:]),
		flags:    le.Uint32(raw[offFlags:]),
		modified: modified(raw),
		seed:     seed,
	}
	copy(in.blocks[:], raw[offBlock:])
	size := uint64(le.Uint32(raw[offSizeLo:]))
	if in.kind() == modeFile || s.largeDirs {
		size |= uint64(le.Uint32(raw[offSizeHi:])) << 32
	}
	switch {
	case le.Uint16(raw[offLinks:]) == 0:
		return nil, damaged("it was deleted")
	case kinds[in.kind()] == "":
		return nil, damaged("mode %#o", in.mode)
	case in.flags&flagEAInode != 0:
		return nil, damaged("it holds an attribute")
	case size > s.maxSize(in):
		return nil, damaged("a size of %d bytes", size)
	}
	in.size = int64(size)
	return in, nil
}

// maxSize is how many bytes a file can have.
func (s *FS) maxSize(in *inode) uint64 {
	blocks := uint64(maxBlocks)
	if in.flags&flagExtents == 0 {
		per := uint64(s.blockSize / 4)
		blocks = min(blocks, directBlocks+per+per*per+per*per*per)
	}
	return blocks * uint64(s.blockSize)
}

// modified returns when an inode's file was last written. Two more bits of
// the seconds and the nanoseconds stand apart, if at all.
func modified(raw []byte) time.Time {
	le := binary.LittleEndian
	sec, ext := int64(int32(le.Uint32(raw[offModified:]))), uint32(0)
	if extra(raw) >= offModifiedExt+4-offExtra {
		ext = le.Uint32(raw[offModifiedExt:])
	}
	return time.Unix(sec+int64(ext&3)<<32, int64(ext>>2))
}

func (in *inode) kind() uint16 { return in.mode & modeKind }

// readable says why the blocks of an inode of a kind cannot be read.
func (in *inode) readable(kind uint16) error {
	switch {
	case in.kind() != kind:
		return fmt.Errorf("it is %s, not %s", kinds[in.kind()], kinds[kind])
	case in.flags&flagEncrypted != 0:
		return errors.New("it is encrypted")
	case in.flags&flagCompressed != 0:
		return errors.New("it is compressed, which cannot be read")
	case in.flags&flagVerity != 0:
		return errors.New("it is protected by fs-verity, which cannot be checked")
	case in.flags&flagInline != 0:
		return errors.New("its data stand in its inode (inline_data), which cannot be read")
	}
	return nil
}
