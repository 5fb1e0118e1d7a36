package agent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

const (
	machineIDFile = "/etc/machine-id"
	sshDir        = "/etc/ssh"
)

// setIdentity tells the guest who it is, in the files of the image where
// programs look for it, before the image's programs run or, in what was a
// template, while they do. What users add to these files stays: the daemon's part
// of a file that is theirs too stands between two marks.
func setIdentity(t *tree, b wire.Bundle) error {
	return errors.Join(
		setHostKeys(t, b), // looks at the machine-id of before
		t.write(machineIDFile, []byte(b.MachineID+"\n"), 0o444),
		t.write("/etc/hostname", []byte(b.Hostname+"\n"), 0o644),
		setHosts(t, b),
		setResolvers(t, b.Resolvers),
		setAuthorizedKeys(t, b.AuthorizedKeys),
	)
}

// setHosts puts the machine's own name and the bundle's hosts into /etc/hosts.
func setHosts(t *tree, b wire.Bundle) error {
	old, err := t.read("/etc/hosts")
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(withoutBlock(old))) == 0 {
		old = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	// As on Debian: a name that resolves without a network.
	lines := []string{"127.0.1.1\t" + b.Hostname + ".vm " + b.Hostname}
	for _, name := range slices.Sorted(maps.Keys(b.Hosts)) {
		lines = append(lines, b.Hosts[name]+"\t"+name)
	}
	return t.write("/etc/hosts", withBlock(old, lines), 0o644)
}

// setResolvers replaces resolv.conf, also where it is a link to what a
// resolver daemon would write: the image's own network set-up does not run.
func setResolvers(t *tree, resolvers []string) error {
	if len(resolvers) == 0 {
		return nil
	}
	var text strings.Builder
	for _, r := range resolvers {
		fmt.Fprintf(&text, "nameserver %s\n", r)
	}
	return t.write("/etc/resolv.conf", []byte(text.String()), 0o644)
}

// setAuthorizedKeys lets the daemon's users in as root. It runs after the work
// disk was mounted on /root.
func setAuthorizedKeys(t *tree, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	dir, err := t.openDir("/root/.ssh", 0o700)
	if err != nil {
		return err
	}
	defer dir.Close()
	// sshd refuses keys that others could have written (StrictModes): take
	// what is not root's away from them, as ssh-copy-id would.
	if err := errors.Join(dir.Chown(t.uid, t.gid), dir.Chmod(0o700)); err != nil {
		return fmt.Errorf("set owner of /root/.ssh: %w", err)
	}
	const name = "/root/.ssh/authorized_keys"
	old, err := t.read(name)
	if err != nil {
		return err
	}
	return t.write(name, withBlock(old, keys), 0o600)
}

// setHostKeys gives the guest's SSH server its keys. On the first boot of a
// root disk, which shows by the machine-id that is not yet the machine's, it
// removes others: a key that came with the image is known to whoever has the
// image. Later ones are the user's own, and stay.
func setHostKeys(t *tree, b wire.Bundle) error {
	if len(b.SSHHostKeys) == 0 {
		return nil
	}
	id, err := t.read(machineIDFile)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(id)) != b.MachineID {
		if err := removeHostKeys(t); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.SSHHostKeys)) {
		perm := os.FileMode(0o600)
		if strings.HasSuffix(name, ".pub") {
			perm = 0o644
		}
		if err := t.write(sshDir+"/"+name, []byte(b.SSHHostKeys[name]), perm); err != nil {
			return err
		}
	}
	return nil
}

func removeHostKeys(t *tree) error {
	dir, err := t.openDir(sshDir, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", sshDir, err)
	}
	for _, name := range names {
		if !wire.ValidHostKeyName(name) {
			continue
		}
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
			return fmt.Errorf("remove %s/%s: %w", sshDir, name, err)
		}
	}
	return nil
}
