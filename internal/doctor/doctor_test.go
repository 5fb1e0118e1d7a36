package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/doctor"
	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/vm"
)

// driver is a VMM driver that is there, or why not.
type driver struct{ err error }

func (d driver) Name() string                            { return "qemu" }
func (d driver) Check(context.Context) error             { return d.err }
func (d driver) Version(context.Context) (string, error) { return "9.9.9", d.err }

// net is a network that can be had, or why not.
type net struct {
	err       error
	obstacles []network.Obstacle
}

func (n net) Check(context.Context) error                           { return n.err }
func (n net) Obstacles(context.Context) ([]network.Obstacle, error) { return n.obstacles, nil }

var now = time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)

// none is the error of asking a daemon where none is.
func none(t *testing.T) error {
	t.Helper()
	err := client.New(t.TempDir() + "/no.sock").Ping(context.Background())
	if !client.IsNone(err) {
		t.Fatalf("Ping of no daemon: %v", err)
	}
	return err
}

// healthy is a host on which everything is as it should be, and no daemon
// runs.
func healthy(t *testing.T) doctor.Deps {
	noDaemon := none(t)
	paths, err := config.NewPaths("/srv/b")
	if err != nil {
		t.Fatal(err)
	}
	dir := func(p string, ours bool) doctor.Place {
		return doctor.Place{Path: p, Ours: ours, Mode: fs.ModeDir | 0o711}
	}
	return doctor.Deps{
		Version: "v2", Client: "v2", Built: now.AddDate(0, -1, 0), Paths: paths, HasConfig: true,
		Host: doctor.Host{
			Root:   true,
			KVM:    doctor.KVM{Module: "kvm_amd", CPU: "kvm_amd"},
			Spaces: []doctor.Space{{Dir: "/srv", Free: 100 << 30}},
			Places: []doctor.Place{dir("/srv/b/state", true), dir("/srv/b", false)},
			Clock:  doctor.Clock{Now: now, Synced: true, Service: true},
		},
		Driver:     driver{},
		TSCRate:    func(context.Context) (uint32, error) { return 2_000_000, nil },
		Network:    net{},
		Look:       look(),
		Records:    func(context.Context) ([]vm.VM, error) { return nil, fs.ErrNotExist },
		Ping:       func(context.Context) error { return noDaemon },
		Status:     func(context.Context) (*api.StatusResponse, error) { return nil, noDaemon },
		LockHolder: func() (int, bool) { return 0, false },
	}
}

// look finds every program but some.
func look(missing ...string) func(string) (string, error) {
	return func(program string) (string, error) {
		if slices.Contains(missing, program) {
			return "", fmt.Errorf("program %s is not installed", program)
		}
		return "/usr/bin/" + program, nil
	}
}

func lines(d *api.Doctor) (s string) {
	for _, c := range d.Checks {
		s += fmt.Sprintf("%s %s: %s\n", c.Status, c.Name, c.Detail)
		for _, h := range c.Hints {
			s += "    hint: " + h + "\n"
		}
	}
	return s + d.Summary + "\n"
}

func TestHealthy(t *testing.T) {
	d := doctor.Run(context.Background(), healthy(t))
	want := `ok packages: all programs are installed
ok agent: banger-agent is installed
ok driver: QEMU 9.9.9
ok kvm: kvm_amd: guests run on the processor
ok limits: each machine's memory and processes are bounded by a cgroup
ok tun: /dev/net/tun opens
ok nftables: the kernel takes our rules
ok firewall: none is in the way
ok disk: /srv has 100G left
ok permissions: you are root, and VMMs' users get through to their directories
ok configuration: /srv/b/config.toml is in order
ok database: there is none yet
ok leftovers: none: everything belongs to a machine
ok daemon: none runs; the first command starts one
ok dns: 127.0.0.1:42069 is free
ok clock: it is synchronised
ok ssh: the client is installed
machines can run here, with KVM
`
	if got := lines(d); !d.OK || got != want {
		t.Errorf("OK = %t:\n%swant\n%s", d.OK, got, want)
	}
}

