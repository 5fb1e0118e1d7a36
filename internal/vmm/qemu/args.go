package qemu

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"banger/internal/errkind"
	"banger/internal/vmm"
)

// AgentPort is the name of the virtio-serial port that the agent serves, as
// the guest sees it in /dev/virtio-ports.
const AgentPort = "banger.agent"

// maxCmdline is the length of the longest kernel command line on x86
// (COMMAND_LINE_SIZE, with its NUL).
const maxCmdline = 2047

// tcgBuffer is how many bytes of translated code are kept: a busy guest fills them,
// and the default of 1 GiB is the host's memory.
const tcgBuffer = 128 << 20

// A host is what the command line depends on beside the machine.
type host struct {
	accel  Accel
	tscKHz uint32 // rate of the time stamp counter in kHz; 0: not known
	// racyTCG: this QEMU's translator must not run on two threads at once.
	racyTCG bool
	// retranslates: this QEMU translates code anew at each address that it is seen at.
	retranslates bool
	ramFD        int    // of the memory to restore, sealed, or of the file for that to be frozen; 0: neither
	cid          uint32 // the guest's on vsock, whose device is open behind the taps; 0: a serial port instead
}

// commandLine returns the argument list, without the program, of the QEMU
// that runs s.
func commandLine(s vmm.Spec, h host) ([]string, error) {
	cmdline := strings.Join(append(h.kernelArgs(), s.Cmdline...), " ")
	if len(cmdline) > maxCmdline {
		return nil, errkind.New(errkind.Usage, "kernel command line of %d bytes: the kernel takes %d", len(cmdline), maxCmdline)
	}
	args := []string{
		"-name", escape(s.ID),
		"-machine", machineOption(s),
		"-smp", strconv.Itoa(s.VCPUs),
		"-m", fmt.Sprintf("%dM", s.MemoryBytes>>20),
		"-nodefaults", "-no-user-config", "-display", "none",
		// A guest that reboots ends its VMM, and QMP says that it did.
		"-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-qmp", qmpOption(s),
	}
	args = append(args, h.startArgs(s, cmdline)...)
	args = append(args,
		"-chardev", "file,id=console,append=on,path="+escape(s.ConsoleLog),
		"-serial", "chardev:console",
		"-device", "virtio-rng-device")
	args = append(args, h.agentArgs(s)...)
	args = append(args, h.accelArgs(s.VCPUs)...)
	for i, d := range s.Disks {
		a, err := diskArgs(diskNode(i), d)
		if err != nil {
			return nil, err
		}
		args = append(args, a...)
	}
	for i, n := range s.NICs {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, firstTapFD+i),
			"-device", fmt.Sprintf("virtio-net-device,netdev=net%d,mac=%s", i, n.MAC))
	}
	return args, nil
}

// machineOption is the value of -machine. Option ROMs are for firmware that boots
// from disks or the net.
func machineOption(s vmm.Spec) string {
	const machine = "microvm,x-option-roms=off"
	if s.FreezeTo == nil && s.Restore == nil {
		return machine
	}
	return machine + ",memory-backend=" + memoryID
}

// memoryID names the guest's memory in QEMU, where it is in a file.
const memoryID = "ram"

// startArgs are what the guest starts from: a kernel, or its memory; then the
// rest is yet to be read. The memory of one that is to be frozen is in a file.
func (h host) startArgs(s vmm.Spec, cmdline string) []string {
	backend := fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=/proc/self/fd/%d,share=", memoryID, s.MemoryBytes>>20, h.ramFD)
	if s.Restore != nil {
		return []string{"-object", backend + "off", "-S", "-incoming", "defer"}
	}
	args := []string{"-kernel", s.Kernel, "-initrd", s.Initrd, "-append", cmdline}
	if s.FreezeTo != nil {
		args = append(args, "-object", backend+"on")
	}
	return args
}

// agentArgs are the way to the agent.
func (h host) agentArgs(s vmm.Spec) []string {
	if h.cid != 0 {
		fd := firstTapFD + len(s.NICs)
		return []string{"-device", fmt.Sprintf("vhost-vsock-device,id=%s,guest-cid=%d,vhostfd=%d", path.Base(vsockPath), h.cid, fd)}
	}
	return []string{
		"-device", "virtio-serial-device",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + escape(s.AgentSock),
		"-device", "virtserialport,chardev=agent,name=" + AgentPort,
	}
}

