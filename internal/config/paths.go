package config

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strconv"
)

// Paths are the places of one daemon, told apart by its root. Every path of
// banger's comes from a method here.
//
//	<state>/banger.db        records
//	<state>/lock             held by the daemon for life
//	<state>/daemon.log
//	<state>/ssh/             the key that machines let in, and their host keys
//	<state>/vms/<id>/        one machine: handles.json, disks, logs, boot files
//	<cache>/images/          images
//	<cache>/kernels/         kernels
//	<run>/daemon/            the daemon's socket, for its group alone
//	<run>/vms/<id>/          one machine's sockets
type Paths struct {
	Root   string // BANGER_ROOT, absolute; empty: the default places
	State  string
	Cache  string
	Run    string // short: a socket's path takes at most 107 bytes (unix(7))
	Config string // config.toml
	Tag    string // six hexadecimal digits, in every name on the host
}

// NewPaths returns the places for a root, which is made absolute; empty means
// the default places.
func NewPaths(root string) (Paths, error) {
	if root == "" {
		p := Paths{State: "/var/lib/banger", Cache: "/var/cache/banger", Run: "/run/banger", Config: "/etc/banger/config.toml"}
		p.Tag = tag(p.State)
		return p, nil
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return Paths{}, err
	}
	return Paths{
		Root:   root,
		State:  filepath.Join(root, "state"),
		Cache:  filepath.Join(root, "cache"),
		Run:    "/run/banger-" + tag(root),
		Config: filepath.Join(root, "config.toml"),
		Tag:    tag(root),
	}, nil
}

func tag(root string) string {
	sum := sha256.Sum256([]byte(root))
	return hex.EncodeToString(sum[:3])
}

// The user ids of VMMs lie in what useradd, subuid and systemd leave alone
// (systemd's UIDS-GIDS.md: 1879048192 and up), and two daemons' do not meet: a
// process is told from its neighbours by its user among other things.
const (
	uidFirst = 0x70000000
	uidBits  = 10 // of a machine within its daemon
	tagBits  = 17 // of a daemon; up to 0x77ffffff, below the signed limit
)

// UIDBase is the first user id that a machine's VMM may run as.
func (p Paths) UIDBase(c Config) uint32 {
	if c.UIDBase != 0 {
		return c.UIDBase
	}
	tag, err := strconv.ParseUint(p.Tag, 16, 24)
	if err != nil {
		panic("internal error: tag " + p.Tag)
	}
	return uidFirst + uint32(tag%(1<<tagBits))<<uidBits
}

// Database is the SQLite file.
func (p Paths) Database() string { return filepath.Join(p.State, "banger.db") }

// Lock is the file that a daemon locks for life.
func (p Paths) Lock() string { return filepath.Join(p.State, "lock") }

// DaemonLog is where a daemon that the CLI started logs.
func (p Paths) DaemonLog() string { return filepath.Join(p.State, "daemon.log") }

// SSH holds what clients of machines' SSH servers need, and nothing else.
func (p Paths) SSH() string { return filepath.Join(p.State, "ssh") }

// SSHIdentity is the private key that machines let in.
func (p Paths) SSHIdentity() string { return filepath.Join(p.SSH(), "id_ed25519") }

// KnownHosts holds the host keys of all machines.
func (p Paths) KnownHosts() string { return filepath.Join(p.SSH(), "known_hosts") }

// SocketDir holds Socket and nothing else.
func (p Paths) SocketDir() string { return filepath.Join(p.Run, "daemon") }

// Socket is where the daemon serves.
func (p Paths) Socket() string { return filepath.Join(p.SocketDir(), "banger.sock") }

// Images is the image library.
func (p Paths) Images() string { return filepath.Join(p.Cache, "images") }

// Kernels is the kernel library.
func (p Paths) Kernels() string { return filepath.Join(p.Cache, "kernels") }

// Templates is the template library. It is no part of the cache, which daemons
// may share: no other may remove what a machine stands on.
func (p Paths) Templates() string { return filepath.Join(p.State, "templates") }

// VMs holds a directory for each machine.
func (p Paths) VMs() string { return filepath.Join(p.State, "vms") }

// VMRuns holds a directory of sockets for each machine.
func (p Paths) VMRuns() string { return filepath.Join(p.Run, "vms") }

// VM returns the places of one machine.
func (p Paths) VM(id string) VMPaths {
	return VMPaths{Dir: filepath.Join(p.VMs(), id), Run: filepath.Join(p.VMRuns(), id)}
}

// VMPaths are the places of one machine.
type VMPaths struct {
	Dir string // disks, logs, handles
	Run string // sockets
}

// Handles is the scratch file that tells how to find what runs.
func (p VMPaths) Handles() string { return filepath.Join(p.Dir, "handles.json") }

// Initrd is the machine's initramfs with its boot bundle.
func (p VMPaths) Initrd() string { return filepath.Join(p.Dir, "initrd") }

// ConsoleLog is the guest's serial console.
func (p VMPaths) ConsoleLog() string { return filepath.Join(p.Dir, "console.log") }

// VMMLog is what the VMM itself prints.
func (p VMPaths) VMMLog() string { return filepath.Join(p.Dir, "vmm.log") }

// Metrics is where a VMM that has metrics writes them.
func (p VMPaths) Metrics() string { return filepath.Join(p.Dir, "metrics.json") }

// APISock is the VMM's API or QMP socket.
func (p VMPaths) APISock() string { return filepath.Join(p.Run, "api.sock") }

// AgentSock is the Unix socket of the agent's byte stream.
func (p VMPaths) AgentSock() string { return filepath.Join(p.Run, "agent.sock") }

// DNSName is the name by which guests and the host find a machine.
func DNSName(name string) string { return name + ".vm" }
