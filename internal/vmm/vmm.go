package vmm

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
)

// A Driver starts VMM processes of one kind. All methods may be called
// concurrently, for different machines; calls for one machine do not overlap.
type Driver interface {
	// Name is the driver's name in commands and records.
	Name() string

	// Check returns nil if machines can be run on this host, else an error
	// of kind errkind.Host that names what is missing, with a hint.
	Check(ctx context.Context) error

	// Capabilities tells what the driver can do and how.
	Capabilities() Capabilities

	// Version is the VMM's own version, such as "7.2.22".
	Version(ctx context.Context) (string, error)

	// Launch starts the machine's VMM and boots the guest, or lets it go on
	// that Spec.Restore names. It returns when the VMM runs and its API
	// answers; the guest may still be booting.
	// Cancelling ctx after Launch returned does nothing to the VMM. On an
	// error, a process may be left for the caller to find by its Signature
	// and kill, and files for CleanUp. The error says what the VMM printed.
	Launch(ctx context.Context, s Spec) (Machine, error)

	// Attach connects to a VMM that was launched in an earlier life of the
	// daemon. It fails, and changes nothing, if none answers.
	Attach(ctx context.Context, s Spec) (Machine, error)

	// Signature tells how to find the machine's process. It needs only the
	// paths, ID and UID of s.
	Signature(s Spec) Signature

	// CleanUp removes what a VMM that is gone left (sockets). It needs only
	// the paths of s, and succeeds if there is nothing.
	CleanUp(ctx context.Context, s Spec) error
}

// AgentPort is where agents listen on vsock, in guests of every driver that gives
// them one.
const AgentPort = 42070

// Capabilities are the facts about a driver that others decide on.
type Capabilities struct {
	// Disk formats that Spec.Disks may have.
	Formats []Format
	// EndByReboot: the guest ends its VMM by rebooting; a power-off would
	// leave the process running.
	EndByReboot bool
	// NoSerials: guests see no serials of ours; disks stand there in the order
	// of Spec.Disks.
	NoSerials bool
	// VsockPort is where the agent is to listen in the guest; 0: it serves a
	// virtio-serial port.
	VsockPort uint32
	// ExtraMemory is how many bytes a VMM may need beyond the guest's memory, a
	// 64th of that apart.
	ExtraMemory int64
	// ExtraThreads is how many threads a VMM may need beyond one for each virtual
	// processor.
	ExtraThreads int
	// Freezes: guests can be frozen and go on (Spec.FreezeTo, Spec.Restore).
	Freezes bool
	// Accelerated: guest code runs on the processor, not in software.
	Accelerated bool
}

// Spec is all that a driver needs to know of a machine.
type Spec struct {
	ID          string
	Dir         string   // absolute; the VMM's working directory, owned by UID
	APISock     string   // absolute; at most 107 bytes; in a directory owned by UID
	AgentSock   string   // absolute; at most 107 bytes; in a directory owned by UID
	ConsoleLog  string   // absolute; the guest's serial console is appended to it
	VMMLog      string   // absolute; what the VMM itself prints
	Metrics     string   // absolute; file for what the VMM counts, if it does; empty: none
	Kernel      string   // ELF vmlinux
	Initrd      string   //
	Cmdline     []string // kernel arguments beyond the driver's own
	VCPUs       int
	MemoryBytes int64
	Disks       []Disk
	NICs        []NIC
	VsockCID    uint32 // where addresses are the host's, it gets another if this one is taken
	UID         uint32 // user and group that the VMM runs as
	Cgroup      string // absolute; of version 2, in which the VMM starts; empty: in none of its own
	Idle        bool   // the VMM gets a processor when nobody else wants it, until [Process.EndIdle]
	// FreezeTo is where [Machine.Freeze] is to leave the guest: files that are not
	// there yet, in a directory that the VMM's user may have no access to, which
	// Launch may begin to make. Nil: it will not be asked to.
	FreezeTo *Frozen
	// Restore makes Launch go on where a guest was frozen instead of booting:
	// Kernel, Initrd and Cmdline are not used. Processors, memory, disks and
	// interfaces are as many and as large as they were, but for disks that the
	// guest had not mounted: it learns of their new size. An interface has the
	// MAC that it had. The machine's user can read the files. Nil: boot.
	Restore *Frozen
}

// Frozen is a guest at rest: two files, from which any number of guests may go
// on, also at once. None of them can write to the files.
type Frozen struct {
	RAM   string // absolute; the guest's memory, as large as that, sparse
	State string // absolute; all else: processors and devices
}

// Format is how a disk's content is stored.
type Format string

const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
)

// Disk is one block device of a guest, found there by its serial.
type Disk struct {
	Serial   string // at most 20 bytes (virtio specification, section 5.2)
	Path     string // absolute, or relative to Spec.Dir
	Format   Format
	Backing  []string // QCOW2: absolute paths of what is below, nearest first: overlays, and last a raw image; empty: nothing
	ReadOnly bool
}