func (h host) accelArgs(vcpus int) []string {
	if h.accel == KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	threads := "multi"
	if h.racyTCG && vcpus > 1 {
		threads = "single"
	}
	return []string{"-accel", fmt.Sprintf("tcg,tb-size=%d,thread=%s", tcgBuffer>>20, threads), "-cpu", "max"}
}

// kernelArgs are the driver's own kernel arguments. Later ones win.
func (h host) kernelArgs() []string {
	args := []string{
		"console=ttyS0", "quiet", // each line on a serial console costs
		"panic=-1", "reboot=t", // a kernel that panics reboots, at once and surely
	}
	if h.accel != TCG {
		return args
	}
	// Without these a guest measures its clocks against emulated timers. A
	// noisy host spoils that, and about one boot in five hung.
	// And on a busy host the kernel's watchdog would later call a clock unstable
	// that is the host's own.
	args = append(args, "no_timer_check", "tsc=reliable")
	if h.tscKHz != 0 {
		args = append(args, fmt.Sprintf("tsc_early_khz=%d", h.tscKHz))
	}
	if h.retranslates {
		// A program is where it was the last time (randomize_va_space of 0): started
		// elsewhere, each took some four times as long, and its code was kept for
		// nobody.
		args = append(args, "norandmaps")
	}
	// The self-tests of the kernel's ciphers take a fifth of a boot here, and what it
	// does against a processor's speculation a fifth of a program's start: there is
	// no such processor.
	return append(args, "cryptomgr.notests", "mitigations=off")
}

// qmpOption is the value of -qmp, by which the process is found again.
func qmpOption(s vmm.Spec) string {
	return "unix:" + escape(s.APISock) + ",server=on,wait=off"
}

// escape writes a value as it stands in QEMU's comma-separated options.
func escape(v string) string { return strings.ReplaceAll(v, ",", ",,") }

// blockNode is one node of QEMU's block layer, as -blockdev takes it in JSON
// (qapi/block-core.json, BlockdevOptions).
type blockNode struct {
	Driver   string      `json:"driver"`
	NodeName string      `json:"node-name,omitempty"`
	Filename string      `json:"filename,omitempty"`
	ReadOnly bool        `json:"read-only"`
	Discard  string      `json:"discard,omitempty"`
	AIO      string      `json:"aio,omitempty"`
	Cache    *blockCache `json:"cache,omitempty"`
	File     *blockNode  `json:"file,omitempty"`
	Backing  *blockNode  `json:"backing,omitempty"`
}

// blockCache: the host's page cache is used, and a guest's flush is honoured.
type blockCache struct {
	Direct  bool `json:"direct"`
	NoFlush bool `json:"no-flush"`
}

// diskNode is QEMU's name for the disk of that number.
func diskNode(i int) string { return fmt.Sprintf("disk%d", i) }

func diskArgs(node string, d vmm.Disk) ([]string, error) {
	n := imageNode(string(d.Format), d.Path, d.ReadOnly)
	n.NodeName = node
	// Told, not read from the overlay, which the VMM's user can write.
	for i, over := 0, n; i < len(d.Backing); i++ {
		format := vmm.QCOW2
		if i == len(d.Backing)-1 {
			format = vmm.Raw
		}
		over.Backing = imageNode(string(format), d.Backing[i], true)
		over = over.Backing
	}
	text, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Serial, err)
	}
	// On a full disk the machine is paused, not told of an error: it goes on
	// when there is room again.
	device := fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s,werror=enospc,rerror=report", node, d.Serial)
	return []string{"-blockdev", string(text), "-device", device}, nil
}

func imageNode(format, path string, readOnly bool) *blockNode {
	n := &blockNode{Driver: format, ReadOnly: readOnly, Cache: &blockCache{}}
	n.File = &blockNode{Driver: "file", Filename: path, ReadOnly: readOnly, AIO: "threads", Cache: &blockCache{}}
	if !readOnly {
		n.Discard, n.File.Discard = "unmap", "unmap"
	}
	return n
}
