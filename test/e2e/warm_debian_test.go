//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// debianAspects are what machines of one template of a distribution do not share;
// the names that systemd, which runs since the template, makes up are random.
const debianAspects = `hostnamectl hostname
cat /etc/machine-id
head -c 32 /dev/urandom | sha256sum
systemd-run --quiet --wait --pipe sh -c 'echo $INVOCATION_ID'
cat /sys/class/net/eth0/address
ip -4 -o addr show eth0 | awk '{print $4}'
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null | awk '{print $2}' | grep . || echo $(hostname) has none`

// Machines of one template of a distribution are different machines, whose system
// and journal go on. It boots a distribution twice, once with what the host has to
// spare, so make soak runs it.
func TestWarmDebian(t *testing.T) {
	soakOnly(t)
	b := newBed(t, `templates = true`, `image = "debian-bookworm"`, `memory = "512M"`)
	x := b.template()
	names := []string{"one", "two"}
	for _, n := range names {
		b.must("vm", "create", n)
		// At once, and in time: what journald has is its own machine's.
		b.hasJournal(n)
	}
	b.areRestored(x, names...)
	b.debianDiffers(names)
	for _, n := range names {
		if off := b.dateOff(n).Abs(); off > 50*time.Millisecond {
			t.Errorf("the clock of %s is off by %s", n, off)
		}
		b.eventually("its own SSH server answers in "+n, time.Minute, func() bool {
			return b.run("vm", "exec", n, "--", "systemctl", "-q", "is-active", "ssh.socket").code == 0
		})
		b.hasJournal(n)
		b.wants(0, n+"\n", "", "vm", "ssh", n, "--", "hostname") // which checks the key
		agent := b.agentPID(n)
		b.run("vm", "exec", n, "--", "kill", "-KILL", agent)
		b.wants(0, n+"\n", "", "vm", "exec", n, "--", "hostname")
	}
	b.differ("host keys", b.hostKeys(names...)...)
	b.must("vm", "exec", "one", "--", "sh", "-c", "echo mine > /root/f; echo mine > /f; logger -t test before the boot")
	b.must("vm", "stop", "one")
	b.must("vm", "start", "one")
	b.wants(0, "mine\nmine\n", "", "vm", "exec", "one", "--", "cat", "/f", "/root/f")
	b.wants(0, "running\n", "", "vm", "exec", "one", "--", "systemctl", "is-system-running", "--wait")
	b.guestCannot("two", "cat /f || cat /root/f")
}

// hasJournal checks that what is logged now can be read, in the journal of this
// machine.
func (b *bed) hasJournal(name string) {
	b.t.Helper()
	word := fmt.Sprintf("word-%d", time.Now().UnixNano())
	const line = `journalctl -q -n 1 --no-pager | grep -q . && logger -t test "$0" && journalctl --sync && journalctl -q --no-pager -t test -o cat | grep -x "$0" && ls /var/log/journal /run/log/journal 2>/dev/null | grep -vE '^$|:$' | sort -u`
	out := b.must("vm", "exec", name, "--", "sh", "-c", line, word)
	id := strings.TrimSpace(b.must("vm", "exec", name, "--", "cat", "/etc/machine-id"))
	if want := word + "\n" + id + "\n"; out != want {
		b.t.Errorf("the journal of %s gives %q, want %q", name, out, want)
	}
}

func (b *bed) debianDiffers(names []string) {
	b.t.Helper()
	var all [][]string
	for _, n := range names {
		lines := strings.Split(strings.TrimSpace(b.must("vm", "exec", n, "--", "sh", "-c", debianAspects)), "\n")
		if lines[0] != n {
			b.t.Errorf("%s says it is %q", n, lines[0])
		}
		all = append(all, lines)
	}
	for i, line := range strings.Split(debianAspects, "\n") {
		var got []string
		for j := range all {
			if i >= len(all[j]) {
				b.t.Fatalf("%s says %q", names[j], all[j])
			}
			got = append(got, all[j][i])
		}
		b.differ(line, got...)
	}
}

// dateOff is clockOff of a guest without BusyBox.
func (b *bed) dateOff(name string) time.Duration {
	b.t.Helper()
	before := time.Now()
	out := b.must("vm", "exec", name, "--", "date", "+%s%N")
	after := time.Now()
	var ns int64
	_, err := fmt.Sscan(out, &ns)
	must(b.t, err)
	switch told := time.Unix(0, ns); {
	case told.Before(before):
		return told.Sub(before)
	case told.After(after):
		return told.Sub(after)
	}
	return 0
}