// PathOf is the absolute path of one of the machine's disks.
func (s Spec) PathOf(d Disk) string {
	if filepath.IsAbs(d.Path) {
		return d.Path
	}
	return filepath.Join(s.Dir, d.Path)
}

// NIC is one network interface of a guest.
type NIC struct {
	Tap string // name of the tap on the host, which is there
	MAC string // as in "02:ba:00:00:00:01"
}

// Signature tells one machine's VMM process from every other process; a
// [Finder] finds it.
type Signature struct {
	Exe  string // name of the program, see [Signature.Names]
	UID  uint32 // user it runs as
	Arg  string // an argument of the command line …
	Next string // … and what must stand in the argument after it
}

// Names reports whether name, the base name of an executable or of what it was
// executed as, is that of the program: it may have a version behind it, as in
// "firecracker-v1.12.1-x86_64".
func (s Signature) Names(name string) bool {
	return name == s.Exe || strings.HasPrefix(name, s.Exe+"-")
}

// A Machine is the live connection to one VMM. Its methods may be called
// concurrently.
type Machine interface {
	// PID is the VMM's process, 0 if the driver has no process.
	PID() int

	// Agent tells how to reach the agent in the guest. It is the same for the
	// machine's whole life, whoever launched it.
	Agent() Endpoint

	// Status asks the VMM.
	Status(ctx context.Context) (Status, error)

	// Pause makes the guest's processors stand. It succeeds if they do
	// already, whoever made them.
	Pause(ctx context.Context) error

	// Resume lets a guest go on that stands, whoever made it stand. If the
	// host's disk is still full, a guest that stands because of that stands
	// again at once, and Changed says so. It succeeds if the guest runs.
	Resume(ctx context.Context) error

	// Freeze leaves the guest in the files of Spec.FreezeTo. The guest must stand, and be quiet since before it came to:
	// what is on its way to the host is lost. After it, failed or not, the
	// machine is good for nothing but to be closed and killed, and what is in
	// the files is not on the disk yet; they may be the VMM's user's.
	Freeze(ctx context.Context) error

	// DiskTraffic asks what the guest's disks have carried since the VMM
	// started.
	DiskTraffic(ctx context.Context) (DiskTraffic, error)

	// Changed receives a value when the guest may have come to stand or gone
	// on, by the VMM's doing or ours: ask for its Status. Values that nobody
	// took become one. It is never closed.
	Changed() <-chan struct{}

	// Done is closed when the VMM has gone or the connection to it broke.
	Done() <-chan struct{}

	// Exit tells, after Done, what the VMM said before it went.
	Exit() Exit

	// Close drops the connection; the VMM goes on. It may be called twice.
	Close() error
}

// DiskTraffic is what all disks of a guest have carried, in bytes.
type DiskTraffic struct {
	Read    int64
	Written int64
}

// Endpoint is where a guest's agent can be reached from the host.
type Endpoint struct {
	Kind EndpointKind
	Path string // Unix socket; for Serial and VsockUnix
	CID  uint32 // for Vsock
	Port uint32 // for Vsock and VsockUnix
}

// EndpointKind is the kind of byte stream.
type EndpointKind string

const (
	Serial    EndpointKind = "serial"     // one virtio-serial port: a single stream that outlives its users
	VsockUnix EndpointKind = "vsock-unix" // Firecracker's Unix socket
	Vsock     EndpointKind = "vsock"      // AF_VSOCK
)

// Status is what a VMM says of its guest.
type Status string

const (
	Running Status = "running"
	Paused  Status = "paused"
	IOError Status = "io-error" // paused by the VMM: the host's disk is full
	Ended   Status = "ended"    // shut down or crashed; the process may linger
)

// Exit is why a VMM went, as far as it said.
type Exit string

const (
	ExitUnknown  Exit = ""          // it said nothing: killed, or crashed
	ExitPowerOff Exit = "power-off" // the guest powered off
	ExitReboot   Exit = "reboot"    // the guest rebooted
	ExitEnded    Exit = "ended"     // the guest rebooted, as it also does to power off (Capabilities.EndByReboot)
	ExitPanic    Exit = "panic"     // the guest's kernel panicked
	ExitHost     Exit = "host"      // ended from the host's side by a signal or command
)

// Reason returns e as the sentence that a machine's record keeps.
func (e Exit) Reason() string {
	switch e {
	case ExitPowerOff:
		return "the guest powered off"
	case ExitReboot:
		return "the guest rebooted"
	case ExitEnded:
		return "the guest powered off or rebooted"
	case ExitPanic:
		return "the guest's kernel panicked"
	case ExitHost:
		return "the VMM was ended from the host"
	}
	return "the VMM was killed or crashed"
}

// ErrNoProcess says that no process has a given signature.
var ErrNoProcess = errors.New("no such VMM process")
