package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest"
	"banger/internal/guest/boot"
	"banger/internal/guest/transport"
	"banger/internal/guest/wire"
)

// Limits of time: emulation is slow, and a busy host makes it slower.
const (
	bootTime = 2 * time.Minute
	offTime  = 30 * time.Second
	// stillTime is how long the lab may take to answer.
	stillTime = time.Minute
)

// Options say what the lab is made of.
type Options struct {
	Parts  string // as [Parts] returned it
	Agent  string // the program banger-agent
	Share  string // directory that the lab sees, read-only, at /share, and that stays as it is; empty: none
	Data   string // ext4 image that the lab sees at /parts/cache, and may write to for as long as it runs; empty: none
	Disk   string // qcow2 file that takes what the lab writes to its root, made if it is not there; empty: nothing is kept
	Memory string // as QEMU has it; empty: 6G
}

// A Lab is one that runs. Its methods may be called concurrently.
type Lab struct {
	guest.Agent
	o    Options
	dir  string // of the sockets and the console's log
	qemu *exec.Cmd
	gone chan struct{} // closed when QEMU has ended

	still atomic.Bool // it was killed because it did not answer any more
}

// Boot boots the lab and returns when commands can be run in it. It ends with
// this process, at the latest. An error says what its console said last.
func Boot(ctx context.Context, o Options) (*Lab, error) {
	dir, err := os.MkdirTemp("", "banger-lab-")
	if err != nil {
		return nil, err
	}
	l := &Lab{o: o, dir: dir, gone: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	if err := l.boot(ctx); err != nil {
		err = fmt.Errorf("boot the lab: %w; its console ends:\n%s", err, l.Console(4<<10))
		return nil, errors.Join(err, l.Kill())
	}
	return l, nil
}

func (l *Lab) boot(ctx context.Context) error {
	token := make([]byte, 16)
	rand.Read(token)
	b := wire.Bundle{
		Hostname: "lab", MachineID: "1ab1ab1ab1ab1ab1ab1ab1ab1ab1ab1a", Token: hex.EncodeToString(token),
		Root: wire.Mount{Serial: "root", FSType: "ext4"},
	}
	if l.o.Data != "" {
		b.Mounts = append(b.Mounts, wire.Mount{Serial: "data", Target: "/parts/cache", FSType: "ext4"})
	}
	modules, err := filepath.Glob(filepath.Join(l.o.Parts, "mod", "*.ko"))
	if err != nil {
		return err
	}
	slices.Sort(modules)
	first, err := boot.New(boot.Options{Agent: l.o.Agent})
	if err != nil {
		return err
	}
	if err := first.Write(ctx, l.path("initrd"), modules, b, uint32(os.Geteuid())); err != nil {
		return err
	}
	if err := l.makeDisk(ctx); err != nil {
		return err
	}
	l.qemu = l.command()
	l.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	said := new(bytes.Buffer)
	l.qemu.Stderr = said
	if err := start(l.qemu); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := l.qemu.Wait()
		cancel(fmt.Errorf("QEMU ended (%w): %s", err, said))
		close(l.gone)
	}()
	l.Agent, err = transport.Dialer{}.Dial(ctx, guest.Endpoint{Kind: "serial", Path: l.path("agent"), Token: b.Token})
	if err != nil {
		return err
	}
	go l.killWhenStill()
	return l.prepare(ctx)
}

// killWhenStill kills a lab that does not answer any more, so that nothing waits
// for it: what is emulated may come to a stop.
func (l *Lab) killWhenStill() {
	tick := time.NewTicker(stillTime / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.gone:
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), stillTime)
		_, _ = l.Info(ctx, connect.NewRequest(&wire.InfoRequest{})) // any answer will do
		late := ctx.Err() != nil
		cancel()
		if late {
			l.still.Store(true)
			_ = l.qemu.Process.Kill() // it may have ended
			return
		}
	}
}

func (l *Lab) path(name string) string { return filepath.Join(l.dir, name) }

// makeDisk makes the file that keeps what is written to the root.
func (l *Lab) makeDisk(ctx context.Context) error {
	if l.o.Disk == "" {
		return nil
	}
	if _, err := os.Stat(l.o.Disk); err == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", filepath.Join(l.o.Parts, "root.ext4"), l.o.Disk).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img create: %w: %s", err, out)
	}
	return nil
}

