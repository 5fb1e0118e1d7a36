package qemu

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/vmm"
)

func testSpec() vmm.Spec {
	return vmm.Spec{
		ID: "a1b2", Dir: "/s/a1b2", APISock: "/r/a,1/api.sock", AgentSock: "/r/a,1/agent.sock",
		ConsoleLog: "/s/a1b2/console.log", VMMLog: "/s/a1b2/vmm.log",
		Kernel: "/k/vmlinux", Initrd: "/s/a1b2/initrd", Cmdline: []string{"net.ifnames=0"},
		VCPUs: 1, MemoryBytes: 512 << 20, UID: 5000,
		Disks: []vmm.Disk{
			{Serial: "root", Path: "/s/a1b2/root.qcow2", Format: vmm.QCOW2, Backing: []string{`/i/"base".ext4`}},
			{Serial: "modules", Path: "/k/modules.ext4", Format: vmm.Raw, ReadOnly: true},
		},
		NICs: []vmm.NIC{{Tap: "b0123450123abcd", MAC: "02:ba:01:23:ab:cd"}},
	}
}

func TestCommandLine(t *testing.T) {
	got, err := commandLine(testSpec(), host{accel: TCG, tscKHz: 2596124})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-name", "a1b2",
		"-machine", "microvm,x-option-roms=off",
		"-smp", "1", "-m", "512M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-qmp", "unix:/r/a,,1/api.sock,server=on,wait=off",
		"-kernel", "/k/vmlinux", "-initrd", "/s/a1b2/initrd",
		"-append", "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable tsc_early_khz=2596124 cryptomgr.notests mitigations=off net.ifnames=0",
		"-chardev", "file,id=console,append=on,path=/s/a1b2/console.log", "-serial", "chardev:console",
		"-device", "virtio-rng-device",
		"-device", "virtio-serial-device",
		"-chardev", "socket,id=agent,server=on,wait=off,path=/r/a,,1/agent.sock",
		"-device", "virtserialport,chardev=agent,name=banger.agent",
		"-accel", "tcg,tb-size=128,thread=multi", "-cpu", "max",
		"-blockdev", `{"driver":"qcow2","node-name":"disk0","read-only":false,"discard":"unmap","cache":{"direct":false,"no-flush":false},` +
			`"file":{"driver":"file","filename":"/s/a1b2/root.qcow2","read-only":false,"discard":"unmap","aio":"threads","cache":{"direct":false,"no-flush":false}},` +
			`"backing":{"driver":"raw","read-only":true,"cache":{"direct":false,"no-flush":false},` +
			`"file":{"driver":"file","filename":"/i/\"base\".ext4","read-only":true,"aio":"threads","cache":{"direct":false,"no-flush":false}}}}`,
		"-device", "virtio-blk-device,drive=disk0,serial=root,werror=enospc,rerror=report",
		"-blockdev", `{"driver":"raw","node-name":"disk1","read-only":true,"cache":{"direct":false,"no-flush":false},` +
			`"file":{"driver":"file","filename":"/k/modules.ext4","read-only":true,"aio":"threads","cache":{"direct":false,"no-flush":false}}}`,
		"-device", "virtio-blk-device,drive=disk1,serial=modules,werror=enospc,rerror=report",
		"-netdev", "tap,id=net0,fd=3,vhost=off", "-device", "virtio-net-device,netdev=net0,mac=02:ba:01:23:ab:cd",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commandLine (-want +got):\n%s", diff)
	}
}

func TestCommandLineOfHosts(t *testing.T) {
	tests := []struct {
		name    string
		host    host
		vcpus   int
		want    string // -accel
		tsc     bool
		layouts bool // the kernel randomises them
	}{
		{"KVM", host{accel: KVM}, 2, "kvm", false, true},
		{"old QEMU", host{accel: TCG, tscKHz: 1, racyTCG: true, retranslates: true}, 2, "tcg,tb-size=128,thread=single", true, false},
		{"old QEMU, one vCPU", host{accel: TCG, tscKHz: 1, racyTCG: true, retranslates: true}, 1, "tcg,tb-size=128,thread=multi", true, false},
		{"no TSC", host{accel: TCG}, 2, "tcg,tb-size=128,thread=multi", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testSpec()
			s.VCPUs = tt.vcpus
			args, err := commandLine(s, tt.host)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.Index(args, "-accel"); args[i+1] != tt.want {
				t.Errorf("-accel %s, want %s", args[i+1], tt.want)
			}
			if got := strings.Contains(args[slices.Index(args, "-append")+1], "tsc_early_khz"); got != tt.tsc {
				t.Errorf("tsc_early_khz given: %v, want %v", got, tt.tsc)
			}
			if got := strings.Contains(args[slices.Index(args, "-append")+1], "norandmaps"); got == tt.layouts {
				t.Errorf("norandmaps given: %v, want %v", got, !tt.layouts)
			}
		})
	}
}

// With a vsock there is no serial port; its device is open behind the taps.
func TestCommandLineOfVsock(t *testing.T) {
	args, err := commandLine(testSpec(), host{accel: KVM, cid: 7000})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(args, "vhost-vsock-device,id=vsock,guest-cid=7000,vhostfd=4") || strings.Contains(strings.Join(args, " "), "serial-device") {
		t.Errorf("commandLine = %q", args)
	}
}

func TestCommandLineTooLong(t *testing.T) {
	s := testSpec()
	s.Cmdline = []string{strings.Repeat("x", maxCmdline)}
	if _, err := commandLine(s, host{accel: TCG}); errkind.Of(err) != errkind.Usage {
		t.Errorf("commandLine = %v, want an error of kind usage", err)
	}
}

// The signature is what stands on the command line.
func TestSignature(t *testing.T) {
	s := testSpec()
	args, err := commandLine(s, host{accel: TCG})
	if err != nil {
		t.Fatal(err)
	}
	sig := New(Options{}).Signature(vmm.Spec{ID: s.ID, APISock: s.APISock, UID: s.UID})
	i := slices.Index(args, sig.Arg)
	if i < 0 || args[i+1] != sig.Next || sig.UID != s.UID || sig.Exe != program {
		t.Errorf("Signature = %+v", sig)
	}
}
