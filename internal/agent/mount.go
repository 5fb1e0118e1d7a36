package agent

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// mountDisk mounts one of the machine's disks into the tree. One that is to be
// filled is grown and filled before anybody can see it.
func mountDisk(ctx context.Context, d disks, t *tree, m wire.Mount) error {
	device, err := d.find(ctx, m)
	if err != nil {
		return err
	}
	if err := mountDevice(device, t, m); err != nil {
		return fmt.Errorf("mount %s disk %s (%s) on %s: %w", m.FSType, m.Serial, device, m.Target, err)
	}
	return nil
}

func mountDevice(device string, t *tree, m wire.Mount) error {
	below, err := t.openDir(m.Target, 0o755)
	if err != nil {
		return err
	}
	defer below.Close()
	top, err := mountNowhere(device, m)
	if err != nil {
		return err
	}
	defer top.Close()
	if m.Fill {
		if err := growAndFill(device, m.FSType, top, below); err != nil {
			return err
		}
	}
	return unix.MoveMount(int(top.Fd()), "", int(below.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// growAndFill makes a file system that is mounted nowhere, with its top opened by
// O_PATH, as large as its device, and fills it with what is in the directory that
// it is for.
func growAndFill(device, fsType string, mounted, below *os.File) error {
	top, err := openAt(mounted, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer top.Close()
	growOrSay(device, fsType, fdPath(top))
	return fill(top, below, filledAttr)
}

// mountNowhere mounts a device as m says, in no place: see fsmount(2).
func mountNowhere(device string, m wire.Mount) (*os.File, error) {
	fs, err := unix.Fsopen(m.FSType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", device); err != nil {
		return nil, err
	}
	flag, attrs := writableOptions(m.FSType), 0
	if m.ReadOnly {
		flag, attrs = "ro", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV
	}
	if flag != "" {
		if err := unix.FsconfigSetFlag(fs, flag); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	top, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(top), device), nil
}
