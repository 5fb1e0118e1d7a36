package lifecycle

import (
	"banger/internal/config"
	"banger/internal/sshkey"
	"banger/internal/vm"
)

// KnownHosts is the file in which SSH clients look up the host keys of
// machines; see [sshkey.KnownHosts], which is one. Its methods may be called
// concurrently.
type KnownHosts interface {
	Write(hosts []sshkey.Host) error
	Add(h sshkey.Host) error
	Remove(id string) error
}

// Names by which an SSH server finds its host key (sshd_config(5)).
const (
	hostKeyFile       = "ssh_host_ed25519_key"
	hostKeyPublicFile = hostKeyFile + ".pub"
)

// knownHost is the machine as SSH clients know it.
func knownHost(v vm.VM) sshkey.Host {
	return sshkey.Host{ID: string(v.ID), Name: config.DNSName(v.Name), Token: v.Token}
}

// writeKnownHosts tells SSH clients of all machines.
func (m *Manager) writeKnownHosts(records []vm.VM) error {
	hosts := make([]sshkey.Host, len(records))
	for i, v := range records {
		hosts[i] = knownHost(v)
	}
	return m.d.KnownHosts.Write(hosts)
}

// hostKeys are the files of the machine's SSH host key.
func hostKeys(v vm.VM) (map[string]string, error) {
	k, err := sshkey.HostKey(v.Token)
	if err != nil {
		return nil, err
	}
	name := "root@" + v.Name
	private, err := k.Private(name)
	if err != nil {
		return nil, err
	}
	return map[string]string{hostKeyFile: string(private), hostKeyPublicFile: k.Public(name) + "\n"}, nil
}
