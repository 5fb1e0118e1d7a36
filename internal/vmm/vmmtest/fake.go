package vmmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/errkind"
	"banger/internal/trace"
	"banger/internal/vmm"
)

// Name is the fake driver's name.
const Name = "fake"

// bootTime passes before a fake guest does what it was told.
const bootTime = 20 * time.Millisecond

// exe is the base name of the fake VMM's executable.
const exe = "fake-vmm"

// A Host is a pretend host. Its VMM processes are records in memory, which
// live on when a test drops a daemon without closing it: the next daemon takes
// the same Host, finds them and attaches. All methods may be called
// concurrently.
//
// A process makes what a real one makes in the file system: its two sockets,
// which it leaves behind, and its two logs. A guest does
// what its kernel's arguments tell it by [Act], and nothing without.
type Host struct {
	mu      sync.Mutex
	lastPID int
	running map[string]*process // guarded by mu; by QMP socket
	fail    func(op string) error
}

// NewHost returns a host on which nothing runs.
func NewHost() *Host {
	return &Host{lastPID: 1 << 22, running: map[string]*process{}} // beyond every real pid
}

// SetFail makes f decide what fails. It is asked with "before OP" when OP is
// about to have its effect and "after OP" when it has had it; OP is "check",
// "launch", "attach", "cleanup", "status", "pause", "resume", "find" or "kill". Nil: nothing
// fails. f must not call the host.
func (h *Host) SetFail(f func(op string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = f
}

// Driver returns a driver of this host; all are the same.
func (h *Host) Driver() vmm.Driver { return driver{h} }

// Finder returns the host's process table.
func (h *Host) Finder() vmm.Finder { return finder{h} }

// PowerOff does what a guest does that powers off. It, and the other ends,
// report whether the machine ran.
func (h *Host) PowerOff(id string) bool {
	h.mu.Lock()
	p := h.byID(id)
	var first func() bool
	if p != nil {
		first = p.onPowerOff
	}
	h.mu.Unlock()
	if first != nil && !first() {
		return true
	}
	return h.end(id, vmm.ExitPowerOff)
}

// OnPowerOff makes a guest do something before it powers off, and power off
// only if that returns true; nil: it just powers off.
func (h *Host) OnPowerOff(id string, f func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byID(id); p != nil {
		p.onPowerOff = f
	}
}

// Status is what a VMM says of its guest, "" if the machine does not run.
func (h *Host) Status(id string) vmm.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byID(id); p != nil {
		return p.status
	}
	return ""
}

// Reboot is a guest that reboots.
func (h *Host) Reboot(id string) bool { return h.end(id, vmm.ExitReboot) }

// Panic is a guest whose kernel panics.
func (h *Host) Panic(id string) bool { return h.end(id, vmm.ExitPanic) }

// Crash is a VMM that dies without a word.
func (h *Host) Crash(id string) bool { return h.end(id, vmm.ExitUnknown) }

// SetStatus makes a VMM say s of its guest. It reports whether the machine
// runs.
func (h *Host) SetStatus(id string, s vmm.Status) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byID(id)
	if p != nil {
		p.setStatus(s)
	}
	return p != nil
}

// SetFull makes a machine's disk full, or not any more: its guest writes
// whenever it goes on, and comes to stand if there is no room. It reports
// whether the machine runs.
func (h *Host) SetFull(id string, full bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byID(id)
	if p != nil {
		if p.full = full; full && p.status == vmm.Running {
			p.setStatus(vmm.IOError)
		}
	}
	return p != nil
}

// PID returns the process of a running machine, 0 if it does not run.
func (h *Host) PID(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byID(id); p != nil {
		return p.pid
	}
	return 0
}

// Hide makes a VMM overwrite its command line, as one that was broken out of
// may: only a hint finds it. It reports whether the machine runs.
func (h *Host) Hide(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byID(id)
	if p != nil {
		p.hidden = true
	}
	return p != nil
}

// Processes returns the IDs of the machines whose VMM runs, sorted.
func (h *Host) Processes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := []string{}
	for _, p := range h.running {
		ids = append(ids, p.spec.ID)
	}
	slices.Sort(ids)
	return ids
}

