package dmsnap

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// The kernel's side of this file is linux/dm-ioctl.h: a request is a struct
// dm_ioctl and data behind it, and the answer comes in the same memory.

const (
	controlPath = "/dev/mapper/control"
	maxName     = unix.DM_NAME_LEN

	// answerSize is room for every table of ours, many times over.
	answerSize = 16 << 10
)

// udevFlags tell udev's rules, in an event's cookie, to make the link in
// /dev/mapper and look no further (libdevmapper.h, DM_UDEV_*). What the disk
// holds was written by a guest: no probe of file systems, no volume manager is
// to read it. There is no semaphore behind the cookie: nobody waits for udev.
const udevFlags = (0x2 /* no subsystem's rules */ | 0x4 /* no rules for disks */ |
	0x8 /* no others */ | 0x40 /* this is the event that counts */) << 16

// dmAnswer is what the kernel says of a device.
type dmAnswer struct {
	dev   uint64
	flags uint32
	count uint32 // of targets in data
	data  []byte
}

// dmCall makes one request of device name. The errors are the kernel's:
// [unix.ENXIO] if there is no such device, [unix.EBUSY] if it is in use, or to
// be created and there.
func dmCall(cmd uint, name string, flags uint32, event uint32, table []target) (dmAnswer, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return dmAnswer{}, &fs.PathError{Op: "open", Path: controlPath, Err: err}
	}
	defer unix.Close(fd)
	data := encodeTable(table)
	buf := make([]uint64, (unix.SizeofDmIoctl+max(len(data), answerSize))/8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), 8*len(buf))
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	h.Version = [3]uint32{4, 0, 0} // the least that the kernel must know
	h.Data_size, h.Data_start = uint32(len(b)), unix.SizeofDmIoctl
	h.Target_count, h.Flags, h.Event_nr = uint32(len(table)), flags, event
	copy(h.Name[:maxName-1], name)
	copy(b[unix.SizeofDmIoctl:], data)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
		return dmAnswer{}, errno
	}
	if h.Flags&unix.DM_BUFFER_FULL_FLAG != 0 {
		return dmAnswer{}, errors.New("the kernel's answer is too long")
	}
	start := min(int(h.Data_start), len(b))
	return dmAnswer{dev: h.Dev, flags: h.Flags, count: h.Target_count, data: b[start:]}, nil
}

// dmMake makes a device with a table. The device may be there without it if an
// error is returned.
func dmMake(name string, table []target, flags uint32) (dev uint64, err error) {
	if _, err := dmCall(unix.DM_DEV_CREATE, name, 0, 0, nil); err != nil {
		return 0, fmt.Errorf("create device %s: %w", name, hostError(err))
	}
	if err := dmLoad(name, flags, table); err != nil {
		err = fmt.Errorf("give device %s its table of %s: %w", name, table[len(table)-1].kind, err)
		return 0, errkind.WithHint(err, "dmesg | grep device-mapper | tail")
	}
	// Without DM_SUSPEND_FLAG this resumes: the table takes effect.
	a, err := dmCall(unix.DM_DEV_SUSPEND, name, flags, udevFlags, nil)
	if err != nil {
		return 0, fmt.Errorf("start device %s: %w", name, err)
	}
	return a.dev, nil
}

// dmLoad gives a device its table. While another snapshot's removal is under way
// the kernel may say that it has no memory: up to 6.12, dm-bufio's slab cache has
// the same name for all, and one is refused until the other is gone from sysfs.
func dmLoad(name string, flags uint32, table []target) error {
	for wait := time.Millisecond; ; wait *= 2 {
		_, err := dmCall(unix.DM_TABLE_LOAD, name, flags, 0, table)
		if err != unix.ENOMEM || wait > loadLimit {
			return err
		}
		time.Sleep(wait)
	}
}

// loadLimit is the longest wait of [dmLoad]; all of them are twice as long.
const loadLimit = 512 * time.Millisecond

// dmRemove removes a device. That there is none is no error; [unix.EBUSY] is
// that it is in use.
func dmRemove(name string) error {
	_, err := dmCall(unix.DM_DEV_REMOVE, name, 0, udevFlags, nil)
	if err != nil && !noDevice(err) {
		return fmt.Errorf("remove device %s: %w", name, hostError(err))
	}
	return nil
}

// dmTable returns a device and its table, or its targets' status. There is no
// target if the device has none that took effect.
func dmTable(name string, status bool) (dev uint64, table []target, err error) {
	flags := uint32(unix.DM_STATUS_TABLE_FLAG)
	if status {
		flags = unix.DM_NOFLUSH_FLAG
	}
	a, err := dmCall(unix.DM_TABLE_STATUS, name, flags, 0, nil)
	if err != nil {
		return 0, nil, err
	}
	table, err = decodeTable(a.data, a.count)
	return a.dev, table, err
}

// noDevice reports whether an error says that there is no such device, or no
// device-mapper, which then has none.
func noDevice(err error) bool {
	return errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist)
}

// hostError says what a host lacks whose device-mapper cannot be asked.
func hostError(err error) error {
	switch {
	case noDevice(err):
		return errkind.WithHint(errkind.New(errkind.Host, "the host has no device-mapper: %w", err), "modprobe dm_mod")
	case errors.Is(err, fs.ErrPermission):
		return errkind.WithHint(errkind.New(errkind.Host, "device-mapper needs root: %w", err), "sudo banger daemon start")
	}
	return err
}
