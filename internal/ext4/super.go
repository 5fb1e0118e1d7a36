package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Where things stand in a superblock, which begins 1024 bytes into the file
// system (kernel documentation, filesystems/ext4/globals.rst).
const (
	superOffset = 1024
	superSize   = 1024

	offInodes       = 0x00
	offBlocksLo     = 0x04
	offFirstData    = 0x14
	offLogBlock     = 0x18
	offPerGroup     = 0x20
	offInodesPer    = 0x28
	offMagic        = 0x38
	offRevision     = 0x4c
	offInodeSize    = 0x58
	offCompat       = 0x5c
	offIncompat     = 0x60
	offROCompat     = 0x64
	offUUID         = 0x68
	offLabel        = 0x78
	offDescSize     = 0xfe
	offFirstMetaBG  = 0x104
	offBlocksHi     = 0x150
	offChecksumType = 0x175
	offBackups      = 0x24c
	offChecksumSeed = 0x270
	offChecksum     = 0x3fc

	magic            = 0xef53
	incompat64Bit    = 0x80
	roCompatChecksum = 0x400 // metadata_csum
	checksumCRC32C   = 1
	maxLogBlock      = 6 // 64 KiB

	minSize = 1 << 20
	maxSize = 1 << 60 // 1 EiB, ext4's own limit
)

// Super is what is of use in a superblock.
type Super struct {
	SizeBytes int64
	BlockSize int64
	UUID      [16]byte
	Label     string // as it stands there: any bytes
}

// ErrNoFileSystem is what is wrong with something that is no ext4 file system,
// or one whose superblock is damaged.
var ErrNoFileSystem = errors.New("no ext4 file system")

// ReadSuper reads the superblock of a file system and checks that it makes
// sense, by its checksum where it has one. What it returns may still have been
// written by anybody; no more than that is checked. An error that is not of
// reading is an [ErrNoFileSystem].
func ReadSuper(r io.ReaderAt) (Super, error) {
	_, s, err := readSuper(r)
	return s, err
}

// readSuper is ReadSuper, and returns the superblock as it stands too.
func readSuper(r io.ReaderAt) (*[superSize]byte, Super, error) {
	var b [superSize]byte
	if n, err := r.ReadAt(b[:], superOffset); n < superSize && errors.Is(err, io.EOF) {
		return nil, Super{}, fmt.Errorf("%w: too short", ErrNoFileSystem)
	} else if n < superSize {
		return nil, Super{}, err
	}
	s, err := parse(&b)
	if err != nil {
		return nil, Super{}, fmt.Errorf("%w: %w", ErrNoFileSystem, err)
	}
	return &b, s, nil
}

func parse(b *[superSize]byte) (Super, error) {
	le := binary.LittleEndian
	if le.Uint16(b[offMagic:]) != magic {
		return Super{}, errors.New("wrong magic number")
	}
	if le.Uint32(b[offROCompat:])&roCompatChecksum != 0 {
		if b[offChecksumType] != checksumCRC32C || le.Uint32(b[offChecksum:]) != crc(noSum, b[:offChecksum]) {
			return Super{}, errors.New("wrong checksum")
		}
	}
	log := le.Uint32(b[offLogBlock:])
	if log > maxLogBlock {
		return Super{}, fmt.Errorf("blocks of 2^%d KiB", log)
	}
	s := Super{BlockSize: 1024 << log}
	blocks := uint64(le.Uint32(b[offBlocksLo:]))
	if le.Uint32(b[offIncompat:])&incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(b[offBlocksHi:])) << 32
	}
	if blocks == 0 || blocks > maxSize/uint64(s.BlockSize) {
		return Super{}, fmt.Errorf("%d blocks", blocks)
	}
	if le.Uint32(b[offInodes:]) == 0 || le.Uint32(b[offPerGroup:]) == 0 || le.Uint32(b[offInodesPer:]) == 0 {
		return Super{}, errors.New("groups without blocks or inodes")
	}
	s.SizeBytes = int64(blocks) * s.BlockSize
	copy(s.UUID[:], b[offUUID:])
	label := b[offLabel : offLabel+16]
	for i, c := range label {
		if c == 0 {
			label = label[:i]
			break
		}
	}
	s.Label = string(label)
	return s, nil
}

// Check reads the superblock of the file system in the image file at path. It
// is an error if the file is too short for it.
func Check(path string) (Super, error) {
	f, err := os.Open(path)
	if err != nil {
		return Super{}, err
	}
	defer f.Close()
	s, err := ReadSuper(f)
	if err != nil {
		return Super{}, fmt.Errorf("%s: %w", path, err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Super{}, err
	}
	if size < s.SizeBytes {
		return Super{}, fmt.Errorf("%s: file system of %d bytes in a file of %d: %w", path, s.SizeBytes, size, io.ErrUnexpectedEOF)
	}
	return s, nil
}