// command is QEMU as its parts have it, by their own loader.
func (l *Lab) command() *exec.Cmd {
	root := filepath.Join(l.o.Parts, "qemu", "usr")
	lib := filepath.Join(root, "lib/x86_64-linux-gnu")
	args := []string{"--library-path", lib, filepath.Join(root, "bin/qemu-system-x86_64"), "-L", filepath.Join(root, "share/qemu")}
	return exec.Command(filepath.Join(root, "lib64/ld-linux-x86-64.so.2"), append(args, l.args()...)...)
}

func (l *Lab) args() []string {
	root := "file=" + filepath.Join(l.o.Parts, "root.ext4") + ",format=raw,snapshot=on"
	if l.o.Disk != "" {
		root = "file=" + l.o.Disk + ",format=qcow2"
	}
	memory := l.o.Memory
	if memory == "" {
		memory = "6G"
	}
	args := []string{
		"-machine", "q35", "-accel", "tcg,thread=multi",
		"-cpu", "EPYC,+svm,+npt", // of nested virtualisation, AMD's alone is emulated
		"-smp", "2", "-m", memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(l.o.Parts, "vmlinuz"), "-initrd", l.path("initrd"),
		"-append", "console=ttyS0 quiet panic=1 loglevel=4 mitigations=off", // what is emulated does not speculate
		"-chardev", "file,id=console,path=" + l.path("console.log"), "-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + l.path("agent"),
		"-device", "virtserialport,chardev=agent,name=" + wire.PortName,
		"-drive", "if=none,id=root,cache=unsafe," + root,
		"-device", "virtio-blk-pci,drive=root,serial=root",
	}
	if l.o.Data != "" {
		args = append(args,
			"-drive", "if=none,id=data,cache=unsafe,format=raw,snapshot=on,file="+l.o.Data,
			"-device", "virtio-blk-pci,drive=data,serial=data")
	}
	if l.o.Share != "" {
		args = append(args, "-virtfs", "local,mount_tag=share,security_model=none,readonly=on,path="+l.o.Share)
	}
	return args
}

// prepare loads what the kernel has as modules, and mounts what was handed in.
func (l *Lab) prepare(ctx context.Context) error {
	script := `set -e
modprobe -a kvm_amd dm_snapshot loop tun vhost_vsock bridge nf_tables
# As udev would on a host.
mkdir -p /dev/mapper
getent group kvm >/dev/null || groupadd --system kvm
chgrp kvm /dev/kvm /dev/vhost-vsock
chmod 660 /dev/kvm /dev/vhost-vsock
chmod 666 /dev/net/tun
ip link set lo up
mkdir -p /parts
ln -sfn /share/bin /parts/bin
if [ "$1" ]; then mkdir -p /share; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro share /share; fi
`
	var out bytes.Buffer
	code, err := l.Run(ctx, Command{Argv: []string{"sh", "-c", script, "sh", l.o.Share}, Stdout: &out, Stderr: &out})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit %d: %s", code, out.String())
	}
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// Console returns the last n bytes of the lab's console.
func (l *Lab) Console(n int) string {
	text, err := os.ReadFile(l.path("console.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}

// Close syncs the lab's disks and ends it.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), offTime)
	defer cancel()
	_, err := l.Power(ctx, connect.NewRequest(&wire.PowerRequest{Action: wire.PowerRequest_ACTION_POWER_OFF}))
	select {
	case <-l.gone:
		err = nil // it may go before it has answered
	case <-ctx.Done():
	}
	return errors.Join(err, l.Kill())
}

// Kill ends the lab as a failure of power does. It may be called twice.
func (l *Lab) Kill() error {
	if l.Agent != nil {
		l.Agent.Close()
	}
	if l.qemu != nil && l.qemu.Process != nil {
		_ = l.qemu.Process.Kill() // it may have ended
		<-l.gone
	}
	return os.RemoveAll(l.dir)
}

// Gone is closed when the lab has ended.
func (l *Lab) Gone() <-chan struct{} { return l.gone }

// start starts a child from a thread that lives as long as the process: what
// dies with its parent dies with the thread that started it.
func start(c *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- c.Start()
		select {}
	}()
	return <-started
}