func TestFindings(t *testing.T) {
	hinted := func(hint, text string) error {
		return errkind.WithHint(errkind.New(errkind.Host, "%s", text), hint)
	}
	pinged := func(d *doctor.Deps, err error) { d.Ping = func(context.Context) error { return err } }
	answers := func(d *doctor.Deps, s *api.StatusResponse) {
		pinged(d, nil)
		d.Status = func(context.Context) (*api.StatusResponse, error) { return s, nil }
	}
	records := func(err error, vms ...vm.VM) func(context.Context) ([]vm.VM, error) {
		return func(context.Context) ([]vm.VM, error) { return vms, err }
	}
	tests := []struct {
		what  string
		spoil func(d *doctor.Deps)
		want  string // lines that stand in the report, beginning with status and name
		bad   bool   // machines cannot run
	}{
		{"a program is missing", func(d *doctor.Deps) { d.Look = look("mkfs.ext4", "e2fsck", "mmdebstrap") },
			"fail packages: not installed: mmdebstrap, mkfs.ext4, e2fsck\n    hint: apt-get install -y mmdebstrap e2fsprogs\n", true},
		{"no Debian", func(d *doctor.Deps) { d.Look = look("apt-get", "depmod") },
			"fail packages: not installed: apt-get, depmod (on Debian: apt-get install -y apt kmod)\nok agent", true},
		{"no agent", func(d *doctor.Deps) { d.AgentErr = errors.New("banger-agent is not installed") },
			"fail agent: banger-agent is not installed\n", true},
		{"no ssh", func(d *doctor.Deps) { d.Look = look("ssh") },
			"warn ssh: ssh is not installed: everything works but vm ssh and ssh-config\n    hint: apt-get install -y openssh-client\n", false},

		{"no such driver", func(d *doctor.Deps) {
			d.Driver, d.DriverErr = nil, errors.New(`driver = "xen": there is no such driver`)
		},
			"fail driver: driver = \"xen\": there is no such driver\n", true},
		{"a driver that does not work", func(d *doctor.Deps) { d.Driver = driver{hinted("apt-get install -y qemu", "too old")} },
			"fail driver: too old\n    hint: apt-get install -y qemu\n", true},
		{"a better driver that does not work", func(d *doctor.Deps) { d.Better = driver{hinted("modprobe dm_snapshot", "no snapshots")} },
			"warn qemu: machines run without it, and start slower: no snapshots\n    hint: modprobe dm_snapshot\n", false},
		{"a better driver that could not help", func(d *doctor.Deps) {
			d.Host.KVM, d.Better = doctor.KVM{Err: fs.ErrNotExist}, driver{hinted("", "no KVM")}
		}, "warn kvm: there is no /dev/kvm, and the processor shows no virtualisation (it may be off in the firmware, or on the host above): guests run in software, 10 to 20 times slower\nok limits", false},
		{"a KVM that is not real", func(d *doctor.Deps) { d.Host.KVM = doctor.KVM{} },
			"warn kvm: /dev/kvm is there, but is not the processor's virtualisation (neither kvm_intel nor kvm_amd is loaded): guests run in software, 10 to 20 times slower\nok limits", false},
		{"no KVM, but there could be", func(d *doctor.Deps) { d.Host.KVM = doctor.KVM{Err: fs.ErrNotExist, CPU: "kvm_intel"} },
			"warn kvm: there is no /dev/kvm, but the processor could: guests run in software, 10 to 20 times slower\n    hint: modprobe kvm_intel\n", false},
		{"no KVM at all", func(d *doctor.Deps) { d.Host.KVM = doctor.KVM{Err: fs.ErrNotExist} },
			"machines can run here, in software, 10 to 20 times slower than with KVM\n", false},
		{"KVM does not open", func(d *doctor.Deps) { d.Host.KVM.Err = syscall.EBUSY },
			"warn kvm: device or resource busy: guests run in software, 10 to 20 times slower\n", false},

		{"no limits", func(d *doctor.Deps) { d.LimitsErr = errors.New("no cgroup2") },
			"warn limits: machines run without limits on memory and processes: no cgroup2\nok tun", false},

		{"no tun", func(d *doctor.Deps) { d.Host.Tun.Err = fs.ErrNotExist },
			"fail tun: there is no /dev/net/tun\n    hint: modprobe tun\n    hint: mkdir -p /dev/net && rm -f /dev/net/tun && mknod -m 666 /dev/net/tun c 10 200\nwarn nftables: not looked at", true},
		{"tun's driver is missing", func(d *doctor.Deps) { d.Host.Tun.Err = syscall.ENODEV },
			"fail tun: the kernel's driver tun is not loaded\n    hint: modprobe tun\n", true},
		{"tun is something else", func(d *doctor.Deps) { d.Host.Tun.Other = true },
			"fail tun: /dev/net/tun is another device\n    hint: mkdir -p", true},
		{"tun is covered", func(d *doctor.Deps) { d.Host.Tun = doctor.Tun{Other: true, Mounted: true} },
			"fail tun: something else is mounted over /dev/net/tun\n    hint: umount /dev/net/tun\n", true},
		{"tun does not open", func(d *doctor.Deps) { d.Host.Tun.Err = syscall.EPERM },
			"fail tun: operation not permitted\n", true},
		{"no nftables", func(d *doctor.Deps) { d.Network = net{err: hinted("modprobe nf_tables", "try rules: not supported")} },
			"fail nftables: try rules: not supported\n    hint: modprobe nf_tables\nok disk", true},
		{"a foreign firewall", func(d *doctor.Deps) {
			d.Network = net{obstacles: []network.Obstacle{{What: "table ip filter, chain FORWARD (policy drop)", Hint: "iptables -I it"}}}
		}, "warn firewall: table ip filter, chain FORWARD (policy drop) keeps machines from the network\n    hint: iptables -I it\n", false},
		{"an unreadable firewall", func(d *doctor.Deps) {
			d.Network = net{obstacles: []network.Obstacle{{What: "table ip nat", Err: errors.New("it is odd"), Hint: "nft list table ip nat"}}}
		}, "warn firewall: table ip nat may keep machines from the network: it is odd\n    hint: nft list table ip nat\n", false},
		{"no network to ask", func(d *doctor.Deps) { d.Network = nil }, "ok tun: /dev/net/tun opens\nok disk", false},

		{"a full disk", func(d *doctor.Deps) {
			d.Host.Spaces[0] = doctor.Space{Dir: "/s p", Free: 60<<20 + 5}
			d.Host.Entries = []string{"/srv/b/state/vms/0123abcd"}
			d.Records = records(nil, vm.VM{ID: "0123abcd"})
		}, "fail disk: /s p has 60M left, and a machine takes at least 256M\n    hint: df -h '/s p'\n    hint: banger vm prune\n", true},
		{"little room", func(d *doctor.Deps) { d.Host.Spaces[0].Free = 1 << 30 },
			"warn disk: /srv has 1G left, which an image or a machine in use soon takes\n    hint: df -h /srv\n", false},
		{"a full cache", func(d *doctor.Deps) { d.Host.Spaces[0] = doctor.Space{Dir: "/c", Free: 1 << 20, Cache: true} },
			"warn disk: /c has 1M left, which", false},
		{"a disk that does not tell", func(d *doctor.Deps) { d.Host.Spaces[0].Err = syscall.EIO }, "fail disk: input/output error\n", true},

		{"somebody else's directory", func(d *doctor.Deps) { d.Host.Places[0].UID = 1000 },
			"fail permissions: /srv/b/state belongs to user 1000, not to root\n    hint: chown root /srv/b/state\n", true},
		{"the home above", func(d *doctor.Deps) { d.Host.Places[1].UID = 1000 }, "ok permissions", false},
		{"a file in its place", func(d *doctor.Deps) { d.Host.Places[0].Mode = 0o644 },
			"fail permissions: /srv/b/state is not a directory\n    hint: mv --backup=numbered /srv/b/state /srv/b/state.old\n", true},
		{"a way that is closed", func(d *doctor.Deps) { d.Host.Places[0].Closed = hinted("chmod o+x /srv", "/srv may not be passed") },
			"fail permissions: /srv may not be passed\n    hint: chmod o+x /srv\n", true},

		{"no configuration", func(d *doctor.Deps) { d.HasConfig = false },
			"ok configuration: /srv/b/config.toml is not there: the defaults hold\n", false},
		{"a wrong line", func(d *doctor.Deps) {
			d.ConfigErr = errkind.Wrap(errkind.Usage, &config.FileError{Path: "/srv/b/config.toml", Line: 3, Err: errors.New(`unknown key "x"`)})
		}, "fail configuration: /srv/b/config.toml:3: unknown key \"x\"; the defaults are looked at here\n    hint: sed -i '3s/^/# /' /srv/b/config.toml\n", true},
		{"a wrong file", func(d *doctor.Deps) { d.ConfigErr = errors.New("it is a directory") },
			"fail configuration: it is a directory; the defaults are looked at here\n    hint: ${EDITOR:-vi} /srv/b/config.toml\n", true},

		{"machines", func(d *doctor.Deps) {
			d.Records = records(nil, vm.VM{ID: "0123abcd", UID: 7}, vm.VM{ID: "0123abce", UID: 8})
			d.Host.Entries = []string{"/srv/b/state/vms/0123abcd", "/run/x/vms/0123abce"}
			d.Host.Processes = []doctor.Process{{PID: 10, UID: 7}}
		}, "ok database: /srv/b/state/banger.db is sound; 2 machines\nok leftovers", false},
		{"leftovers", func(d *doctor.Deps) {
			d.Records = records(nil, vm.VM{ID: "0123abcd", UID: 7})
			d.Host.Entries = []string{"/srv/b/state/vms/0123abcd", "/srv/b/state/vms/ffffffff", "/run/x/vms/a b"}
			d.Host.Processes = []doctor.Process{{PID: 10, UID: 7}, {PID: 11, UID: 8}}
		}, "warn leftovers: of no machine: 1 × process (11), 1 × directory of disks (/srv/b/state/vms/ffffffff), 1 × directory of sockets ('/run/x/vms/a b')\n    hint: kill -9 11\n    hint: mkdir -p /srv/b/state/aside && mv --backup=numbered -t /srv/b/state/aside /srv/b/state/vms/ffffffff\n    hint: rm -r '/run/x/vms/a b'\n", false},
		{"a machine that was deleted meanwhile", func(d *doctor.Deps) { // and its pid another's
			d.Host.Entries = []string{"/srv/b/state/vms/0123abcd", "/run/x/vms/0123abcd"}
			d.Host.Processes = []doctor.Process{{PID: 10, UID: 7}, {PID: 11, UID: 7}}
			d.Again = func() ([]doctor.Process, []string, error) { return []doctor.Process{{PID: 11, UID: 9}}, nil, nil }
		}, "ok leftovers: none: everything belongs to a machine\n", false},
		{"one of two that stays", func(d *doctor.Deps) {
			d.Host.Entries = []string{"/run/x/vms/0123abcd", "/run/x/vms/0123abce"}
			d.Host.Processes = []doctor.Process{{PID: 10, UID: 7}, {PID: 11, UID: 8}}
			d.Again = func() ([]doctor.Process, []string, error) {
				return []doctor.Process{{PID: 11, UID: 8}, {PID: 12, UID: 9}}, []string{"/run/x/vms/0123abce", "/run/x/vms/0123abcf"}, nil
			}
		}, "warn leftovers: of no machine: 1 × process (11), 1 × directory of sockets (/run/x/vms/0123abce); if a", false},
		{"a host that cannot be looked at again", func(d *doctor.Deps) {
			d.Host.Entries = []string{"/run/x/vms/0123abcd"}
			d.Again = func() ([]doctor.Process, []string, error) { return nil, nil, syscall.EIO }
		}, "warn leftovers: cannot tell: input/output error\n", false},
		{"many leftovers", func(d *doctor.Deps) {
			for i := range 9 {
				d.Host.Processes = append(d.Host.Processes, doctor.Process{PID: i + 1, UID: 8})
			}
		}, "warn leftovers: of no machine: 9 × process (1, 2, 3, 4, 5); if a database was put aside, put it back first\n    hint: kill -9 1 2 3 4 5\n", false},
		{"a list that is not to be had", func(d *doctor.Deps) { d.Host.EntryErr = syscall.EIO }, "warn leftovers: cannot tell: input/output error\n", false},
		{"a damaged database", func(d *doctor.Deps) { d.Records = records(hinted("mv a b", "database x: it is damaged")) },
			"fail database: database x: it is damaged\n    hint: mv a b\nwarn leftovers: not looked at", true},
		{"an older database", func(d *doctor.Deps) { d.Records = records(fmt.Errorf("%w: v1", doctor.ErrOlder)) },
			"ok database: /srv/b/state/banger.db is of an earlier version; the daemon's next start upgrades it, after a backup\n", false},

		{"a daemon", func(d *doctor.Deps) {
			answers(d, &api.StatusResponse{Pid: 5, Version: "v2", DnsAddr: "127.0.0.1:42069"})
		},
			"ok daemon: process 5 answers, version v2\nok dns: names are answered on 127.0.0.1:42069\n", false},
		{"an old daemon", func(d *doctor.Deps) { answers(d, &api.StatusResponse{Pid: 5, Version: "v1"}) },
			"warn daemon: process 5 is version v1, and v2 is installed; machines go on when it is restarted\n    hint: banger daemon stop && banger daemon start\n", false},
		{"a daemon that answers no names", func(d *doctor.Deps) { answers(d, &api.StatusResponse{Pid: 5, Version: "v2"}) },
			"warn dns: the daemon answers no names; its log says why\n    hint: tail -n 20 /srv/b/state/daemon.log\n", false},
		{"an old banger", func(d *doctor.Deps) {
			d.Client = "v1"
			answers(d, &api.StatusResponse{Pid: 5, Version: "v2"})
		}, "warn daemon: bangerd is version v2, and banger v1: install both from the same release\n", false},
		{"a daemon that may not be asked", func(d *doctor.Deps) {
			pinged(d, hinted("sudo usermod it", "you may not use it"))
		}, "fail daemon: you may not use it\n    hint: sudo usermod it\n", true},
		{"a daemon that hangs", func(d *doctor.Deps) {
			pinged(d, context.DeadlineExceeded)
			d.LockHolder = func() (int, bool) { return 5, true }
		}, "fail daemon: process 5 has /srv/b/state and does not answer; if it does not come up soon, kill it: machines go on\n    hint: tail -n 20 /srv/b/state/daemon.log\n    hint: kill -9 5\n", true},
		{"a daemon that is slow to tell", func(d *doctor.Deps) { // nobody is to kill it
			pinged(d, nil)
			d.Status = func(context.Context) (*api.StatusResponse, error) { return nil, context.DeadlineExceeded }
			d.LockHolder = func() (int, bool) { return 5, true }
			d.Host.NamePort = doctor.Holder{Taken: true, PID: 5, Name: "bangerd"}
		}, "warn daemon: it answers, but does not tell its status: context deadline exceeded\n    hint: tail -n 20 /srv/b/state/daemon.log\nwarn dns: not looked at: the daemon does not tell where it answers names\nok clock", false},
		{"a daemon that does not come up", func(d *doctor.Deps) { d.LockHolder = func() (int, bool) { return 5, true } },
			"fail daemon: process 5 has /srv/b/state and does not answer", true},

		{"the port for names is taken", func(d *doctor.Deps) { d.Host.NamePort = doctor.Holder{Taken: true, PID: 9, Name: "other"} },
			"warn dns: 127.0.0.1:42069 is taken by other (process 9): the daemon takes the next free port\n    hint: ss -lntup sport = :42069\n", false},
		{"by nobody that is known", func(d *doctor.Deps) { d.Host.NamePort = doctor.Holder{Taken: true} },
			"warn dns: 127.0.0.1:42069 is taken: the daemon takes the next free port\n", false},
		{"by another daemon", func(d *doctor.Deps) { d.Host.NamePort = doctor.Holder{Taken: true, PID: 9, Name: "bangerd"} },
			"ok dns: another banger daemon has 127.0.0.1:42069; this one takes the next free port\n", false},
		{"the guests' port is taken", func(d *doctor.Deps) { d.Host.GuestPort = doctor.Holder{Taken: true, PID: 9, Name: "dnsmasq"} },
			"warn dns: port 53 is taken on all addresses by dnsmasq (process 9): guests will not find each other by name\n    hint: ss -lntup sport = :53\n", false},
		{"the daemon had to take another", func(d *doctor.Deps) {
			answers(d, &api.StatusResponse{Pid: 5, Version: "v2", DnsAddr: "127.0.0.1:42070"})
			d.Host.NamePort = doctor.Holder{Taken: true, PID: 9, Name: "other"}
		}, "warn dns: names are answered on 127.0.0.1:42070: port 42069 was taken when the daemon started\n    hint: ss -lntup sport = :42069\n", false},
		{"and need not any more", func(d *doctor.Deps) {
			answers(d, &api.StatusResponse{Pid: 5, Version: "v2", DnsAddr: "127.0.0.1:42070"})
		}, "    hint: banger daemon stop && banger daemon start\nok clock", false},

		{"a clock long before us", func(d *doctor.Deps) { d.Host.Clock.Now = now.AddDate(-2, 0, 0) },
			"fail clock: it says 2024-11-24, and this program was built on 2026-10-24: what is signed now is not valid then\n    hint: date -u --set=2026-10-24T06:00:00Z\n    hint: timedatectl set-ntp true\n", true},
		{"a build of an unknown day", func(d *doctor.Deps) { d.Host.Clock.Now, d.Built = time.Unix(0, 0), time.Time{} }, "ok clock", false},
		{"a clock that runs by itself", func(d *doctor.Deps) { d.Host.Clock.Synced = false },
			"warn clock: it says 2026-11-24, and is not synchronised: guests get what it says\n    hint: timedatectl set-ntp true\n", false},
		{"without systemd", func(d *doctor.Deps) { d.Host.Clock.Synced, d.Host.Clock.Service = false, false },
			"    hint: apt-get install -y chrony\nok ssh", false},
		{"a clock that does not tell", func(d *doctor.Deps) { d.Host.Clock.Err = syscall.EPERM },
			"ok clock: it says 2026-11-24; whether it is synchronised cannot be told (operation not permitted)\n", false},
		{"no rate for guests in software", func(d *doctor.Deps) {
			d.Host.KVM = doctor.KVM{}
			d.TSCRate = func(context.Context) (uint32, error) { return 0, nil }
		}, "warn clock: the rate of the processor's time stamp counter cannot be measured: guests in software may hang when they boot\n", false},
		{"nor needed", func(d *doctor.Deps) { d.TSCRate = func(context.Context) (uint32, error) { return 0, nil } }, "ok clock", false},
	}
	for _, tt := range tests {
		deps := healthy(t)
		tt.spoil(&deps)
		if deps.Again == nil {
			deps.Again = func() ([]doctor.Process, []string, error) { return deps.Host.Processes, deps.Host.Entries, nil }
		}
		d := doctor.Run(context.Background(), deps)
		if got := lines(d); !strings.Contains("\n"+got, "\n"+tt.want) || d.OK == tt.bad {
			t.Errorf("%s: OK = %t:\n%swant in it\n%s", tt.what, d.OK, got, tt.want)
		}
		if tt.bad != strings.HasPrefix(d.Summary, "machines cannot run here; in the way: ") {
			t.Errorf("%s: %s", tt.what, d.Summary)
		}
	}
}

