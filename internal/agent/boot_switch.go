package agent

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// switchRoot makes the tree the root of every process. The kernel's file
// systems move along; what stood in the initramfs, which is memory, is freed.
func switchRoot(t *tree) error {
	defer t.Close()
	// The order matters: /proc is needed to name the places of the others.
	for _, name := range []string{"/dev", "/sys", "/proc"} {
		dir, err := t.openDir(name, 0o755)
		if err != nil {
			return err
		}
		err = unix.Mount(name, fdPath(dir), "", unix.MS_MOVE, "")
		dir.Close()
		if err != nil {
			return fmt.Errorf("move %s: %w", name, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	for _, name := range []string{"/init", moduleDir, path.Dir(bundleFile)} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	// The root of the initramfs cannot be unmounted or pivoted away
	// (kernel documentation, filesystems/ramfs-rootfs-initramfs.rst).
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return os.Chdir("/")
}

// execInit runs the image's init in place of this process.
func execInit(init string, systemd bool) error {
	if !systemd {
		// Nothing that such an init does would start the agent, nor start
		// it again.
		if _, err := startAgent(roleService); err != nil {
			return err
		}
	}
	// What the kernel gives to an init of its own choice.
	env := []string{"HOME=/", "TERM=linux"}
	return fmt.Errorf("run init %s: %w", init, unix.Exec(init, []string{init}, env))
}

// isSystemd reports whether an init of the tree, mostly a link, is systemd. One
// that is not there is an error.
func (t *tree) isSystemd(init string) (bool, error) {
	f, err := t.open(init, unix.O_PATH)
	if err != nil {
		return false, fmt.Errorf("find init: %w", err)
	}
	defer f.Close()
	real, err := os.Readlink(fdPath(f))
	return path.Base(real) == "systemd", err
}

// say writes a line to the console, past the kernel's log: all that can be
// told to the host before the agent serves.
func say(msg string) {
	c, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		c = os.Stderr
	} else {
		defer c.Close()
	}
	fmt.Fprintf(c, "banger: %s\n", msg)
	// Wait until it is out (tcdrain(3)): the machine may be about to end.
	_ = unix.IoctlSetInt(int(c.Fd()), unix.TCSBRK, 1)
}

// die ends a machine that could not boot, with the reason on its console, so
// that the host sees an end and not a hang. It reboots, because that ends
// every VMM; Firecracker lives on after a power-off.
func die(err error) {
	say("cannot boot: " + oneLine(err))
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		say("cannot reboot: " + err.Error())
	}
}

// maxLine bounds a line on the console, in bytes: it is slow, and an error may
// name a path of the image.
const maxLine = 1000

// oneLine returns what err says on one line: a console is read by lines.
func oneLine(err error) string {
	line := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
	if len(line) > maxLine {
		line = line[:maxLine] + "…"
	}
	return line
}