// Spec returns the spec that a running machine was launched with.
func (h *Host) Spec(id string) (s vmm.Spec, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byID(id); p != nil {
		return p.spec, true
	}
	return vmm.Spec{}, false
}

// byID returns a process, nil if there is none. Preconditions: h.mu is held.
func (h *Host) byID(id string) *process {
	for _, p := range h.running {
		if p.spec.ID == id {
			return p
		}
	}
	return nil
}

func (h *Host) end(id string, e vmm.Exit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byID(id)
	if p != nil {
		h.endProcess(p, e)
	}
	return p != nil
}

// endProcess ends p if it has not ended. Preconditions: h.mu is held.
func (h *Host) endProcess(p *process, e vmm.Exit) {
	if h.running[p.spec.APISock] != p {
		return
	}
	delete(h.running, p.spec.APISock)
	p.exit = e
	close(p.gone)
}

// around runs f between the two questions whether op fails.
func (h *Host) around(op string, f func() error) error {
	if err := h.ask("before " + op); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return h.ask("after " + op)
}

func (h *Host) ask(point string) error {
	h.mu.Lock()
	f := h.fail
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(point)
}

// process is one pretend VMM.
type process struct {
	spec   vmm.Spec
	pid    int
	gone   chan struct{} // closed when it has ended
	exit   vmm.Exit      // settled before gone is closed
	status vmm.Status    // guarded by Host.mu
	hidden bool          // its command line is overwritten; guarded by Host.mu
	full   bool          // its guest writes and there is no room; guarded by Host.mu

	onPowerOff func() bool // see Host.OnPowerOff; guarded by Host.mu

	watchers []chan struct{} // told of each change of status; guarded by Host.mu
}