// Without root most can be seen, and what cannot is said; hints carry sudo.
func TestWithoutRoot(t *testing.T) {
	deps := healthy(t)
	deps.Host.Root = false
	deps.Host.KVM.Err, deps.Host.Tun.Err, deps.Host.EntryErr = fs.ErrPermission, fs.ErrPermission, fs.ErrPermission
	deps.Host.Spaces[0].Free = 1 << 30
	deps.ConfigErr = fs.ErrPermission
	deps.Records = func(context.Context) ([]vm.VM, error) { return nil, fs.ErrPermission }
	deps.Look = look("depmod")
	want := `fail packages: not installed: depmod
    hint: sudo apt-get install -y kmod
ok agent: banger-agent is installed
ok driver: QEMU 9.9.9
ok kvm: kvm_amd: guests run on the processor
ok limits: each machine's memory and processes are bounded by a cgroup
ok tun: /dev/net/tun is there (the daemon may use it, you may not)
warn nftables: what rules the kernel takes cannot be seen without root
    hint: sudo banger doctor
warn disk: /srv has 1G left, which an image or a machine in use soon takes
    hint: df -h /srv
ok permissions: VMMs' users get through to their directories
warn configuration: /srv/b/config.toml cannot be seen without root
    hint: sudo banger doctor
warn database: /srv/b/state/banger.db cannot be seen without root
    hint: sudo banger doctor
warn leftovers: not looked at: without the records nobody knows whose what is
fail daemon: none runs, and starting one takes root
    hint: sudo banger daemon start
ok dns: 127.0.0.1:42069 is free
ok clock: it is synchronised
ok ssh: the client is installed
machines cannot run here; in the way: packages, daemon
`
	if got := lines(doctor.Run(context.Background(), deps)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	deps.Records = func(context.Context) ([]vm.VM, error) { return nil, fs.ErrNotExist }
	deps.Ping = func(context.Context) error { return context.DeadlineExceeded }
	deps.LockHolder = func() (int, bool) { return 5, true }
	got := lines(doctor.Run(context.Background(), deps))
	for _, want := range []string{
		"warn leftovers: /srv/b/state/vms cannot be seen without root\n    hint: sudo banger doctor\n",
		"    hint: sudo tail -n 20 /srv/b/state/daemon.log\n    hint: sudo kill -9 5\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%swant in it\n%s", got, want)
		}
	}
}
