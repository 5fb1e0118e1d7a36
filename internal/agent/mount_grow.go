package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is needed of ext4's superblock (kernel documentation,
// filesystems/ext4/super.rst), which begins 1024 bytes into the device.
const (
	superOffset    = 1024
	superSize      = 1024
	superBlocksLo  = 0x04
	superLogBlock  = 0x18
	superMagic     = 0x38
	superIncompat  = 0x60
	superBlocksHi  = 0x150
	ext4Magic      = 0xef53
	incompat64Bit  = 0x80
	maxLogBlock    = 6          // 64 KiB
	ioctlResizeFS  = 0x40086610 // EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64)
	minimumGrowing = 1 << 20    // a tail shorter than this may be no use to ext4
)

// grow makes the ext4 file system that is mounted at dir as large as its
// device, if that has more room. It runs while the file system is mounted and
// may be cut off at any point: ext4 grows in steps that its journal guards.
func grow(device string, dir *os.File) error {
	blocks, blockSize, err := wantBlocks(device)
	if err != nil || blocks == 0 {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ioctlResizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return fmt.Errorf("grow file system on %s to %d bytes: %w", device, blocks*blockSize, errno)
	}
	return nil
}

// wantBlocks returns how many blocks, of which size, the file system on a
// device should have; 0 if it is fine as it is.
func wantBlocks(device string) (blocks, blockSize uint64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, fmt.Errorf("size of %s: %w", device, err)
	}
	super := make([]byte, superSize)
	if _, err := f.ReadAt(super, superOffset); err != nil {
		return 0, 0, fmt.Errorf("read superblock of %s: %w", device, err)
	}
	have, blockSize, err := parseSuper(super)
	if err != nil {
		return 0, 0, fmt.Errorf("superblock of %s: %w", device, err)
	}
	blocks = uint64(size) / blockSize
	if blocks < have || (blocks-have)*blockSize < minimumGrowing {
		return 0, blockSize, nil
	}
	return blocks, blockSize, nil
}

// parseSuper returns the size of the file system that a superblock tells of.
func parseSuper(super []byte) (blocks, blockSize uint64, err error) {
	le := binary.LittleEndian
	if len(super) < superSize || le.Uint16(super[superMagic:]) != ext4Magic {
		return 0, 0, errors.New("not of ext4")
	}
	log := le.Uint32(super[superLogBlock:])
	if log > maxLogBlock {
		return 0, 0, fmt.Errorf("blocks of 2^%d KiB", log)
	}
	blocks = uint64(le.Uint32(super[superBlocksLo:]))
	if le.Uint32(super[superIncompat:])&incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(super[superBlocksHi:])) << 32
	}
	return blocks, 1024 << log, nil
}