// setStatus changes what the guest does, and tells. Preconditions: Host.mu is
// held.
func (p *process) setStatus(s vmm.Status) {
	if s == p.status {
		return
	}
	p.status = s
	for _, w := range p.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

type driver struct{ h *Host }

func (d driver) Name() string { return Name }

func (d driver) Capabilities() vmm.Capabilities {
	return vmm.Capabilities{Formats: []vmm.Format{vmm.QCOW2, vmm.Raw}, Freezes: true}
}

func (d driver) Check(context.Context) error {
	return d.h.around("check", func() error { return nil })
}

func (d driver) Version(context.Context) (string, error) { return "1.0", nil }

func (d driver) Signature(s vmm.Spec) vmm.Signature {
	return vmm.Signature{Exe: exe, UID: s.UID, Arg: "--api-sock", Next: s.APISock}
}

func (d driver) Launch(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	defer trace.Span(ctx, trace.VMM, "spawn")()
	var p *process
	err := d.h.around("launch", func() (err error) {
		p, err = d.h.start(s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	m := newMachine(d.h, p)
	d.h.act(p)
	return m, nil
}

// start makes a process and its files.
func (h *Host) start(s vmm.Spec) (*process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running[s.APISock] != nil {
		return nil, errkind.New(errkind.Conflict, "a VMM listens at %s already", s.APISock)
	}
	if fi, err := os.Stat(s.Dir); err != nil || !fi.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("%s: no directory", s.Dir))
	}
	for _, path := range []string{s.ConsoleLog, s.VMMLog} {
		if err := appendTo(path, ""); err != nil {
			return nil, err
		}
	}
	for _, path := range append(bootPaths(s), diskPaths(s)...) {
		if _, err := os.Stat(path); err != nil {
			return nil, errors.Join(err, appendTo(s.VMMLog, err.Error()+"\n"))
		}
	}
	for _, path := range []string{s.APISock, s.AgentSock} {
		if err := makeSocket(path); err != nil {
			return nil, err
		}
	}
	said := "booted\n"
	if s.Restore != nil {
		said = "goes on\n"
		var err error
		if s.Cmdline, err = thaw(s); err != nil {
			return nil, errors.Join(err, appendTo(s.VMMLog, err.Error()+"\n"))
		}
	}
	h.lastPID++
	p := &process{spec: s, pid: h.lastPID, gone: make(chan struct{}), status: vmm.Running}
	h.running[s.APISock] = p
	if a := actOf(s.Cmdline); a != Idle {
		said += "vmmtest: " + string(a) + "\n"
	}
	return p, appendTo(s.ConsoleLog, said)
}

// frozenState is what a fake VMM writes of a guest beside its memory.
const frozenState = "a pretend guest"

// thaw returns what a guest does that was frozen, as its kernel's arguments.
func thaw(s vmm.Spec) ([]string, error) {
	state, err := os.ReadFile(s.Restore.State)
	if err != nil {
		return nil, err
	}
	act, _, size, err := readRAM(s.Restore.RAM)
	if err != nil {
		return nil, err
	}
	if string(state) != frozenState || size != s.MemoryBytes {
		return nil, fmt.Errorf("no guest was frozen in %s and %s", s.Restore.State, s.Restore.RAM)
	}
	return []string{act.Arg()}, nil
}

// readRAM returns what is in a pretend guest's memory: what it does, what it
// booted from and, up to size, zeroes.
func readRAM(path string) (act Act, initrd []byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", nil, 0, err
	}
	const most = 64 << 10
	data, err := io.ReadAll(io.LimitReader(f, most))
	first, rest, _ := bytes.Cut(data, []byte{0})
	return Act(first), bytes.TrimRight(rest, "\x00"), fi.Size(), err
}

// Initrd returns what the guest booted from that goes on in a machine of s.
func Initrd(s vmm.Spec) ([]byte, error) {
	if s.Restore == nil {
		return os.ReadFile(s.Initrd)
	}
	_, initrd, _, err := readRAM(s.Restore.RAM)
	return initrd, err
}

// bootPaths are the files that a guest boots from.
func bootPaths(s vmm.Spec) []string {
	if s.Restore != nil {
		return nil
	}
	return []string{s.Kernel, s.Initrd}
}

func diskPaths(s vmm.Spec) []string {
	var paths []string
	for _, d := range s.Disks {
		if strings.HasPrefix(d.Path, "/") {
			paths = append(paths, d.Path)
		}
		paths = append(paths, d.Backing...)
	}
	return paths
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// makeSocket leaves a socket's name at path, in place of what was there.
func makeSocket(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// act does what the guest does by itself.
func (h *Host) act(p *process) {
	a := actOf(p.spec.Cmdline)
	switch a {
	case AskDisk:
		a = askDisk(p.spec, 0)
	case AwaitDisk:
		a = askDisk(p.spec, AwaitedAt)
	}
	exits := map[Act]vmm.Exit{PowerOff: vmm.ExitPowerOff, Reboot: vmm.ExitReboot, Panic: vmm.ExitPanic}
	e, ok := exits[a]
	if !ok {
		return
	}
	// As after a boot: the daemon has had the time to do something else.
	time.AfterFunc(bootTime, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.endProcess(p, e)
	})
}

// actOf is what a guest does, by its kernel's arguments.
func actOf(cmdline []string) Act {
	a := Idle
	for _, arg := range cmdline {
		if s, ok := strings.CutPrefix(arg, actArg); ok {
			a = Act(s)
		}
	}
	return a
}

// askDisk returns what the disk tells the guest to do, from that byte on; Panic
// if it cannot, Idle if it is shorter.
func askDisk(s vmm.Spec, at int) Act {
	for _, d := range s.Disks {
		if d.Serial != DiskSerial {
			continue
		}
		data, err := os.ReadFile(d.Path)
		if err != nil {
			break
		}
		if len(data) <= at {
			return Idle
		}
		line, _, _ := strings.Cut(string(data[at:]), "\n")
		return Act(line)
	}
	return Panic
}

func (d driver) Attach(ctx context.Context, s vmm.Spec) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var p *process
	err := d.h.around("attach", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		if p = d.h.running[s.APISock]; p == nil {
			return fmt.Errorf("nobody listens at %s", s.APISock)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return newMachine(d.h, p), nil
}

func (d driver) CleanUp(_ context.Context, s vmm.Spec) error {
	return d.h.around("cleanup", func() error {
		return errors.Join(os.RemoveAll(s.APISock), os.RemoveAll(s.AgentSock))
	})
}
