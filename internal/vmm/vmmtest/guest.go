package vmmtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"banger/internal/vmm"
)

// A Guest is what a real VMM boots in the suite: a kernel, and an initramfs of
// nothing but busybox.
type Guest struct {
	Kernel  string   // ELF vmlinux that everyone may read
	Modules []string // uncompressed modules for virtio devices, in the order of loading
	Busybox string   // static busybox
	UID     uint32   // user that VMMs run as; the test runs as root
}

// Spec returns a machine that boots g, with an ID and places of its own, which
// are gone when the test ends.
func (g Guest) Spec(t *testing.T) vmm.Spec {
	t.Helper()
	// Not t.TempDir: its path is too long for a socket.
	dir, err := os.MkdirTemp("/tmp", "vmmtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := newSpec(dir, g.UID)
	s.Kernel = g.Kernel
	initrd, err := g.initramfs()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Initrd, initrd, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(g.UID), int(g.UID)); err != nil {
		t.Fatal(err)
	}
	return s
}

// lastCID is the last address that a machine was given on the host's vsock; the
// first ones are taken (vsock(7)).
var lastCID atomic.Uint32

func init() { lastCID.Store(1000) }

// newSpec returns a machine whose files all stand in dir.
func newSpec(dir string, uid uint32) vmm.Spec {
	return vmm.Spec{
		ID:          filepath.Base(dir),
		Dir:         dir,
		APISock:     filepath.Join(dir, "api.sock"),
		AgentSock:   filepath.Join(dir, "agent.sock"),
		ConsoleLog:  filepath.Join(dir, "console.log"),
		VMMLog:      filepath.Join(dir, "vmm.log"),
		Kernel:      filepath.Join(dir, "vmlinux"),
		Initrd:      filepath.Join(dir, "initrd"),
		Metrics:     filepath.Join(dir, "metrics.json"),
		VCPUs:       1,
		MemoryBytes: 128 << 20,
		VsockCID:    lastCID.Add(1),
		UID:         uid,
	}
}

// guestInit is the guest's first process. An unknown act panics the kernel:
// killed, it would be a silence that lasts until the test's limit.
const guestInit = `#!/busybox sh
b=/busybox
$b mkdir -p /proc /sys /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in /mod/*.ko; do $b insmod $m; done
for a in $($b cat /proc/cmdline); do
	case $a in
	` + actArg + `*) act=${a#` + actArg + `} ;;
	` + noSerialsArg + `) noserials=1 ;;
	esac
done
find_disk() {
	n=0
	for d in /sys/bus/virtio/devices/virtio*/block/vd*; do # in the order of the bus
		n=$((n + 1))
		if [ "$noserials" ]; then
			[ $n = 2 ] || continue
		else
			[ "$($b cat $d/serial)" = ` + DiskSerial + ` ] || continue
		fi
		disk=/dev/${d##*/}
	done
}
if [ "$act" = ` + string(AskDisk) + ` ]; then
	find_disk
	act=$($b head -n 1 $disk)
fi
echo "vmmtest: $act"
if [ "$act" = ` + string(AwaitDisk) + ` ]; then
	find_disk
	act=
	while [ ! "$act" ]; do
		$b usleep 20000
		$b blockdev --flushbufs $disk
		act=$($b dd if=$disk bs=1M skip=1 count=1 2>/dev/null | $b head -n 1)
	done
	echo "vmmtest: $act"
fi
case $act in
` + string(Idle) + `) while :; do $b sleep 3600; done ;;
` + string(PowerOff) + `) $b poweroff -f ;;
` + string(Reboot) + `) $b reboot -f ;;
esac
echo c >/proc/sysrq-trigger
`

func (g Guest) initramfs() ([]byte, error) {
	var c cpio
	busybox, err := os.ReadFile(g.Busybox)
	if err != nil {
		return nil, err
	}
	c.add("busybox", 0o100755, busybox)
	c.add("init", 0o100755, []byte(guestInit))
	c.add("mod", 0o040755, nil)
	for i, path := range g.Modules {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		c.add(fmt.Sprintf("mod/%03d.ko", i), 0o100644, data)
	}
	c.add("TRAILER!!!", 0, nil)
	return c.Bytes(), nil
}

// cpio is an archive in the format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	bytes.Buffer
	files int
}

func (c *cpio) add(name string, mode uint32, data []byte) {
	c.files++
	fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.files, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.WriteString(name + "\x00")
	c.pad()
	c.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}
