package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

func TestFindDisk(t *testing.T) {
	sys := t.TempDir()
	put(t, sys, "vda/serial", "work\n")
	put(t, sys, "vdb/serial", "root\n")
	put(t, sys, "loop0/size", "0\n")
	never := func(context.Context) error { t.Error("waited"); return errors.New("waited") }
	got, err := disks{sys, never}.find(t.Context(), wire.Mount{Serial: "root"})
	if got != "/dev/vdb" || err != nil {
		t.Errorf("find = %s, %v; want /dev/vdb", got, err)
	}
}

// Where disks have no serials of ours they are found by their places on the
// bus, whatever their names.
func TestFindDiskByPosition(t *testing.T) {
	sys := t.TempDir()
	for name, bus := range map[string]string{"vda": "virtio9", "vdb": "virtio10", "vdc": "virtio2", "vdd": "../usb1"} {
		put(t, sys, name+"/size", "0\n")
		if err := os.Symlink("../../"+bus, filepath.Join(sys, name, "device")); err != nil {
			t.Fatal(err)
		}
	}
	never := func(context.Context) error { return errors.New("waited") }
	for i, want := range []string{"/dev/vdc", "/dev/vda", "/dev/vdb"} {
		got, err := disks{sys, never}.find(t.Context(), wire.Mount{Serial: "x", Position: i + 1})
		if got != want || err != nil {
			t.Errorf("find(%d) = %s, %v; want %s", i+1, got, err, want)
		}
	}
	if got, err := (disks{sys, never}).find(t.Context(), wire.Mount{Serial: "x", Position: 4}); err == nil {
		t.Errorf("find(4) = %s", got)
	}
}

func TestFindDiskLater(t *testing.T) {
	sys := t.TempDir()
	put(t, sys, "vda/serial", "other\n")
	waits := 0
	later := func(context.Context) error {
		if waits++; waits == 2 {
			put(t, sys, "vdb/serial", "root\n")
		}
		return nil
	}
	got, err := disks{sys, later}.find(t.Context(), wire.Mount{Serial: "root"})
	if got != "/dev/vdb" || err != nil || waits != 2 {
		t.Errorf("find = %s, %v after %d waits", got, err, waits)
	}
}

// TestFindDiskNever waits on the kernel's own announcements until the deadline.
func TestFindDiskNever(t *testing.T) {
	sys := t.TempDir()
	put(t, sys, "vda/serial", "other\n")
	events, err := listenUevents()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = disks{sys, deviceEvents{events}.wait}.find(ctx, wire.Mount{Serial: "root"})
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "[other]") {
		t.Errorf("find = %v, want what is there and that the time is up", err)
	}
}

func TestLoadModules(t *testing.T) {
	if err := loadModules(t.TempDir() + "/none"); err != nil {
		t.Errorf("without modules: %v", err)
	}
	dir := t.TempDir()
	put(t, dir, "000-a.ko", "no module")
	put(t, dir, "001-b.ko", "no module")
	err := loadModules(dir)
	if err == nil || !strings.Contains(err.Error(), "000-a.ko") || !strings.Contains(err.Error(), "001-b.ko") {
		t.Errorf("loadModules = %v, want both errors", err)
	}
}

// superblock makes one of ext4.
func superblock(blocks uint64, log uint32, incompat uint32) []byte {
	s := make([]byte, superSize)
	le := binary.LittleEndian
	le.PutUint16(s[superMagic:], ext4Magic)
	le.PutUint32(s[superLogBlock:], log)
	le.PutUint32(s[superIncompat:], incompat)
	le.PutUint32(s[superBlocksLo:], uint32(blocks))
	le.PutUint32(s[superBlocksHi:], uint32(blocks>>32))
	return s
}

func TestParseSuper(t *testing.T) {
	tests := map[string]struct {
		super        []byte
		blocks, size uint64
		fails        bool
	}{
		"4 KiB blocks":     {superblock(1000, 2, 0), 1000, 4096, false},
		"1 KiB blocks":     {superblock(1000, 0, 0), 1000, 1024, false},
		"64 bit":           {superblock(5<<32|7, 2, incompat64Bit), 5<<32 | 7, 4096, false},
		"32 bit, high set": {superblock(5<<32|7, 2, 0), 7, 4096, false},
		"block size":       {superblock(1000, 7, 0), 0, 0, true},
		"other magic":      {make([]byte, superSize), 0, 0, true},
		"short":            {superblock(1, 0, 0)[:100], 0, 0, true},
	}
	for name, tt := range tests {
		blocks, size, err := parseSuper(tt.super)
		if blocks != tt.blocks || size != tt.size || (err != nil) != tt.fails {
			t.Errorf("%s: %d blocks of %d, %v", name, blocks, size, err)
		}
	}
}

func FuzzParseSuper(f *testing.F) {
	f.Add(superblock(1000, 2, incompat64Bit))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, super []byte) {
		if _, size, err := parseSuper(super); err == nil && (size < 1024 || size > 64<<10) {
			t.Errorf("blocks of %d bytes", size)
		}
	})
}

func TestWantBlocks(t *testing.T) {
	for name, tt := range map[string]struct {
		blocks uint64 // of 4 KiB, in the file system
		bytes  int64  // of the device
		want   uint64
	}{
		"fits":             {1024, 4 << 20, 0},
		"a short tail":     {1024, 4<<20 + 512<<10, 0},
		"grows":            {1024, 16 << 20, 4096},
		"sparse and large": {1024, 16 << 30, 4 << 20},
		// Shrinking is nobody's wish; the mount has failed before.
		"device smaller": {4096, 4 << 20, 0},
	} {
		dev := t.TempDir() + "/dev"
		if err := os.WriteFile(dev, append(make([]byte, superOffset), superblock(tt.blocks, 2, 0)...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(dev, tt.bytes); err != nil {
			t.Fatal(err)
		}
		got, _, err := wantBlocks(dev)
		if got != tt.want || err != nil {
			t.Errorf("%s: %d blocks, %v; want %d", name, got, err, tt.want)
		}
	}
}

// TestGrowFails: what cannot grow says so and is left as it is.
func TestGrowFails(t *testing.T) {
	dev := t.TempDir() + "/dev"
	if err := os.WriteFile(dev, append(make([]byte, superOffset), superblock(16, 2, 0)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dev, 8<<20); err != nil {
		t.Fatal(err)
	}
	pipe, w, err := os.Pipe() // knows no such ioctl
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	if err := grow(dev, pipe); !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("grow = %v", err)
	}
}
